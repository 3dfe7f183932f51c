"""Worlds whose filters leave rows out, which only the chunks can tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from penstock_service.core.chunk import ChunkInfo, ChunkValue, RowError, pack_rows
from penstock_service.core.dataset import DatasetVersion
from tests.laws.test_feeds import InMemory, InMemoryLease, World, worlds


@dataclass(frozen=True)
class Leaving:
    """A chain that may leave rows out."""

    fingerprint: str = "leaving"
    may_drop: bool = True
    runs_python: bool = False

    def schema(self, before: pa.Schema) -> pa.Schema:
        return before

    def apply(self, value: ChunkValue, where: Callable[[int], str]) -> ChunkValue:
        raise AssertionError("its chunks are there already")


class Filtered(InMemory):
    """Rows that `gone` names are left out, rows that `bad` names are errors."""

    def __init__(self, gone: frozenset[int] = frozenset(), bad: frozenset[int] = frozenset()) -> None:
        super().__init__(bad)
        self.gone = gone
        self.asked: list[int] = []  # chunks that were made

    async def infos(self, dataset: DatasetVersion, chunks: Sequence[int]) -> list[ChunkInfo]:
        found = []
        self.asked.extend(chunks)
        for chunk in chunks:
            rows = [self._id(dataset, p) for p in self._positions(dataset, chunk)]
            errors = tuple(
                RowError(i, f"row {row}", "bad") for i, row in enumerate(rows) if row in self.bad - self.gone
            )
            dropped = np.array([i for i, row in enumerate(rows) if row in self.gone], np.int64)
            found.append(ChunkInfo(len(rows), errors, 8 * len(rows), "content", pack_rows(dropped, len(rows))))
        return found

    async def lease(self, dataset: DatasetVersion, chunks: Sequence[int]) -> InMemoryLease:
        absent = self.gone | self.bad
        found = {}
        for chunk in chunks:
            ids = [self._id(dataset, p) for p in self._positions(dataset, chunk)]
            found[chunk] = pa.record_batch({"id": pa.array([i for i in ids if i not in absent], pa.int64())})
        return InMemoryLease(found)


def everything(world: World) -> list[int]:
    """Ids of all stored rows."""
    return [
        int(source.name) * 10_000 + position
        for source in world.stream.sources
        for position in range(source.manifest.rows)
    ]


def rows_left(world: World) -> bool:
    """Do the filters leave anything?"""
    assert isinstance(world.chunks, Filtered)
    return not set(everything(world)) <= world.chunks.gone


@st.composite
def filtered_worlds(draw: st.DrawFn, bad: bool = False) -> World:
    """With filters or without. `bad`: some rows may be errors."""
    world = draw(worlds())
    rows = everything(world)
    gone = frozenset(draw(st.lists(st.sampled_from(rows), max_size=len(rows) // 2)) if draw(st.booleans()) else ())
    errors = frozenset(draw(st.lists(st.sampled_from(rows), max_size=5)) if bad else ())
    stream = world.stream
    if gone:
        stream = replace(stream, sources=tuple(replace(source, chain=Leaving()) for source in stream.sources))
    return World(stream, Filtered(gone, errors))
