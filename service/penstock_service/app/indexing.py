"""Datasets to be indexed: found once, checked now and then, read page by page. Implements `deliver.rows.StoredRows`."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.columns import delivered
from penstock_service.batch.stored import pages
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.segment import ChunkSource

I64 = npt.NDArray[np.int64]
Lookup = Callable[[str], Awaitable[DatasetVersion]]

_REMEMBERED: Final = 16
_CHECKED_EVERY: Final = 5.0  # seconds that a dataset is taken for unchanged: an access must not stat every shard
_WINDOW: Final = 1 << 20  # positions of a range that are looked at together


class Indexing:
    """`lookup` gives a dataset version whose files are as they were."""

    def __init__(self, lookup: Lookup, chunks: ChunkSource) -> None:
        self._lookup = lookup
        self._chunks = chunks
        self._found: OrderedDict[str, tuple[DatasetVersion, float]] = OrderedDict()

    async def read(
        self, dataset: str, columns: tuple[str, ...], positions: I64 | range
    ) -> AsyncIterator[pa.RecordBatch]:
        """See `deliver.rows.StoredRows`."""
        found = await self._dataset(dataset)
        schema = delivered(found.schema, columns, text=True)
        for edge in (positions[0], positions[-1]) if isinstance(positions, range) and positions else ():
            if not 0 <= edge < found.manifest.rows:
                raise InvalidRequest(f"no row {edge} in {dataset}: it has {found.manifest.rows} rows, from 0")
        for first in range(0, len(positions), _WINDOW):
            window = positions[first : first + _WINDOW]
            async for page in pages(self._chunks, found, schema, np.asarray(window, np.int64)):
                yield page

    async def _dataset(self, name: str) -> DatasetVersion:
        if "@" not in name:
            raise InvalidRequest(f"dataset {name!r}: rows are read of a version; ask for {name}@VERSION")
        found, checked = self._found.get(name, (None, 0.0))
        if found is None or time.monotonic() - checked > _CHECKED_EVERY:
            self._found.pop(name, None)
            found = await self._lookup(name)
            self._found[name] = (found, time.monotonic())
        self._found.move_to_end(name)
        while len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
        return found
