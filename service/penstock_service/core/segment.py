"""A segment: the units that leave the pool in one drain/refill cycle, as an index."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import DatasetVersion

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Progress = Callable[[int, int, str], None]
"""Called with (rows ready, rows wanted, what is being done) while rows are being made."""


class BadUnit(NamedTuple):
    """A unit of a segment that is a stored row which did not become a row."""

    unit: int
    where: str
    reason: str
    stored: int  # row in the chunk, as stored


@dataclass(frozen=True)
class Segment:
    """Units in their order: 8 bytes each. Chunks are numbered over all sources of the stream."""

    number: int
    chunk: U32  # [units]
    row: U32  # [units], of the chunk's batch; meaningless for bad units
    digest: int  # of the row ids, bad ones included, in order
    bad: tuple[BadUnit, ...] = ()  # ascending by unit
    absent: Mapping[int, I64] = field(default_factory=dict)  # by chunk: stored rows that its batch lacks, ascending

    @property
    def units(self) -> int:
        return len(self.chunk)

    @property
    def nbytes(self) -> int:
        return int(self.chunk.nbytes + self.row.nbytes)


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

    def by_source(self, chunks: I64) -> list[SourceChunks]:
        """Ascending `chunks` of the stream, sorted out by source."""
        ...
