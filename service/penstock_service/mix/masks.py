"""Rows that a run's journal leaves out: quarantined by hand, or in chunks that cannot be read.

They are left out of the segments from their entry's place on, and move no other row.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from penstock_service.core.hashing import U64
from penstock_service.core.journal import Entry, Place
from penstock_service.mix.pool import POSITION_MASK, SOURCE_SHIFT

Ranges = Mapping[int, npt.NDArray[np.int64]]
"""By source: edges of disjoint ranges of stored rows, ascending: first, behind the last, first, ..."""


class Masks:
    """What is left out where. May be asked from several threads."""

    def __init__(self, entries: Sequence[Entry], sources: Sequence[str]) -> None:
        """`sources`: their names, in the stream's order; rows of others are none of this stream's."""
        numbers = {name: i for i, name in enumerate(sources)}
        hidden: dict[int, list[tuple[int, int]]] = {}
        self._places: list[Place] = []
        self._ranges: list[Ranges] = []
        for entry in sorted((e for e in entries if e.kind != "mixture"), key=lambda e: e.place):
            for name, ranges in entry.what["rows"].items():
                if name in numbers:
                    hidden.setdefault(numbers[name], []).extend((first, behind) for first, behind in ranges)
            self._places.append(entry.place)
            self._ranges.append({source: _edges(found) for source, found in hidden.items()})

    def __bool__(self) -> bool:
        return bool(self._places)

    def kept(self, place: Place, ids: U64) -> U64:
        """The row ids [n] that stay in the segment `place`, in the order they have."""
        reached = bisect_right(self._places, place)
        if not reached:
            return ids
        source = ids >> np.uint64(SOURCE_SHIFT)
        position = (ids & np.uint64(POSITION_MASK)).astype(np.int64)
        hidden = np.zeros(len(ids), np.bool_)
        for number, edges in self._ranges[reached - 1].items():
            hidden |= (source == number) & (np.searchsorted(edges, position, side="right") % 2 == 1)
        return ids[~hidden] if hidden.any() else ids

    def hide(self, place: Place, source: int, first: int, behind: int) -> bool:
        """Are all rows from `first` up to `behind` of a source left out there?"""
        reached = bisect_right(self._places, place)
        edges = self._ranges[reached - 1].get(source) if reached else None
        if edges is None:
            return False
        at = int(np.searchsorted(edges, first, side="right"))
        return at % 2 == 1 and behind <= int(edges[at])


def _edges(ranges: Sequence[tuple[int, int]]) -> npt.NDArray[np.int64]:
    edges: list[int] = []
    for first, behind in sorted(ranges):
        if edges and first <= edges[-1]:
            edges[-1] = max(edges[-1], behind)
        else:
            edges += [first, behind]
    return np.array(edges, np.int64)
