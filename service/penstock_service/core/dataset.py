"""Words for data at rest: shard, read unit, slice, chunk, split, dataset version.

Stored order is: shards sorted by the bytes of their relative path, in each shard its rows as stored. A row's *position*
is its number in that order, counted before any filter; within one dataset version it stands for (shard, row) one to
one, and it is what hashes, cursors and errors are about.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from penstock_proto.v1.splits import TRAIN
from penstock_service.core.chunk import ChunkValue
from penstock_service.core.declaration import count_features

I64 = npt.NDArray[np.int64]

SHARDS_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # relative to the dataset's root, "/" between parts
        ("format", pa.string()),
        ("size", pa.int64()),  # bytes as stored
        ("mtime_ns", pa.int64()),  # checked when opened; no part of the version
        ("rows", pa.int64()),
        ("fingerprint", pa.string()),  # of the content
    ]
)

SLICES_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),  # row of the shards table
        ("unit", pa.int64()),  # read unit within the shard
        ("unit_row", pa.int64()),  # first row of the slice within its read unit
        ("rows", pa.int64()),
        ("offset", pa.int64()),  # text: where the read unit begins, in bytes of the (decompressed) stream; else 0
        ("length", pa.int64()),  # text: its length in bytes; else 0
        ("bytes", pa.int64()),  # about how many bytes the slice has when processed
        ("chunk", pa.int64()),  # ordinal of the chunk that holds it; not decreasing
    ]
)


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows of one read unit: what a reader is asked for. A small read unit is one slice, a big one gives several."""

    path: str  # of the shard, relative to the root
    format: str
    fingerprint: str  # of the shard
    first_row: int  # of the slice, in the shard
    unit: int
    unit_row: int
    rows: int
    offset: int
    length: int
    mtime_ns: int | None = None  # of the shard when it was registered; None: not known


class RowChain(Protocol):
    """Row transforms, one after the other: a function of the rows alone. Picklable."""

    @property
    def fingerprint(self) -> str:
        """Stands for all that decides what it makes."""
        ...

    @property
    def may_drop(self) -> bool:
        """May it leave rows out?"""
        ...

    @property
    def runs_python(self) -> bool:
        """Does it run Python code on rows? Then it belongs into a worker process."""
        ...

    def schema(self, before: pa.Schema) -> pa.Schema: ...

    def apply(self, value: ChunkValue, where: Callable[[int], str]) -> ChunkValue:
        """The value of a chunk after the transforms; `where` names a stored row of it, for errors."""
        ...


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Chunks that are made in one reading: slices per chunk, of one read unit or of many small ones. Picklable."""

    root: str  # absolute folder (or file's folder) on this machine
    schema: bytes  # Arrow IPC schema message that all chunks are read to
    chunks: tuple[int, ...]  # their ordinals in the dataset version
    slices: tuple[tuple[Slice, ...], ...]  # of each chunk
    chain: RowChain | None = None  # what is done to the rows that were read


@dataclass(frozen=True)
class Manifest:
    """The fixed list of shards of a dataset version, and how they are cut. Tables may be memory-mapped."""

    shards: pa.Table  # SHARDS_SCHEMA
    slices: pa.Table  # SLICES_SCHEMA, in stored order

    @cached_property
    def shard_rows(self) -> I64:
        """Rows of each shard, int64 [shards]."""
        return _numpy(self.shards, "rows")

    @cached_property
    def shard_start(self) -> I64:
        """Position of each shard's first row, and the total at the end: int64 [shards + 1]."""
        return _starts(self.shard_rows)

    @cached_property
    def chunk_first_slice(self) -> I64:
        """First slice of each chunk, and the number of slices at the end: int64 [chunks + 1]."""
        chunk = _numpy(self.slices, "chunk")
        if len(chunk) == 0:
            return np.zeros(1, np.int64)
        return np.searchsorted(chunk, np.arange(chunk[-1] + 2)).astype(np.int64)

    @cached_property
    def chunk_start(self) -> I64:
        """Position of each chunk's first row, and the total at the end: int64 [chunks + 1]."""
        return _starts(_numpy(self.slices, "rows"))[self.chunk_first_slice]

    @cached_property
    def chunk_bytes(self) -> I64:
        """About how many bytes each chunk has when processed: int64 [chunks]."""
        return np.diff(_starts(_numpy(self.slices, "bytes"))[self.chunk_first_slice])

    @property
    def rows(self) -> int:
        return int(self.shard_start[-1])

    @property
    def chunks(self) -> int:
        return len(self.chunk_first_slice) - 1

    @property
    def bytes(self) -> int:
        """Bytes of all shards as stored."""
        return int(_numpy(self.shards, "size").sum())

    @cached_property
    def read_together(self) -> tuple[I64, I64]:
        """First chunk, and the one behind the last, of those cut from the same read unit: int64 [chunks] each."""
        shard, unit = _numpy(self.slices, "shard"), _numpy(self.slices, "unit")
        behind = self.chunk_first_slice[1:-1]  # first slices of all chunks but the first
        joined = (shard[behind - 1] == shard[behind]) & (unit[behind - 1] == unit[behind])
        number = np.zeros(self.chunks, np.int64)
        np.cumsum(~joined, out=number[1:])
        return np.searchsorted(number, number), np.searchsorted(number, number, side="right")

    def chunks_read_with(self, chunk: int) -> range:
        """The chunks that one reading gives together with `chunk`: those cut from the same read unit."""
        first, end = self.read_together
        return range(int(first[chunk]), int(end[chunk]))

    def chunks_of(self, path: str) -> list[int]:
        """The chunks that hold rows of a shard; other small shards may lie in them too."""
        shard = int(pc.index(self.shards["path"], path).as_py())
        mine = np.flatnonzero(_numpy(self.slices, "shard") == shard)
        found: list[int] = np.unique(_numpy(self.slices, "chunk")[mine]).tolist()
        return found

    def slices_of(self, chunk: int) -> tuple[Slice, ...]:
        first, end = (int(x) for x in self.chunk_first_slice[chunk : chunk + 2])
        rows = self.slices.slice(first, end - first).to_pylist()
        shards = self.shards.take([r["shard"] for r in rows]).to_pylist()
        at = int(self.chunk_start[chunk])
        found = []
        for row, shard in zip(rows, shards, strict=True):
            found.append(
                Slice(
                    path=shard["path"],
                    format=shard["format"],
                    fingerprint=shard["fingerprint"],
                    first_row=at - int(self.shard_start[row["shard"]]),
                    unit=row["unit"],
                    unit_row=row["unit_row"],
                    rows=row["rows"],
                    offset=row["offset"],
                    length=row["length"],
                    mtime_ns=shard["mtime_ns"],
                )
            )
            at += row["rows"]
        return tuple(found)

    def locate(self, position: int) -> tuple[str, int]:
        """The shard (relative path) and the row in it that `position` stands for."""
        shard = int(np.searchsorted(self.shard_start, position, side="right")) - 1
        return str(self.shards["path"][shard]), position - int(self.shard_start[shard])


@dataclass(frozen=True)
class Split:
    """What a dataset has under one split's name, in numbers."""

    name: str
    rows: int
    bytes: int  # as stored
    shards: int
    schema: pa.Schema
    content: str = ""  # stands for what its shards are called and hold: the version, were it the only split


@dataclass(frozen=True)
class DatasetVersion:
    """One split of a dataset as registered: a name for a fixed list of shards. `splits` sums up all that there are."""

    name: str
    version: str
    root: str
    schema: pa.Schema
    manifest: Manifest
    path: str = ""  # as the user gave it
    description: str = ""
    tags: tuple[str, ...] = ()
    task: str = ""  # one of `penstock_proto.v1.tasks`, or empty: not told
    metric: str = ""
    target: tuple[str, ...] = ()  # columns to be predicted
    registered_at: str = ""
    split: str = TRAIN
    splits: tuple[Split, ...] = ()
    transforms: str = ""  # row transforms that its owner wants of every stream, JSON
    chain: RowChain | None = None  # row transforms that a stream wants
    stored_schema: pa.Schema | None = None  # before them; None: the same

    @property
    def label(self) -> str:
        """What it is called where splits must be told apart: NAME, or NAME:SPLIT for other splits than train."""
        return self.name if self.split == TRAIN else f"{self.name}:{self.split}"

    @property
    def reference(self) -> str:
        """NAME@VERSION, or NAME@VERSION:SPLIT for other splits than train."""
        return f"{self.name}@{self.version}" + ("" if self.split == TRAIN else f":{self.split}")

    @property
    def content(self) -> str:
        """Stands for the content of this split: other splits may come and go without changing it."""
        return next((s.content for s in self.splits if s.name == self.split and s.content), self.version)

    def transformed(self, chain: RowChain) -> Self:
        """The same shards with other rows: chunks of it are kept apart. Raises InvalidRequest if it cannot be."""
        return replace(self, schema=chain.schema(self.schema), chain=chain, stored_schema=self.schema)

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(sorted(set(self.manifest.shards["format"].unique().to_pylist())))

    @property
    def features(self) -> int:
        """How many top-level columns there are, less those of the target."""
        return count_features(self.schema, self.target)


def _numpy(table: pa.Table, column: str) -> I64:
    return np.asarray(table[column].to_numpy(), np.int64)


def _starts(counts: I64) -> I64:
    out = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=out[1:])
    return out
