"""From row ids to a segment's index: (chunk, row) of every unit, with the rows that are errors marked.

Filters and errors are masks applied here: they move no other row.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from penstock_service.core.chunk import ChunkInfo, RowError
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import DataError
from penstock_service.core.hashing import U64, digest_ids
from penstock_service.core.segment import BadUnit, Segment, SourceChunks
from penstock_service.mix.pool import SOURCE_SHIFT

I64 = npt.NDArray[np.int64]

Infos = Mapping[int, ChunkInfo | DataError]
"""By chunk of the stream: what is known of it, or why none of its rows can be had."""


class ChunkNumbers:
    """Numbers the chunks of all sources of a stream through."""

    def __init__(self, sources: Sequence[DatasetVersion]) -> None:
        self.sources = tuple(sources)
        self._first = np.zeros(len(sources) + 1, np.int64)
        np.cumsum([s.manifest.chunks for s in sources], out=self._first[1:])
        starts = [s.manifest.chunk_start[:-1].astype(np.uint64) for s in sources]
        of_source = [at | np.uint64(i << SOURCE_SHIFT) for i, at in enumerate(starts)]
        self._first_id = np.concatenate(of_source) if of_source else np.empty(0, np.uint64)  # of each chunk, ascending

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
        chunk = np.searchsorted(self._first_id, ids, side="right") - 1  # over all sources in one go
        return chunk, (ids - self._first_id[chunk]).view(np.int64)


def build(number: int, ids: U64, chunk: I64, stored_row: I64, infos: Infos) -> Segment:
    """The index of segment `number`: `ids`, their chunks and stored rows, all [units], in order."""
    kept = _kept(chunk, stored_row, infos)
    if kept is not None:
        ids, chunk, stored_row = ids[kept], chunk[kept], stored_row[kept]
    row = stored_row.astype(np.uint32)
    bad: list[BadUnit] = []
    absent: dict[int, I64] = {}
    for c, info in infos.items():
        if isinstance(info, DataError):
            units = np.flatnonzero(chunk == c)
            lost = [(int(u), int(stored_row[u])) for u in units[:1]]
            bad.extend(BadUnit(unit, f"row {at} of the chunk", str(info), at) for unit, at in lost)
        elif info.errors or info.dropped:
            units = np.flatnonzero(chunk == c)
            stored = stored_row[units]
            absent[c] = info.absent_rows()
            row[units] = (stored - np.searchsorted(absent[c], stored, side="left")).astype(np.uint32)
            bad.extend(_errors(units, stored, info))
    return Segment(number, chunk.astype(np.uint32), row, digest_ids(ids), tuple(sorted(bad)), absent)


def _kept(chunk: I64, stored_row: I64, infos: Infos) -> npt.NDArray[np.bool_] | None:
    """Which units no filter left out; None: all of them."""
    kept: npt.NDArray[np.bool_] | None = None
    for c, info in infos.items():
        if isinstance(info, ChunkInfo) and info.dropped:
            if kept is None:
                kept = np.ones(len(chunk), np.bool_)
            units = np.flatnonzero(chunk == c)
            gone = np.unpackbits(np.frombuffer(info.dropped, np.uint8), count=info.stored_rows).astype(np.bool_)
            kept[units[gone[stored_row[units]]]] = False
    return kept


def _errors(units: I64, stored: I64, info: ChunkInfo) -> list[BadUnit]:
    """The units that are errors."""
    by_row: dict[int, RowError] = {e.row: e for e in info.errors}
    hit = np.flatnonzero(np.isin(stored, np.fromiter(by_row, np.int64, len(by_row))))
    found = [(int(units[i]), by_row[int(stored[i])]) for i in hit]
    return [BadUnit(unit, error.where, error.reason, error.row) for unit, error in found]
