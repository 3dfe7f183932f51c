"""Datasets as the server has them, and what its registry answers."""

from dataclasses import dataclass, replace
from typing import Any, Self

import pyarrow as pa

from penstock.errors import DatasetNotFound
from penstock_proto.v1 import control_pb2 as pb
from penstock_proto.v1.splits import TRAIN, find_split


@dataclass(frozen=True)
class SplitInfo:
    """One split of a dataset, in numbers: rows and bytes as stored, over `shards` files."""

    name: str
    rows: int
    bytes: int
    shards: int
    schema: pa.Schema


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as the server has it. `rows` and `bytes` are those stored, over `shards` files.

    They and the schema are those of the split `train`, or of the first one; `splits` has all.
    """

    name: str
    version: str
    path: str
    rows: int
    bytes: int
    shards: int
    schema: pa.Schema
    description: str
    tags: tuple[str, ...]
    formats: tuple[str, ...]
    registered_at: str  # ISO 8601, UTC
    task: str = ""  # a task type, or empty: not told
    metric: str = ""
    target: tuple[str, ...] = ()  # columns to be predicted
    features: int = 0  # number of top-level columns less those of the target
    splits: tuple[SplitInfo, ...] = ()
    split: str = TRAIN  # that the numbers and the schema are about

    @classmethod
    def of(cls, message: pb.Dataset) -> Self:
        return cls(
            name=message.name,
            version=message.version,
            path=message.path,
            rows=message.rows,
            bytes=message.size,
            shards=message.shards,
            schema=pa.ipc.read_schema(pa.py_buffer(message.schema)),
            description=message.description,
            tags=tuple(message.tags),
            formats=tuple(message.formats),
            registered_at=message.registered_at,
            task=message.task,
            metric=message.metric,
            target=tuple(message.target),
            features=message.features,
            split=next((s.name for s in message.splits), TRAIN),
            splits=tuple(
                SplitInfo(s.name, s.rows, s.size, s.shards, pa.ipc.read_schema(pa.py_buffer(s.schema)))
                for s in message.splits
            ),
        )

    @property
    def reference(self) -> str:
        """NAME@VERSION, or NAME@VERSION:SPLIT for other splits than train."""
        return f"{self.name}@{self.version}" + ("" if self.split == TRAIN else f":{self.split}")

    def of_split(self, wanted: str) -> Self:
        """The same with the numbers and the schema of one split; val, valid, validation and dev find each other.

        Raises:
            DatasetNotFound: there is none, or several could be meant; with those that there are.
        """
        name = find_split(wanted, [split.name for split in self.splits])
        found = next((split for split in self.splits if split.name == name), None)
        if found is None:
            have = ", ".join(f"{split.name} ({split.rows} rows)" for split in self.splits)
            raise DatasetNotFound(f"dataset {self.name}@{self.version} has no split {wanted!r}; it has {have}")
        return replace(
            self,
            split=found.name,
            rows=found.rows,
            bytes=found.bytes,
            shards=found.shards,
            schema=found.schema,
            features=len([column for column in found.schema.names if column not in self.target]),
        )


@dataclass(frozen=True)
class ShardChange:
    """A shard in both of two versions; rows and bytes are 0 where it is not there."""

    path: str
    rows_before: int
    rows: int
    bytes_before: int
    bytes: int

    @classmethod
    def of(cls, message: pb.ShardChange) -> Self:
        return cls(message.path, message.rows_before, message.rows, message.size_before, message.size)


@dataclass(frozen=True)
class DatasetDiff:
    """What leads from `a` to `b`. The tuples name at most 10,000 shards each; the counts count all."""

    a: str  # NAME@VERSION
    b: str
    added: tuple[ShardChange, ...]
    gone: tuple[ShardChange, ...]
    changed: tuple[ShardChange, ...]
    counts: dict[str, int]  # of "added", "gone", "changed" and "same"

    @classmethod
    def of(cls, message: pb.DatasetDiff) -> Self:
        def listed(changes: Any) -> tuple[ShardChange, ...]:
            return tuple(ShardChange.of(change) for change in changes)

        counts = {kind: getattr(message, f"{kind}_count") for kind in ("added", "gone", "changed", "same")}
        return cls(message.a, message.b, listed(message.added), listed(message.gone), listed(message.changed), counts)


@dataclass(frozen=True)
class DiscoveredChild:
    """A file, folder or spec in the server's folder of datasets.

    `state` is "new", "new version", "unchanged", "waiting" (it is being written: a later look takes it), "refused" or
    "gone" (registered, but its data is not there any more); `reason` says why.
    """

    name: str
    path: str
    state: str
    version: str
    reason: str

    @classmethod
    def of(cls, message: pb.Child) -> Self:
        return cls(message.name, message.path, message.state, message.version, message.reason)
