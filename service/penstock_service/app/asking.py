"""What a client's Open asks for, in the words of mixing: datasets looked up, transforms read, the seed settled."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

import numpy as np

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from penstock_service.app.seeds import Seeds
from penstock_service.core.dataset import DatasetVersion, Manifest
from penstock_service.core.errors import NoRows
from penstock_service.core.plan import PoolWish, Start, Until
from penstock_service.mix.stream import StreamWish, WeightBy
from penstock_service.transform.chain import Chain, parse

Lookup = Callable[[str, str, list[str] | None], Awaitable[DatasetVersion]]
"""A split of a dataset version by NAME or NAME@VERSION, whose files are as they were. Those that are gone are refused,
or added to the list."""

_NAMED: Final = 3


class Asking:
    """Turns requests into wishes."""

    def __init__(self, lookup: Lookup, seeds: Seeds, python_modules: tuple[str, ...]) -> None:
        """`python_modules`: those that streams may run."""
        self._lookup = lookup
        self._seeds = seeds
        self._python_modules = python_modules

    async def wish(self, request: pb.Open, cursor: Cursor | None, notes: list[str]) -> StreamWish:
        """What should be known of it is added to `notes`. Raises a ServiceError that says what is wrong."""
        spec = request.stream
        chain = await asyncio.to_thread(parse, spec.rows, self._python_modules)
        pool = PoolWish(
            pool_rows=spec.pool_rows if spec.HasField("pool_rows") else None,
            pool_bytes=spec.pool_bytes if spec.HasField("pool_bytes") else None,
            refill_below=spec.refill_below if spec.HasField("refill_below") else None,
            start=cast(Start, spec.start or "ramp"),
        )
        sources = await self._sources(spec.sources, chain, notes, request.view.on_error or "fail")
        return StreamWish(
            sources=tuple(dataset for dataset, _ in sources),
            weights=tuple(weight for _, weight in sources),
            seed=await self._seed(request, cursor),
            shuffle=not spec.unshuffled,
            pool=pool,
            until=cast(Until, spec.until or "all"),
            epoch_rows=spec.epoch_rows if spec.HasField("epoch_rows") else None,
            reshuffle=not spec.same_every_epoch,
            weight_by=cast(WeightBy, spec.weight_by or "rows"),
        )

    async def _sources(
        self, named: Sequence[pb.Source], chain: Chain, notes: list[str], on_error: str
    ) -> list[tuple[DatasetVersion, float | None]]:
        """Datasets and their weights. One without rows among full ones weighs 0, and is noted."""
        found = []
        empty: NoRows | None = None
        for source in named:
            try:
                gone: list[str] | None = None if on_error == "fail" else []
                dataset = await self._lookup(source.dataset, source.split, gone)
            except NoRows as nothing:
                empty = nothing
                notes.append(f"{source.dataset} weighs 0: {nothing}")
            else:
                if gone:
                    some = ", ".join(gone[:_NAMED]) + (" ..." if len(gone) > _NAMED else "")
                    others = await asyncio.to_thread(_lost_with, dataset.manifest, gone)
                    also = f", and so are {others} rows of other files that lie in chunks with them" if others else ""
                    notes.append(
                        f"{len(gone)} of {dataset.manifest.shards.num_rows} files of {dataset.reference} are gone "
                        f"({some}): their rows are left out (on_error={on_error!r}){also}"
                    )
                own = await asyncio.to_thread(parse, dataset.transforms, self._python_modules)
                whole = own.then(chain)
                dataset = dataset.transformed(whole) if whole else dataset
                found.append((dataset, source.weight if source.HasField("weight") else None))
        if empty is not None and not found:
            raise empty
        return found

    async def _seed(self, request: pb.Open, cursor: Cursor | None) -> int:
        """The seed asked for, else that of the cursor, else one drawn for the whole job."""
        if request.stream.HasField("seed"):
            return int(request.stream.seed)
        if cursor is not None:
            return cursor.seed
        return await asyncio.to_thread(self._seeds.of, request.job, request.name)


def _lost_with(manifest: Manifest, gone: Sequence[str]) -> int:
    """Rows of other files that cannot be had because they lie in chunks with those that are gone."""
    chunks = np.array(sorted({chunk for path in gone for chunk in manifest.chunks_of(path)}), np.int64)
    lost = int(np.sum(np.diff(manifest.chunk_start)[chunks]))
    own = np.isin(manifest.shards["path"].to_numpy(zero_copy_only=False), gone)
    return lost - int(np.sum(manifest.shard_rows[own]))
