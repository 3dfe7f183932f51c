"""A server in memory: everything between a client's Open and its bundles is the real thing, over chunks that are there.

What a restart loses is lost here too: sessions, mixers, claims. What a server leaves behind is counted.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa

from penstock.subscription import Order
from penstock_service.app.badrows import BadRows
from penstock_service.app.journal import Journals
from penstock_service.app.mixers import Mixers
from penstock_service.app.runs import Runs
from penstock_service.app.seeds import Seeds
from penstock_service.app.subscriptions import Subscriptions
from penstock_service.core.channel import Counters
from penstock_service.core.chunk import ChunkInfo, ChunkValue, pack_rows
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.plan import PoolDefaults, PoolWish
from penstock_service.deliver.data import DataService
from penstock_service.deliver.session import Limits
from penstock_service.deliver.transport import Transports
from penstock_service.mix.pool import POSITION_MASK, SOURCE_SHIFT
from penstock_service.mix.stream import Stream, StreamWish, settle
from penstock_service.transform.chain import parse
from tests.laws.test_feeds import InMemory, InMemoryLease
from tests.laws.virtual import VirtualLoop
from tests.laws.wire import Call

DEFAULTS = PoolDefaults()


class Counted(InMemoryLease):
    """A lease or hold that its source counts until it is released."""

    def __init__(self, source: "MemoryChunks", batches: dict[int, pa.RecordBatch]) -> None:
        super().__init__(batches)
        self._source: MemoryChunks | None = source
        source.held += 1

    def release(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.held -= 1

    def __exit__(self, *_: object) -> None:
        self.release()


class MemoryChunks(InMemory):
    """Chunks with filters, each made once."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0
        self._made: dict[tuple[str, int], ChunkValue] = {}

    def _value(self, dataset: DatasetVersion, chunk: int) -> ChunkValue:
        key = (dataset.name, chunk)
        if key not in self._made:
            ids = [self._id(dataset, p) for p in self._positions(dataset, chunk)]
            value = ChunkValue(len(ids), pa.record_batch({"id": pa.array(ids, pa.int64())}))
            self._made[key] = dataset.chain.apply(value, str) if dataset.chain is not None else value
        return self._made[key]

    async def infos(self, dataset: DatasetVersion, chunks: Sequence[int]) -> list[ChunkInfo]:
        found = []
        for chunk in chunks:
            value = self._value(dataset, chunk)
            size = 8 * value.rows.num_rows
            found.append(ChunkInfo(value.stored_rows, (), size, "content", pack_rows(value.dropped, value.stored_rows)))
        return found

    async def lease(self, dataset: DatasetVersion, chunks: Sequence[int]) -> InMemoryLease:
        return Counted(self, {chunk: self._value(dataset, chunk).rows for chunk in chunks})

    def hold(self, dataset: DatasetVersion) -> InMemoryLease:
        return Counted(self, {})


@dataclass
class Given:
    """Datasets, and the order asked for."""

    datasets: tuple[DatasetVersion, ...]
    order: Order
    seeds: Seeds
    journals: Journals
    bad_rows: BadRows
    limits: Limits
    chunks: MemoryChunks = field(default_factory=MemoryChunks)

    async def lookup(self, name: str, _split: str, _gone: list[str] | None) -> DatasetVersion:
        return next(d for d in self.datasets if d.name == name)

    async def stream(self) -> Stream:
        chain, order = parse(self.order.rows, ()), self.order
        wish = StreamWish(
            sources=tuple(d.transformed(chain) if chain else d for d in self.datasets),
            weights=tuple(weight for _, weight in order.sources()),
            seed=order.seed or 0,
            shuffle=order.shuffle,
            pool=PoolWish(order.pool_rows, order.pool_bytes, order.refill_below, order.start),
            until=order.until,
            epoch_rows=order.epoch_rows,
            reshuffle=order.reshuffle,
        )
        return await settle(wish, self.chunks, DEFAULTS, None)


class Golden:
    """The one order of each epoch, straight from the pool: no index, no feed, no bundle, no session."""

    def __init__(self, stream: Stream) -> None:
        self._order = stream.order()
        self._stream = stream
        self._epochs: dict[int, list[int]] = {}
        self.filtered = stream.may_drop

    def epoch(self, number: int) -> list[int]:
        if number not in self._epochs:
            segments = [self._order.segment_rows(number, s).tolist() for s in range(self._order.segments(number))]
            self._epochs[number] = [i for ids in segments for i in map(self._named, ids) if i in self._kept]
        return self._epochs[number]

    def _named(self, row: int) -> int:
        return int(self._stream.sources[row >> SOURCE_SHIFT].name) * 10_000 + (row & POSITION_MASK)

    @cached_property
    def _kept(self) -> set[int]:
        """The ids of rows that filters leave."""
        chunks, kept = MemoryChunks(), set()
        for source in self._stream.sources:
            for chunk in range(source.manifest.chunks):
                kept.update(chunks._value(source, chunk).rows["id"].to_pylist())
        return kept


class Server:
    """One life of the server, from start to its end."""

    def __init__(self, given: Given, port: Any = None) -> None:
        """`port`: of payload sockets."""
        self.port = port
        counters = Counters()
        self.mixers = Mixers(given.chunks, counters)
        self.runs = Runs(given.journals, self.mixers)
        self.subscriptions = Subscriptions(
            given.lookup,
            self.mixers,
            self.runs,
            given.chunks,
            given.seeds,
            DEFAULTS,
            1 << 30,
            (),
            counters,
            given.bad_rows,
        )
        transports = Transports(False, given.limits.bundle_bytes, port)
        self.data = DataService(self.subscriptions.open, given.limits, transports, 1000, "in memory")

    async def handler(self, call: Call) -> None:
        await self.data._stream(None, call)

    def left_over(self) -> dict[str, int]:
        """What there is still of sessions that have ended; empty if nothing is."""
        found = {
            "sessions": len(self.data.sessions()),
            "openings": self.data._opening,
            "claims": len(self.subscriptions._agreement._rounds),
            "runs": len(self.runs._live),
            "readers": len(self.mixers._readers),
            "bytes of segments and pools": self.mixers.nbytes,
            "payload sockets": len(self.port.open) if self.port is not None else 0,
        }
        return {what: count for what, count in found.items() if count}

    async def stop(self) -> None:
        await self.runs.stop()
        await self.mixers.stop()


def tasks_of(loop: VirtualLoop) -> list[str]:
    """Tasks that have not ended."""
    return [task.get_name() for task in asyncio.all_tasks(loop)]
