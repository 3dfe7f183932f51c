"""Memory for messages that is used again, so that a server in steady state allocates none."""

import threading
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

_LEAST: Final = 4096


class Bodies:
    """A `core.feed.Memory` that takes back what is not needed any more. May be used by several threads."""

    def __init__(self, idle_bytes: int = 64 << 20) -> None:
        """`idle_bytes`: the most that wait to be used again; what comes back beyond it is freed."""
        self._most = idle_bytes
        self._lock = threading.Lock()
        self._idle: dict[int, list[U8]] = {}  # by size
        self._ours: WeakValueDictionary[int, U8] = WeakValueDictionary()  # by id; what is never given back just dies
        self.nbytes = 0  # idle
        self.reused = 0
        self.allocated = 0

    def __call__(self, size: int) -> U8:
        """uint8 `[size]`, with whatever was in it before."""
        rounded = _rounded(size)
        with self._lock:
            if idle := self._idle.get(rounded):
                self.nbytes -= rounded
                self.reused += 1
                return idle.pop()[:size]
            block = np.empty(rounded, np.uint8)
            self._ours[id(block)] = block
            self.allocated += 1
            return block[:size]

    def give_back(self, memory: U8) -> None:
        """Nobody may refer to it any more. What is not from here is left alone."""
        block: Any = memory.base
        with self._lock:
            if id(block) not in self._ours or self._ours[id(block)] is not block:
                return
            if self.nbytes + block.size <= self._most:
                self._idle.setdefault(block.size, []).append(block)
                self.nbytes += block.size


def _rounded(size: int) -> int:
    """A common size: at most an eighth more."""
    step = max(_LEAST, 1 << max(0, size - 1).bit_length() >> 4)
    return max(1, -(-size // step)) * step
