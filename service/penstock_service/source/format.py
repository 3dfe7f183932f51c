"""What a file format must be able to do; one implementation per family, listed in `formats.py`."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import Slice
from penstock_service.core.errors import InvalidRequest, ServiceError
from penstock_service.source.place import FileState, Place

ProgressCallback = Callable[[int, int, int, int], None]
"""progress(done_bytes, total_bytes, shards_done, shards_total)"""


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """How big a chunk may be when processed; what is bigger is cut by rows, what is smaller is packed."""

    rows: int = 1 << 20
    bytes: int = 16 << 20

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise InvalidRequest(f"chunk rows = {self.rows}: a chunk has at least 1 row")
        if not 1 <= self.bytes <= 1 << 30:  # beyond 2 GiB the offsets of strings overflow; estimates need room
            raise InvalidRequest(f"chunk bytes = {self.bytes}: between 1 and {1 << 30} (1 GiB) are allowed")


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A shard to be scanned or read."""

    place: Place
    path: str
    state: FileState

    @property
    def full(self) -> str:
        return self.place.full(self.path)


class Piece(NamedTuple):
    """One slice as the scan cut it: the columns of SLICES_SCHEMA that a format knows."""

    unit: int
    unit_row: int
    rows: int
    offset: int
    length: int
    bytes: int


@dataclass(slots=True)
class ShardScan:
    """What one scan of a shard found."""

    schema: pa.Schema | None  # None: the file is empty and says nothing about columns
    rows: int
    fingerprint: str
    pieces: list[Piece]
    notes: list[str] = field(default_factory=list)  # widened columns, malformed rows: what the owner should know


class ScanStoppedError(ServiceError):
    """Raised in the other threads of a scan that has failed; never reaches the user."""


@dataclass
class Watch:
    """Progress of a scan that many threads make, and the way to stop them. The callback is called by one at a time."""

    total_bytes: int
    total_shards: int
    callback: ProgressCallback | None = None
    every_seconds: float = 0.1
    done_bytes: int = 0
    done_shards: int = 0
    stopped: bool = False
    _said: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, amount: int, shards: int = 0) -> None:
        with self._lock:
            self.done_bytes += amount
            self.done_shards += shards
            now = time.monotonic()
            last = shards > 0 and self.done_shards == self.total_shards
            if self.callback is not None and (last or now - self._said >= self.every_seconds):
                self._said = now
                self.callback(self.done_bytes, self.total_bytes, self.done_shards, self.total_shards)


@dataclass
class ShardWatch:
    """Progress of one shard of a scan."""

    watch: Watch
    size: int
    seen: int = 0

    def reached(self, position: int) -> None:
        """The shard has been looked at up to `position`."""
        if self.watch.stopped:
            raise ScanStoppedError("the scan was stopped")
        position = min(position, self.size)
        self.watch.add(position - self.seen)
        self.seen = position

    def finish(self) -> None:
        self.watch.add(self.size - self.seen, shards=1)


class Format(Protocol):
    """How one family of files is scanned and read."""

    @property
    def name(self) -> str: ...

    @property
    def semantics(self) -> int:
        """Raised by hand when the same bytes give other cuts, types, rows or errors; pinned by golden tests."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Endings of file names, lower case, e.g. (".jsonl", ".jsonl.gz")."""
        ...

    @property
    def optional_columns(self) -> bool:
        """May a shard lack a column that others have? Its rows are null there."""
        ...

    def scan(self, file: ShardFile, limits: ChunkLimits, watch: ShardWatch) -> ShardScan:
        """Rows, schema, fingerprint and cuts of one shard. Raises DataError for what is corrupt or truncated."""
        ...

    def fingerprint(self, file: ShardFile) -> str:
        """The fingerprint alone, as `scan` gives it."""
        ...

    def read(self, file: ShardFile, slices: Sequence[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
        """One value for each of `slices` (ascending, all of this shard), made to `schema`; each unit is read once."""
        ...
