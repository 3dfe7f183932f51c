"""What leads from one dataset version to another."""

from dataclasses import dataclass

from penstock_service.core.dataset import DatasetVersion


@dataclass(frozen=True, slots=True)
class ShardChange:
    """A shard in both versions; rows and bytes are 0 where it is not there."""

    path: str
    rows_before: int
    rows: int
    bytes_before: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Shards by path: those that only `b` has, those that only `a` has, those that hold something else."""

    a: str  # NAME@VERSION
    b: str
    added: tuple[ShardChange, ...]
    gone: tuple[ShardChange, ...]
    changed: tuple[ShardChange, ...]
    same: int  # shards that hold the same in both


def difference(a: DatasetVersion, b: DatasetVersion) -> Difference:
    before, now = _shards(a), _shards(b)
    both = [path for path in now if path in before]
    changed = [path for path in both if before[path][0] != now[path][0]]
    return Difference(
        a=f"{a.name}@{a.version}",
        b=f"{b.name}@{b.version}",
        added=tuple(ShardChange(path, 0, rows, 0, size) for path, (_, rows, size) in now.items() if path not in before),
        gone=tuple(ShardChange(path, rows, 0, size, 0) for path, (_, rows, size) in before.items() if path not in now),
        changed=tuple(
            ShardChange(path, before[path][1], now[path][1], before[path][2], now[path][2]) for path in changed
        ),
        same=len(both) - len(changed),
    )


def _shards(dataset: DatasetVersion) -> dict[str, tuple[str, int, int]]:
    """Fingerprint, rows and bytes of each shard, in stored order."""
    shards = dataset.manifest.shards
    columns = (shards[name].to_pylist() for name in ("path", "fingerprint", "rows", "size"))
    return {path: (fingerprint, rows, size) for path, fingerprint, rows, size in zip(*columns, strict=True)}
