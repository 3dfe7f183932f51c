"""From row ids to a segment's index: (chunk, row) of every unit, with the rows that are errors marked.

Filters and errors are masks applied here: they move no other row.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ServiceError
from penstock_service.core.hashing import U64, digest_ids
from penstock_service.core.segment import BadUnits, Fault, Segment, SourceChunks
from penstock_service.mix.chunk_starts import ChunkStarts

I64 = npt.NDArray[np.int64]

Infos = Mapping[int, Fault]
"""By chunk of the stream: what is known of it, or why none of its rows can be had."""


class ChunkNumbers:
    """Numbers the chunks of all sources of a stream through."""

    def __init__(self, sources: Sequence[DatasetVersion]) -> None:
        self.sources = tuple(sources)
        self._first = np.zeros(len(sources) + 1, np.int64)
        np.cumsum([s.manifest.chunks for s in sources], out=self._first[1:])
        self._starts = ChunkStarts([s.manifest.chunk_start for s in sources])

    def by_source(self, chunks: I64) -> list[SourceChunks]:
        """Ascending `chunks` of the stream, sorted out by source."""
        edges = np.searchsorted(chunks, self._first)
        return [
            SourceChunks(i, source, int(self._first[i]), chunks[edges[i] : edges[i + 1]] - self._first[i])
            for i, source in enumerate(self.sources)
            if edges[i + 1] > edges[i]
        ]

    def locate(self, ids: U64) -> tuple[I64, I64]:
        """Chunk of the stream and stored row in it, for each row id [n]."""
        return self._starts.locate(ids)


def has_gaps(infos: Infos) -> bool:
    """Is any row missing?"""
    return any(map(_has_gaps, infos.values()))


def _has_gaps(info: Fault) -> bool:
    return isinstance(info, ServiceError) or bool(info.errors or info.dropped)


def build(number: int, ids: U64, chunk: I64, stored_row: I64, infos: Infos) -> Segment:
    """The index of segment `number`: `ids`, their chunks and stored rows, all [units], in order."""
    special = {c: info for c, info in infos.items() if _has_gaps(info)}
    if not special:
        return Segment(number, chunk.astype(np.uint32), stored_row.astype(np.uint32), digest_ids(ids))
    kept = _kept(chunk, stored_row, special)
    if kept is not None:
        ids, chunk, stored_row = ids[kept], chunk[kept], stored_row[kept]
    row = stored_row.astype(np.uint32)
    bad: list[I64] = []
    faults: dict[int, Fault] = {}
    absent: dict[int, I64] = {}
    for c, units in _by_chunk(chunk, special):
        info = special[c]
        if isinstance(info, ServiceError):
            hit = units  # not one of its rows can be had
        else:
            stored = stored_row[units]
            absent[c] = info.absent_rows()
            row[units] = (stored - np.searchsorted(absent[c], stored, side="left")).astype(np.uint32)
            hit = units[np.isin(stored, info.error_rows())]
        if len(hit):
            bad.append(hit)
            faults[c] = info
    units = np.sort(np.concatenate(bad)) if bad else np.empty(0, np.int64)
    found = BadUnits(units, chunk[units], stored_row[units], faults)
    return Segment(number, chunk.astype(np.uint32), row, digest_ids(ids), found, absent)


def _by_chunk(chunk: I64, wanted: Infos) -> Iterator[tuple[int, I64]]:
    """Units of each chunk that is `wanted`, ascending; one sort, however many chunks they are."""
    order = np.argsort(chunk, kind="stable")
    chunks = np.fromiter(wanted, np.int64, len(wanted))
    first, end = (np.searchsorted(chunk, chunks, side=side, sorter=order) for side in ("left", "right"))
    for c, a, b in zip(chunks.tolist(), first.tolist(), end.tolist(), strict=True):
        yield c, order[a:b]


def _kept(chunk: I64, stored_row: I64, infos: Infos) -> npt.NDArray[np.bool_] | None:
    """Which units no filter left out; None: all of them."""
    dropping = {c: info for c, info in infos.items() if isinstance(info, ChunkInfo) and info.dropped}
    if not dropping:
        return None
    kept = np.ones(len(chunk), np.bool_)
    for c, units in _by_chunk(chunk, dropping):
        info = dropping[c]
        gone = np.unpackbits(np.frombuffer(info.dropped, np.uint8), count=info.stored_rows).astype(np.bool_)
        kept[units[gone[stored_row[units]]]] = False
    return kept
