"""What a worker does with one task, in a thread or in a process: read, seal, ask where to, write, say so."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import pyarrow as pa

from penstock_service.chunks.file import Place, Sealed, seal, write
from penstock_service.core.chunk import ChunkInfo, ChunkValue, cut
from penstock_service.core.dataset import ReadTask
from penstock_service.core.errors import Internal, SourceChanged

Make = Callable[[ReadTask], Iterator[tuple[int, ChunkValue]]]


class Verdict(Enum):
    SKIP = "nobody wants this chunk, and there is no room for it"
    STOP = "nobody wants this chunk or any that follows"


Ask = Callable[[int, int, str], Place | Verdict]  # chunk, size of its file, why the last place did not do
Done = Callable[[int, Place, ChunkInfo], None]


@dataclass(frozen=True, slots=True)
class Work:
    """A task and the keys of its chunks. Picklable."""

    task: ReadTask
    keys: tuple[str, ...]
    dataset: str  # for messages

    def describe(self, chunk: int) -> str:
        at = self.task.chunks.index(chunk)
        paths = list(dict.fromkeys(part.path for part in self.task.slices[at]))
        more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
        return f"dataset {self.dataset}, shard {', '.join(paths[:3])}{more}, chunk {chunk}"

    def without(self, chunks: set[int]) -> "Work":
        keep = [at for at, chunk in enumerate(self.task.chunks) if chunk not in chunks]
        task = replace(
            self.task,
            chunks=tuple(self.task.chunks[at] for at in keep),
            slices=tuple(self.task.slices[at] for at in keep),
        )
        return Work(task, tuple(self.keys[at] for at in keep), self.dataset)


def make_chunks(make: Make, work: Work, ask: Ask, done: Done, before: Callable[[str], None] | None = None) -> None:
    """Make the chunks of `work`; `done` is called for each as soon as it lies in its place, unless it was skipped.

    `before` is called with the key of the chunk that comes next, before any user code that makes it.
    """
    left = dict(zip(work.task.chunks, work.keys, strict=True))
    schema = pa.ipc.read_schema(pa.py_buffer(work.task.schema))
    if work.task.chain is not None:
        schema = work.task.chain.schema(schema)
    values = make(work.task)
    with _closed(values):
        while True:
            if before and left:
                before(next(iter(left.values())))
            began = time.perf_counter()
            made = next(values, None)
            if made is None:
                break
            chunk, value = made
            if chunk not in left:
                raise Internal(f"reading gave chunk {chunk}, which is not among {tuple(left)} of the task")
            _check(work, chunk, value, schema)
            sealed = seal(left.pop(chunk), value, time.perf_counter() - began)
            del made, value  # the next chunk is made in the memory of this one
            if not _hand_over(chunk, sealed, ask, done):
                return
            del sealed
    if left:
        raise Internal(f"reading ended without {work.describe(next(iter(left)))}")


def seed_from(key: str) -> None:
    """User code that draws random numbers draws the same for the same chunk. For workers that own their process."""
    random.seed(key)
    np.random.seed(int(key[:8], 16))


def _hand_over(chunk: int, sealed: Sealed, ask: Ask, done: Done) -> bool:
    """False: stop here. Ends, because `ask` raises once there is no place left to try."""
    trouble = ""
    while True:
        place = ask(chunk, sealed.size, trouble)
        if isinstance(place, Verdict):
            return place is not Verdict.STOP
        try:
            write(sealed, place)
        except OSError as error:
            trouble = f"{error.strerror or error} ({place.final})"
        else:
            done(chunk, place, sealed.info)
            return True


def _check(work: Work, chunk: int, value: ChunkValue, schema: pa.Schema) -> None:
    expected = sum(part.rows for part in work.task.slices[work.task.chunks.index(chunk)])
    if value.stored_rows != expected:
        raise SourceChanged(
            f"{work.describe(chunk)} has {value.stored_rows} stored rows where the dataset version has {expected}: the"
            " files are not those that were registered; register the dataset again to use them as they are now"
        )
    if not value.rows.schema.equals(schema):
        raise Internal(f"{work.describe(chunk)} was made to another schema:\n{value.rows.schema}\ninstead of\n{schema}")


def _closed(values: Iterator[Any]) -> AbstractContextManager[Any]:
    """Generators hold files open: they are closed when the worker stops early."""
    return closing(values) if hasattr(values, "close") else nullcontext()


def unforeseen(raised: BaseException) -> Internal:
    """What users see of an error that nobody foresaw; the log has the rest."""
    text = cut(f"making a chunk failed with {type(raised).__name__}: {raised}")
    return Internal(f"{text}; the server's log has the traceback")
