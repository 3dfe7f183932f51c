"""Readers for tests, and datasets whose rows they make out of nothing. Worker processes import them by name.

They leave marks in the dataset's root, and find there what they are to do wrong.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from penstock_service.core.chunk import ChunkValue, RowError
from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, DatasetVersion, Manifest, ReadTask, Slice
from penstock_service.core.errors import DataError, SourceGone, SourceUnreadable

SCHEMA = pa.schema([("position", pa.int64()), ("text", pa.string())], metadata={"of": "the user"})
ROWS = 10


def dataset(
    root: Path, units: Sequence[int], *, name: str = "toy", version: str = "1", size: int = 1000, files: str = "f"
) -> DatasetVersion:
    """One shard for each read unit; `units` says of how many chunks of ROWS rows each consists."""
    root.mkdir(parents=True, exist_ok=True)
    shards = [
        {"path": f"s{n}", "format": "toy", "size": 1, "mtime_ns": 0, "rows": ROWS * k, "fingerprint": f"{files}{n}"}
        for n, k in enumerate(units)
    ]
    cuts = [(shard, at) for shard, k in enumerate(units) for at in range(k)]
    slices = [
        {
            "shard": s,
            "unit": 0,
            "unit_row": at * ROWS,
            "rows": ROWS,
            "offset": 0,
            "length": 0,
            "bytes": size,
            "chunk": n,
        }
        for n, (s, at) in enumerate(cuts)
    ]
    manifest = Manifest(
        pa.Table.from_pylist(shards, schema=SHARDS_SCHEMA), pa.Table.from_pylist(slices, schema=SLICES_SCHEMA)
    )
    return DatasetVersion(name, version, str(root), SCHEMA, manifest)


def value(slices: tuple[Slice, ...], salt: int = 0) -> ChunkValue:
    """Row 3 of each chunk of a shard whose number ends in 7 is an error."""
    positions = [part.first_row + row + salt for part in slices for row in range(part.rows)]
    bad = [3] if slices[0].path.endswith("7") else []
    errors = tuple(RowError(row, f"{slices[0].path}, line {row}", "no good") for row in bad)
    good = [p for n, p in enumerate(positions) if n not in bad]
    return ChunkValue(
        len(positions),
        pa.record_batch([pa.array(good, pa.int64()), pa.array([f"{slices[0].path}:{p}" for p in good])], schema=SCHEMA),
        errors,
    )


def mark(root: str, what: str) -> int:
    """How often this was done before."""
    with (Path(root) / f"{what}.log").open("a") as log:
        before = log.tell()
        log.write("x")
    return before


def marks(root: str | Path, what: str) -> int:
    log = Path(root) / f"{what}.log"
    return log.stat().st_size if log.exists() else 0


def order(root: str | Path, what: str, times: int) -> None:
    """Let `make_badly` fail this often. Workers may read it meanwhile: it is there whole, or not yet."""
    new = Path(root) / f"{what}.new"
    new.write_text(str(times))
    new.replace(Path(root) / f"{what}.times")


def wanted(root: str, what: str) -> int:
    """How often a test asks for something to go wrong."""
    said = Path(root) / what
    return int(said.read_text()) if said.exists() else 0


def make(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    mark(task.root, "task")
    for chunk, slices in zip(task.chunks, task.slices, strict=True):
        yield chunk, value(slices)
        mark(task.root, f"made-{chunk}")


def make_slowly(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    for made in make(task):
        time.sleep(0.05)
        yield made


def make_when_allowed(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    """Each chunk waits until its name is a file in the root."""
    for made in make(task):
        while not (Path(task.root) / f"go-{made[0]}").exists():
            time.sleep(0.005)
        yield made


def make_hanging_once(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    """A chunk hangs, as often as a file in the root says, until its name is a file there."""
    for made in make(task):
        if mark(task.root, f"hang-{made[0]}") < wanted(task.root, f"hang-{made[0]}.times"):
            while not (Path(task.root) / f"go-{made[0]}").exists():
                time.sleep(0.005)
        yield made


def make_failing_when_allowed(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    """Each task fails, the n-th that was begun as soon as n is a file in the root."""
    number = mark(task.root, "begun")
    while not (Path(task.root) / f"go-{number}").exists():
        time.sleep(0.005)
    raise DataError(f"chunk {task.chunks[0]} is no good")


def make_with_clock(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    for chunk, slices in zip(task.chunks, task.slices, strict=True):
        yield chunk, value(slices, salt=mark(task.root, f"clock-{chunk}"))


def make_badly(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    """Goes wrong at a chunk in the way, and as often, as a file in the root says."""
    for chunk, slices in zip(task.chunks, task.slices, strict=True):
        for what in ("kill", "data", "source", "gone", "bug", "exit"):
            if mark(task.root, f"{what}-{chunk}") < wanted(task.root, f"{what}-{chunk}.times"):
                _go_wrong(what, chunk)
        yield chunk, value(slices)


def _go_wrong(what: str, chunk: int) -> None:
    match what:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "data":
            raise DataError(f"chunk {chunk} is no good")
        case "source":
            raise SourceUnreadable(f"chunk {chunk} cannot be read now")
        case "gone":
            raise SourceGone(f"the file of chunk {chunk} is gone")
        case "exit":
            sys.exit(3)
        case _:
            raise ZeroDivisionError(f"chunk {chunk} divides by zero")


def make_at_random(task: ReadTask) -> Iterator[tuple[int, ChunkValue]]:
    """User code that draws random numbers and goes by hashes: the same for the same chunk, whoever makes it."""
    for chunk, slices in zip(task.chunks, task.slices, strict=True):
        rows = sum(part.rows for part in slices)
        words = sorted({f"{slices[0].path}-{n}" for n in range(rows)}, key=hash)
        drawn = np.random.randint(0, 1 << 30, rows) + random.randrange(1 << 30)
        yield chunk, ChunkValue(rows, pa.record_batch([pa.array(drawn, pa.int64()), pa.array(words)], schema=SCHEMA))
