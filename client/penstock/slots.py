"""Slots of shared memory: the server on the same host writes bundles there, tensors are views of them.

Mapped shared and writable: what the loop does to its batch in place changes only the slot it holds. The slot goes back
when the last view of it is gone.
"""

import mmap
import os
import stat
import weakref
from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

_HEAD: Final = 4096
_NONCE: Final = 16
_NAME: Final = "penstock-slots-"


class Slots:
    """The slots of one session, mapped."""

    def __init__(self, path: str, count: int, slot_bytes: int) -> None:
        """Raises OSError or ValueError: there is no such file here, or it is not what a server makes."""
        if not os.path.basename(path).startswith(_NAME):  # noqa: PTH119 - a client need not load pathlib
            raise ValueError(f"{path} is no file of slots")
        self._slot_bytes = slot_bytes
        self._returned: deque[int] = deque()
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            info = os.fstat(file)
            size = _HEAD + count * slot_bytes
            if not stat.S_ISREG(info.st_mode) or info.st_size < size:
                raise ValueError(f"{path} has {info.st_size} bytes, not the {size} of {count} slots")
            self._map = mmap.mmap(file, size)
        finally:
            os.close(file)
        self.nonce = self._map[:_NONCE]

    def body(self, slot: int, size: int) -> npt.NDArray[np.uint8]:
        """The message in a slot, uint8 [size]. When the last view of it is gone the slot is among `returned`."""
        memory = np.frombuffer(self._map, np.uint8, count=size, offset=_HEAD + slot * self._slot_bytes)
        # Appending to a deque is all that a finalizer may do: it runs anywhere, in any thread.
        weakref.finalize(memory, self._returned.append, slot).atexit = False
        return memory

    def returned(self) -> list[int]:
        """Slots that came back since the last call."""
        found = []
        while self._returned:
            found.append(self._returned.popleft())
        return found
