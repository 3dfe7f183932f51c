"""Memory that is used again: blocks of common sizes, each lent to one array at a time, under one hard cap.

A block comes back when the last view of its array is gone. What nobody took for a while goes back to the system.
"""

import mmap
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.errors import InvalidRequest
from penstock.tensors.copies import PAGE

U8 = npt.NDArray[np.uint8]
# Writable, with the buffer protocol; not a NumPy array: views of our array would refer to that one, and ours would die.
Memory: TypeAlias = Any

_PAGES_FROM: Final = 64 << 10
_LEAST: Final = 64
_HUGE: Final = 4 << 20  # bytes from which huge pages are asked for
_IDLE: Final = 256
"""How many other blocks are taken before one that nobody takes is let go."""


@dataclass
class _State:
    """What one process knows. A child of a fork begins with nothing: its parent may hold the lock for ever."""

    pid: int = field(default_factory=os.getpid)
    lock: threading.Lock = field(default_factory=threading.Lock)
    returned: deque[tuple[int, int, Memory]] = field(default_factory=deque)  # (size, address, block)
    idle: dict[int, deque[tuple[int, Memory]]] = field(default_factory=dict)  # by size: (when it came back, block)
    lent: set[int] = field(default_factory=set)  # addresses
    held: int = 0  # bytes lent and idle
    elsewhere: int = 0  # bytes that count towards the cap and are not ours
    taken: int = 0
    reused: int = 0
    allocated: int = 0
    plain: int = 0


class Blocks:
    """Lends blocks. Methods may be called by any thread, and after a fork."""

    def __init__(self, max_bytes: int, fresh: Callable[[int], Memory] | None = None) -> None:
        """`fresh` makes a block of so many bytes; None: ordinary memory, whole pages from 64 KiB on.

        Raises:
            InvalidRequest: a cap below 1.
        """
        if max_bytes < 1:
            raise InvalidRequest(f"max_bytes={max_bytes}: must be at least 1; the default is {512 << 20} (512 MiB)")
        self.max_bytes = max_bytes
        self._fresh = fresh or ordinary
        self._state = _State()

    def take(self, size: int) -> U8 | None:
        """uint8 `[size]`, writable, with whatever was in it before; None: the cap leaves no room (it is counted)."""
        here, rounded = self.here(), rounded_up(size)
        with here.lock:
            self._collect(here)
            here.taken += 1
            _let_go_unused(here)
            block = self._take(here, rounded)
            if block is None:
                here.plain += 1
                return None
            array = np.frombuffer(block, np.uint8, count=size)
            address = array.ctypes.data
            here.lent.add(address)
        # Appending to a deque is all that a finalizer may do: it runs anywhere, in any thread. After a fork the deque
        # is that of the parent's state, which the child has let go.
        weakref.finalize(array, here.returned.append, (rounded, address, block)).atexit = False
        return array

    def reserve(self, size: int) -> bool:
        """Count `size` bytes that are not ours; False, and nothing is counted: there is no room."""
        here = self.here()
        with here.lock:
            self._collect(here)
            if not self._room(here, size):
                return False
            here.elsewhere += size
            return True

    def release(self, size: int) -> None:
        """They count no more."""
        here = self.here()
        with here.lock:
            here.elsewhere -= size

    def lends(self, address: int) -> bool:
        """Does a block that is lent begin there?"""
        return address in self.here().lent

    def clear(self) -> None:
        """Let go of what is idle."""
        here = self.here()
        with here.lock:
            self._collect(here)
            here.held -= sum(size * len(blocks) for size, blocks in here.idle.items())
            here.idle.clear()

    def here(self) -> _State:
        """The counts of this process."""
        if self._state.pid != os.getpid():
            self._state = _State()
        return self._state

    @property
    def idle_bytes(self) -> int:
        """Bytes that wait to be taken again."""
        here = self.here()
        with here.lock:
            self._collect(here)
            return sum(size * len(blocks) for size, blocks in here.idle.items())

    def _take(self, here: _State, size: int) -> Memory | None:
        if idle := here.idle.get(size):
            here.reused += 1
            return idle.pop()[1]  # the one that came back last: it is in the caches
        if not self._room(here, size):
            return None
        block = self._fresh(size)
        here.allocated += 1
        here.held += size
        return block

    def _room(self, here: _State, size: int) -> bool:
        while here.held + here.elsewhere + size > self.max_bytes and _drop_oldest(here):
            pass
        return here.held + here.elsewhere + size <= self.max_bytes

    def _collect(self, here: _State) -> None:
        while here.returned:
            size, address, block = here.returned.popleft()
            here.lent.discard(address)
            here.idle.setdefault(size, deque()).append((here.taken, block))


def rounded_up(size: int) -> int:
    """The common size that holds `size` bytes: at most an eighth more, above 64 KiB in whole pages."""
    if size <= _LEAST:
        return _LEAST
    step = max(_LEAST, 1 << (size - 1).bit_length() >> 4)
    if size > _PAGES_FROM - step:
        step = max(step, PAGE)
    return -(-size // step) * step


def ordinary(size: int) -> Memory:
    """A block of this process alone (pages shared with a child of a fork would show its writes)."""
    if size < _PAGES_FROM:
        return np.empty(size, np.uint8).data
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)  # as NumPy does
    return block


def _drop_oldest(here: _State) -> bool:
    """Let the block go that has waited longest; False: none is idle."""
    waiting = [(blocks[0][0], size) for size, blocks in here.idle.items() if blocks]
    if not waiting:
        return False
    size = min(waiting)[1]
    here.idle[size].popleft()
    here.held -= size
    return True


def _let_go_unused(here: _State) -> None:
    for size, blocks in here.idle.items():
        while blocks and here.taken - blocks[0][0] > _IDLE:
            blocks.popleft()
            here.held -= size
