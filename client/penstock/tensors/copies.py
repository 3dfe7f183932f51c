"""How often received bytes are copied on their way into tensors, and memory that need not be."""

import mmap
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

PAGE: Final = max(mmap.PAGESIZE, 16 << 10)
"""What Metal adopts begins at a page and is whole pages long; Apple's pages have 16 KiB."""

WORTH_SHARING: Final = 256 << 10
"""Bytes of a column and step from which sharing beats a copy. Measured on Linux (mlx 0.32.4): slicing and viewing cost
11 µs whatever the size, a copy 1.5 µs for 32 KiB, 19 µs for 1 MiB, 247 µs for 4 MiB. Not measured on Metal."""


@dataclass
class Copies:
    """Bytes that were copied to make tensors, beyond the one copy from the connection into the receive buffer."""

    bytes: int = 0


def pages_of(memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The whole pages behind an array for which `on_pages` is true; they keep it alive."""
    return as_strided(memory, (max(PAGE, -(-len(memory) // PAGE) * PAGE),))


def on_pages(memory: npt.NDArray[np.uint8]) -> bool:
    """Does it begin at whole pages of its own, as by `page_aligned`?"""
    base: Any = memory.base
    owner = base.obj if isinstance(base, memoryview) else base
    return isinstance(owner, mmap.mmap) and memory.ctypes.data % PAGE == 0


def page_aligned(size: int) -> npt.NDArray[np.uint8]:
    """uint8 `[size]`, writable, at the beginning of whole pages of its own (`base`), freed with the last view."""
    pages = mmap.mmap(-1, max(PAGE, -(-size // PAGE) * PAGE))
    return np.frombuffer(pages, np.uint8, count=size)
