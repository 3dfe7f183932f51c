"""Units of several segments that follow one another: which rows they are, and which of these stand for bad ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock_service.core.segment import U32, Segment

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picked:
    """Rows in the order wanted [n], and the rows among them that stand for bad ones [m] with where those are stored."""

    chunk: U32
    row: U32
    stand_ins: I64  # [m], ascending: numbers in `chunk` and `row`
    bad_chunk: I64  # [m], of the bad row itself
    bad_stored: I64  # [m]


def pick(segments: Sequence[Segment], units: I64) -> Picked:
    """`units` [n] count from the first unit of the first of `segments`."""
    lo, hi = int(units.min(initial=0)), int(units.max(initial=-1)) + 1
    edges = np.cumsum([0, *(s.units for s in segments)])
    touched = [i for i in range(len(segments)) if edges[i] < hi and edges[i + 1] > lo] or [0]
    first = int(edges[touched[0]])
    of = [segments[i] for i in touched]
    at = units - first
    if len(of) == 1:
        chunk, row = of[0].chunk[at], of[0].row[at]
    else:
        chunk, row = np.concatenate([s.chunk for s in of])[at], np.concatenate([s.row for s in of])[at]
    none = np.empty(0, np.int64)
    if not any(len(s.stand_ins) for s in of):
        return Picked(chunk, row, none, none, none)
    standing = np.concatenate([s.stand_ins.unit + int(edges[i]) for s, i in zip(of, touched, strict=True)])
    where = np.searchsorted(standing, units)
    where[where == len(standing)] = 0
    rows = np.flatnonzero(standing[where] == units)
    which = where[rows]
    bad_chunk = np.concatenate([s.stand_ins.chunk for s in of])[which]
    return Picked(chunk, row, rows, bad_chunk, np.concatenate([s.stand_ins.stored for s in of])[which])
