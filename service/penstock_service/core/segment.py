"""A segment: the units that leave the pool in one drain/refill cycle, as an index."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.core.chunk import ChunkInfo, RowError, no_rows
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import DataError, ServiceError

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Progress = Callable[[int, int, str], None]
"""Called with (rows ready, rows wanted, what is being done) while rows are being made."""


Fault = ChunkInfo | ServiceError
"""What is wrong in a chunk: some of its rows are errors, or none of them can be had."""


@dataclass(frozen=True, eq=False)
class BadUnits:
    """Units that are stored rows which did not become rows. Arrays: a million of them cost three."""

    unit: I64  # [bad], ascending
    chunk: I64  # [bad], of the stream
    stored: I64  # [bad], row of the chunk as stored
    faults: Mapping[int, Fault]  # by chunk

    def __len__(self) -> int:
        return len(self.unit)

    def take(self, which: I64) -> "BadUnits":
        """Some of them, by their number here; ascending."""
        chunk = self.chunk[which]
        return BadUnits(
            self.unit[which], chunk, self.stored[which], {c: self.faults[c] for c in np.unique(chunk).tolist()}
        )

    def of_chunks(self, chunks: I64) -> "BadUnits":
        return self.take(np.flatnonzero(np.isin(self.chunk, chunks)))

    def reasons(self, by_source: "BySource") -> list[tuple[str, str]]:
        """Where and why, of each. Makes Python objects: for few of them."""
        starts = {
            part.first + own: (part.dataset.manifest, int(part.dataset.manifest.chunk_start[own]))
            for part in by_source(np.unique(self.chunk))
            for own in part.own.tolist()
        }
        found = []
        for c, row in zip(self.chunk.tolist(), self.stored.tolist(), strict=True):
            fault = self.faults[c]
            error = fault.error_of(row) if isinstance(fault, ChunkInfo) else RowError(row, "", str(fault))
            manifest, start = starts[c]
            where = error.where if error else ""
            if not where:
                path, at = manifest.locate(start + row)
                where = f"{path}, row {at}"
            found.append((where, error.reason if error else ""))
        return found


def no_units() -> BadUnits:
    none = np.empty(0, np.int64)
    return BadUnits(none, none, none, {})


@dataclass(frozen=True, eq=False)
class Segment:
    """Units in their order: 8 bytes each. Chunks are numbered over all sources of the stream."""

    number: int
    chunk: U32  # [units]
    row: U32  # [units], of the chunk's batch; meaningless for bad units
    digest: int  # of the row ids, bad ones included, in order
    bad: BadUnits = field(default_factory=no_units)
    absent: Mapping[int, I64] = field(default_factory=dict)  # by chunk: stored rows that its batch lacks, ascending
    # What a policy on errors made of it:
    left_out: I64 = field(default_factory=no_rows)  # bad units that are not among these, as numbered before; ascending
    stand_ins: BadUnits = field(default_factory=no_units)  # units for which another row stands
    kin: "dict[str, Segment]" = field(default_factory=dict, repr=False)  # what policies made of it, for all sessions

    @property
    def lost(self) -> list[int]:
        """Chunks that cannot be had for reasons that are not in their bytes, ascending."""
        return sorted(c for c, f in self.bad.faults.items() if not isinstance(f, (ChunkInfo, DataError)))

    @property
    def units(self) -> int:
        return len(self.chunk)

    @property
    def nbytes(self) -> int:
        """Bytes, with those of its kin: a policy that changes nothing made it its own."""
        return sum(s.own_bytes for s in {id(s): s for s in (self, *self.kin.values())}.values())

    @property
    def own_bytes(self) -> int:
        return int(self.chunk.nbytes + self.row.nbytes + 3 * self.bad.unit.nbytes + self.left_out.nbytes)


class Lease(Protocol):
    """Chunks that stay where they are while the lease is held."""

    @property
    def batches(self) -> dict[int, pa.RecordBatch]: ...

    def release(self) -> None: ...


class Hold(Protocol):
    """Released once or twice."""

    def release(self) -> None: ...


class ChunkSource(Protocol):
    """Where mixing gets its chunks from."""

    async def infos(self, dataset: DatasetVersion, chunks: Sequence[int]) -> list[ChunkInfo]: ...

    async def lease(self, dataset: DatasetVersion, chunks: Sequence[int]) -> AbstractContextManager[Lease]: ...

    def prefetch(self, dataset: DatasetVersion, chunks: Sequence[int]) -> None: ...

    def hold(self, dataset: DatasetVersion) -> Hold:
        """While held, no chunk of the dataset gives way to another's."""
        ...


class SourceChunks(NamedTuple):
    """Chunks of one source. The stream numbers the chunks of all sources through."""

    source: int
    dataset: DatasetVersion
    first: int  # number in the stream of the source's chunk 0
    own: I64  # ordinals in the dataset


BySource = Callable[[I64], list[SourceChunks]]
"""Ascending chunks of the stream, sorted out by source."""


class Cut(NamedTuple):
    """Whole chunks of a source that are left out of one segment from a unit on: they were lost while it was read."""

    source: int
    ranges: Sequence[Sequence[int]]  # of stored rows: first, behind the last
    unit: int


class SegmentSource(Protocol):
    """The one global order of a stream, as segments whose chunks are made."""

    def segments(self, epoch: int) -> int:
        """Segments of an epoch; some may be empty."""
        ...

    def rows(self, epoch: int) -> int:
        """Rows of an epoch, before any filter."""
        ...

    def unread(self, epoch: int) -> int:
        """Rows of the sources that no segment of an epoch holds."""
        ...

    async def segment(self, epoch: int, number: int, progress: Progress | None = None) -> Segment: ...

    async def units(self, epoch: int, number: int) -> int | None:
        """How many units a segment has, without making its chunks; None where only they can tell (filters)."""
        ...

    def ready(self, epoch: int, number: int) -> bool: ...

    def look_ahead(self, epoch: int, number: int) -> None: ...

    def forget(self, epoch: int, number: int) -> None:
        """Rows of it cannot be had, though it was whole when made: whoever asks for it next gets it made anew."""
        ...

    def by_source(self, chunks: I64) -> list[SourceChunks]:
        """Ascending `chunks` of the stream, sorted out by source."""
        ...
