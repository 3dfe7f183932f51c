"""In which order rows of several chunks are read: chunk by chunk."""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from penstock_service.core.segment import U32

I64 = npt.NDArray[np.int64]

_RADIX: Final = 1 << 16  # numbers below this are sorted by counting


@dataclass(frozen=True)
class Visit:
    """In which order the rows of a bundle are read."""

    runs: tuple[tuple[int, int, int], ...]  # (chunk, first, end) of `rows`
    rows: I64  # of each chunk's batch, chunk by chunk; of one chunk in the order wanted
    place: I64  # of each of `rows`: where it is wanted

    @cached_property
    def back(self) -> I64:
        """Where each wanted row lies among `rows`."""
        back = np.empty(len(self.place), np.int64)
        back[self.place] = np.arange(len(self.place))
        return back

    @cached_property
    def wanted(self) -> tuple[I64, I64]:
        """Of each row in the order wanted: its run, and its row there."""
        run = np.repeat(np.arange(len(self.runs)), [end - first for _, first, end in self.runs])
        return run[self.back], self.rows[self.back]


def plan_visit(chunk: U32 | I64, row: U32 | I64) -> Visit:
    """`chunk` and `row` [n] in the order wanted."""
    if not len(chunk):
        return Visit((), np.empty(0, np.int64), np.empty(0, np.int64))
    least = chunk.min()
    few = chunk.max() - least < _RADIX
    place = np.argsort((chunk - least).astype(np.uint16) if few else chunk, kind="stable")
    by_chunk = chunk[place]
    edges = np.flatnonzero(by_chunk[1:] != by_chunk[:-1]) + 1
    firsts = [0, *edges.tolist()]
    ends = [*edges.tolist(), len(place)]
    runs = tuple(zip(by_chunk[firsts].tolist(), firsts, ends, strict=True))
    return Visit(runs, row[place].astype(np.int64), place)
