"""Rows of more chunks than can be held at a time: those of a few chunks first, copied, then those of the next.

It takes a copy more, and chunks are made again for each bundle: what is left where the store is smaller than what a
bundle reads. Whoever has room for all chunks never comes here.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa

from penstock_service.batch.gather import gather
from penstock_service.batch.visit import plan_visit
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ResourceExhausted
from penstock_service.core.segment import U32, ChunkSource, Lease, SourceChunks

ROOM_WITHIN: Final = 10.0  # seconds that one chunk waits for others to be given back
_PAUSE: Final = 0.05
_GROWS: Final = 8  # by an eighth with each bundle


class Rows(NamedTuple):
    """Rows wanted [n], as chunks and rows of chunks that are there."""

    batches: Mapping[int, pa.RecordBatch]
    chunk: U32  # [n]
    row: U32  # [n]


class Portions:
    """Of one feed: how many chunks it has found room for."""

    def __init__(self, chunks: ChunkSource, columns: pa.Schema) -> None:
        self._chunks = chunks
        self._columns = columns
        self._at_once = 0  # chunks; 0: as many as there are

    @property
    def wanted(self) -> bool:
        """Was there too little room the last time?"""
        return self._at_once > 0

    async def rows(self, parts: Sequence[SourceChunks], wanted: Rows) -> Rows:
        """The rows `wanted` of `parts`, copied, each portion as if it were a chunk. `wanted.batches` are there anyway.

        Raises:
            ResourceExhausted: there is no room for a single chunk.
        """
        batches: dict[int, pa.RecordBatch] = {}
        chunk, row = np.zeros(len(wanted.chunk), np.uint32), wanted.row.copy()
        for number, batch in wanted.batches.items():
            chunk[wanted.chunk == number] = len(batches)
            batches[len(batches)] = batch
        for part in parts:
            own: list[int] = part.own.tolist()
            while own:
                lease = await self._lease(part.dataset, own)
                with lease as held:
                    found = {part.first + c: batch for c, batch in held.batches.items()}
                    mine = np.flatnonzero(np.isin(wanted.chunk, np.fromiter(found, np.uint32, len(found))))
                    visit = plan_visit(wanted.chunk[mine], wanted.row[mine])
                    chunk[mine], row[mine] = len(batches), np.arange(len(mine))
                    batches[len(batches)] = await asyncio.to_thread(gather, self._columns, found, visit)
                del own[: len(found)]
        self._at_once += 1 + self._at_once // _GROWS  # there may be more room again
        if self._at_once >= sum(len(part.own) for part in parts):
            self._at_once = 0
        return Rows(batches, chunk, row)

    async def _lease(self, dataset: DatasetVersion, own: list[int]) -> AbstractContextManager[Lease]:
        """The first of the chunks `own`, as many as there is room for."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ROOM_WITHIN
        self._at_once = self._at_once or len(own)
        while True:
            try:
                return await self._chunks.lease(dataset, own[: self._at_once])
            except ResourceExhausted:
                self._at_once = min(self._at_once, len(own)) // 2
                if self._at_once == 0:  # others have leased what there is: they give it back soon
                    self._at_once = 1
                    if loop.time() > until:
                        raise
                    await asyncio.sleep(_PAUSE)
