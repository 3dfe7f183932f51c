"""A file mapped far from everything else, so that no array over mapped chunks covers it too.

Rows are taken out of one array over several chunks (`batch/spans.py`), and where what they are written to lies between
two of those NumPy takes it for the same memory: it copies twice more. The kernel puts mappings next to each other
unless it is told a place, which Python's `mmap` cannot.
"""

import ctypes
import itertools
import mmap
import os
import sys
from functools import cache
from typing import Any, Final

import numpy as np

from penstock_service.core.feed import U8

_BASE: Final = 1 << 44  # 16 TiB: programs and libraries are near 0 or near the end, at 128 TiB
_GRAIN: Final = 1 << 30
_SPREAD: Final = 1 << 14  # so many mappings have places of their own, then they begin anew

_turn = itertools.count(int.from_bytes(os.urandom(1)))


def map_far(file: int, size: int) -> U8:
    """uint8 `[size]`: the file's bytes, shared and writable; unmapped when the last view is gone. Raises OSError."""
    if sys.platform != "linux":
        return np.frombuffer(mmap.mmap(file, size), np.uint8)
    return np.asarray(_Far(file, size))


class _Far:
    def __init__(self, file: int, size: int) -> None:
        self._unmap = _libc().munmap
        step = -(-size // _GRAIN) * _GRAIN
        hint = _BASE + next(_turn) % _SPREAD * step
        flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED
        at = _libc().mmap(hint, size, *flags, file, 0)  # elsewhere, where that place is taken
        if at == ctypes.c_void_p(-1).value:
            self._at = 0
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._at, self._size = at, size
        self.__array_interface__: dict[str, Any] = {
            "version": 3,
            "data": (at, False),
            "shape": (size,),
            "typestr": "|u1",
        }

    def __del__(self) -> None:
        if self._at:
            self._unmap(self._at, self._size)


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    size, offset = ctypes.c_size_t, ctypes.c_ssize_t
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, size, ctypes.c_int, ctypes.c_int, ctypes.c_int, offset]
    libc.munmap.argtypes = [ctypes.c_void_p, size]
    return libc
