"""Fetches the rows of a bundle: leases their chunks, gathers off the event loop, gives one Arrow message."""

import asyncio
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.gather import gather, gather_in_place
from penstock_service.batch.layout import Layouts
from penstock_service.batch.pick import Picked
from penstock_service.batch.policy import PLACEHOLDER
from penstock_service.batch.portions import Portions, Rows
from penstock_service.batch.visit import Visit, plan_visit
from penstock_service.batch.written import written
from penstock_service.core.errors import ResourceExhausted
from penstock_service.core.feed import U8, Memory, ordinary
from penstock_service.core.segment import U32, ChunkSource, SegmentSource, SourceChunks

I64 = npt.NDArray[np.int64]

SOURCE_FIELD = pa.field("__source__", pa.int32(), nullable=False)
_AT_ONCE: Final = 1 << 16
ROW_FIELD = pa.field("__row__", pa.int64(), nullable=False)


class Fetch:
    """Rows by chunk and row, as bytes of `schema`; with `origin` also where each row comes from."""

    def __init__(
        self,
        segments: SegmentSource,
        chunks: ChunkSource,
        schema: pa.Schema,
        origin: bool,
        placeholder: pa.RecordBatch | None = None,
    ) -> None:
        """`placeholder`: the one row that stands for bad ones, where it is wanted."""
        self._segments = segments
        self._chunks = chunks
        self._columns = schema
        self._origin = origin
        self._placeholder = placeholder
        self.schema = with_origin(schema) if origin else schema
        self._layouts = Layouts(self.schema)
        self._portions = Portions(chunks, schema)

    async def rows(
        self, picked: Picked, absent: Mapping[int, I64], memory: Memory = ordinary
    ) -> tuple[U8, dict[str, int]]:
        """An Arrow record batch message of the rows in the order given, and how many came of each dataset.

        Args:
            absent: by chunk: stored rows that its batch lacks.
        """
        # Counting is quick for an ordinary bundle; a huge one must not hold up the event loop.
        few = len(picked.chunk) <= _AT_ONCE
        chunks, counts = _distinct(picked.chunk) if few else await asyncio.to_thread(_distinct, picked.chunk)
        parts = self._segments.by_source(chunks)
        rows_of = dict(zip(chunks.tolist(), counts.tolist(), strict=True))
        by_dataset: dict[str, int] = {}
        for part in parts:
            count = sum(rows_of[part.first + c] for c in part.own.tolist())
            by_dataset[part.dataset.name] = by_dataset.get(part.dataset.name, 0) + count
        standing = {}
        if self._placeholder is not None and PLACEHOLDER in rows_of:
            standing[PLACEHOLDER] = self._placeholder
        if not self._portions.wanted:
            try:
                return await self._at_once(parts, standing, picked, absent, memory), by_dataset
            except ResourceExhausted:  # for so many chunks at a time
                pass
        rows = await self._portions.rows(parts, Rows(standing, picked.chunk, picked.row))
        return await asyncio.to_thread(self._gather, rows, parts, absent, memory, picked), by_dataset

    async def _at_once(
        self,
        parts: list[SourceChunks],
        standing: Mapping[int, pa.RecordBatch],
        picked: Picked,
        absent: Mapping[int, I64],
        memory: Memory,
    ) -> U8:
        batches = dict(standing)
        with ExitStack() as leases:
            for part in parts:
                lease = leases.enter_context(await self._chunks.lease(part.dataset, part.own.tolist()))
                batches.update((part.first + c, batch) for c, batch in lease.batches.items())
            rows = Rows(batches, picked.chunk, picked.row)
            return await asyncio.to_thread(self._gather, rows, parts, absent, memory, picked)

    def _gather(
        self, rows: Rows, parts: list[SourceChunks], absent: Mapping[int, I64], memory: Memory, picked: Picked
    ) -> U8:
        visit = plan_visit(picked.chunk, picked.row) if self._origin else None
        origins = self._origins(visit, parts, absent, picked) if visit is not None else ()
        message = gather_in_place(self._layouts, rows.batches, rows.chunk, rows.row, memory, origins)
        if message is not None:
            return message
        if visit is None or rows.chunk is not picked.chunk:
            visit = plan_visit(rows.chunk, rows.row)
        batch = gather(self._columns, rows.batches, visit)
        if origins:
            arrays = [*batch.columns, *map(pa.array, origins)]
            batch = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        return written(batch, memory)

    def _origins(
        self, visit: Visit, parts: list[SourceChunks], absent: Mapping[int, I64], picked: Picked
    ) -> tuple[npt.NDArray[np.int32], I64]:
        """Of a row that stands for a bad one: where that is."""
        source, position = _origins(visit, parts, absent)
        for part in self._segments.by_source(np.unique(picked.bad_chunk)):
            for c in part.own.tolist():
                here = picked.bad_chunk == part.first + c
                source[picked.stand_ins[here]] = part.source
                position[picked.stand_ins[here]] = picked.bad_stored[here] + int(part.dataset.manifest.chunk_start[c])
        return source, position


def _distinct(chunk: U32) -> tuple[I64, I64]:
    """The numbers in `chunk` [n], ascending, and how often each is there."""
    if not len(chunk):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    least = int(chunk.min())
    if int(chunk.max()) - least > _AT_ONCE:
        numbers, counts = np.unique(chunk, return_counts=True)
        return numbers.astype(np.int64), counts
    counts = np.bincount(chunk - np.uint32(least))
    found = np.flatnonzero(counts)
    return found + least, counts[found]


def with_origin(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*schema, SOURCE_FIELD, ROW_FIELD])


def _origins(visit: Visit, parts: list[SourceChunks], absent: Mapping[int, I64]) -> tuple[npt.NDArray[np.int32], I64]:
    """Source and stored position of each row, in the order wanted."""
    of_chunk = {part.first + c: (part, c) for part in parts for c in part.own.tolist()}
    source, position = np.empty(len(visit.rows), np.int32), np.empty(len(visit.rows), np.int64)
    for chunk, first, end in visit.runs:
        if chunk not in of_chunk:
            continue  # the placeholder, which is told by the rows that it stands for
        part, own = of_chunk[chunk]
        source[first:end] = part.source
        stored = stored_rows(visit.rows[first:end], absent.get(chunk))
        position[first:end] = stored + int(part.dataset.manifest.chunk_start[own])
    return source[visit.back], position[visit.back]


def stored_rows(rows: I64, absent: I64 | None) -> I64:
    """Rows of a chunk as stored, from rows of its batch, which lacks the rows `absent` (ascending)."""
    if absent is None or not len(absent):
        return rows
    return rows + np.searchsorted(absent - np.arange(len(absent)), rows, side="right")
