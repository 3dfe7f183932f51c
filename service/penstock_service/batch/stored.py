"""Rows of one dataset version by position, page by page: what indexing is made of. No pool, no session, no order."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.gather import gather
from penstock_service.batch.visit import plan_visit
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import DataError, InvalidRequest
from penstock_service.core.segment import ChunkSource

I64 = npt.NDArray[np.int64]

PAGE_BYTES: Final = 4 << 20
"""About what a page holds, judged by the mean row of the dataset: a row larger than that is a page of its own."""

_PAGE_ROWS: Final = 65_536
_HINTED: Final = 64  # chunks ahead of the page that are asked for, in the order they will be needed


async def pages(
    chunks: ChunkSource, dataset: DatasetVersion, schema: pa.Schema, positions: I64
) -> AsyncIterator[pa.RecordBatch]:
    """The rows at `positions` [n], in that order, with the columns of `schema`. Only chunks that hold them are made.

    Raises:
        InvalidRequest: a position that is none of the dataset's.
        DataError: a row that could not be read, after the page of those before it.
    """
    _check(dataset, positions)
    starts = dataset.manifest.chunk_start
    chunk = np.searchsorted(starts, positions, side="right") - 1
    rows = positions - starts[chunk]
    size = _page_rows(dataset)
    for first in range(0, len(positions), size):
        page = slice(first, first + size)
        coming = _in_order(chunk[first:])[:_HINTED]
        if len(coming) > 1:
            chunks.prefetch(dataset, coming)
        batch, error = await _page(chunks, dataset, schema, chunk[page], rows[page])
        if batch.num_rows:
            yield batch
        if error is not None:
            raise error


def _check(dataset: DatasetVersion, positions: I64) -> None:
    wrong = positions[(positions < 0) | (positions >= dataset.manifest.rows)]
    if len(wrong):
        raise InvalidRequest(
            f"no row {wrong[0]} in {dataset.name}@{dataset.version}: it has {dataset.manifest.rows} rows, from 0"
        )


def _page_rows(dataset: DatasetVersion) -> int:
    mean = int(np.sum(dataset.manifest.chunk_bytes)) / max(1, dataset.manifest.rows)
    return max(1, min(_PAGE_ROWS, int(PAGE_BYTES / max(1.0, mean))))


def _in_order(chunk: I64) -> list[int]:
    """Each chunk once, in the order of first need."""
    found, first = np.unique(chunk, return_index=True)
    ordered: list[int] = found[np.argsort(first)].tolist()
    return ordered


async def _page(
    chunks: ChunkSource, dataset: DatasetVersion, schema: pa.Schema, chunk: I64, rows: I64
) -> tuple[pa.RecordBatch, DataError | None]:
    """The rows before the first that is an error, and the error. One chunk is held at a time, whatever is asked for."""
    parts: list[pa.RecordBatch] = []
    asked: list[I64] = []  # which of the page's rows each part holds
    error: DataError | None = None
    end = len(chunk)  # rows from here on are not wanted any more
    for number in _in_order(chunk):
        mine = np.flatnonzero(chunk[:end] == number)
        if not len(mine):
            continue
        lease = await chunks.lease(dataset, [number])
        with lease as held:
            info = (await chunks.infos(dataset, [number]))[0]
            kept, bad = _split(info, rows[mine])
            if bad is not None:
                end = int(mine[bad])
                error = _error(dataset, number, int(rows[end]), info)
                mine, kept = mine[:bad], kept[:bad]
            visit = plan_visit(np.zeros(len(kept), np.uint32), kept)
            parts.append(await asyncio.to_thread(gather, schema, {0: held.batches[number]}, visit))
            asked.append(mine)
    return await asyncio.to_thread(_whole, schema, parts, asked, end), error


def _split(info: ChunkInfo, stored: I64) -> tuple[npt.NDArray[np.uint32], int | None]:
    """Rows of the chunk's batch for the `stored` rows [n], and the first of these [0, n) that is an error."""
    errors = info.absent_rows()
    kept = (stored - np.searchsorted(errors, stored, side="left")).astype(np.uint32)
    bad = np.flatnonzero(np.isin(stored, errors))
    return kept, int(bad[0]) if len(bad) else None


def _error(dataset: DatasetVersion, chunk: int, stored: int, info: ChunkInfo) -> DataError:
    error = info.error_of(stored)
    found = f"{error.where}: {error.reason}" if error else "a filter left it out"
    position = int(dataset.manifest.chunk_start[chunk]) + stored
    return DataError(
        f"row {position} of {dataset.name}@{dataset.version} cannot be read: {found}. "
        "The rows around it can: leave this index out, or mend the file and register it again"
    )


def _whole(schema: pa.Schema, parts: list[pa.RecordBatch], asked: list[I64], end: int) -> pa.RecordBatch:
    """The parts as one batch, in the order asked for, without what lies behind the first error."""
    if not parts:
        return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)
    order = np.concatenate(asked)
    batch = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
    if np.all(order[1:] > order[:-1]):
        return batch.slice(0, int(np.searchsorted(order, end)))
    wanted = np.argsort(order)
    return batch.take(pa.array(wanted[: int(np.sum(order < end))]))
