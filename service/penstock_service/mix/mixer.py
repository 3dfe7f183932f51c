"""One stream's segments, made when somebody wants them and shared by all sessions that do."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from penstock_service.core.channel import Counters
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import CHUNK_FAULTS
from penstock_service.core.hashing import U64
from penstock_service.core.journal import Place
from penstock_service.core.segment import I64, ChunkSource, Fault, Progress, Segment, SourceChunks
from penstock_service.mix.index import ChunkNumbers, Infos, build, has_gaps
from penstock_service.mix.masks import Masks
from penstock_service.mix.meter import Meter
from penstock_service.mix.pool import Order
from penstock_service.mix.recent import Key, Recent

_GROUP: Final = 16  # chunks asked for between two reports of progress
_SMALL: Final = 1 << 16  # units of a segment; of such ones
_AHEAD: Final = 4  # are made ahead of demand: one of them may take longer than it lasts
_SOURCES_NAMED: Final = 8  # in a log line, and of each of them
_SHARDS_NAMED: Final = 3
_COUNTED: Final = 1 << 16  # segments whose number of units is kept

_log = logging.getLogger(__name__)


class _Planned(NamedTuple):
    """A segment before its chunks are there."""

    ids: U64
    chunk: I64  # of each of `ids`
    row: I64  # of each, as stored in its chunk
    units: I64  # by chunk
    whole: Segment | None  # what it is if none of its rows is missing; None: made later
    entering: str  # for the log


class Mixer:
    """Builds segments of one order. All methods but the constructor belong to the event loop."""

    def __init__(
        self,
        sources: Sequence[DatasetVersion],
        order: Order,
        chunks: ChunkSource,
        counters: Counters,
        meter: Meter | None = None,
        ahead: bool = True,
        masks: Masks | None = None,
    ) -> None:
        """`meter` measures what is planned; `ahead`: build what comes next before it is asked for;
        `masks`: rows that the run's journal leaves out.
        """
        self.meter = meter
        self._ahead = ahead
        self._order = order
        self._masks = masks
        self._numbers = ChunkNumbers(sources)
        self._chunks = chunks
        self._counters = counters
        self._recent = Recent()
        self._units: OrderedDict[Key, int] = OrderedDict()  # of segments, before any filter
        self._may_drop = any(source.chain is not None and source.chain.may_drop for source in sources)
        self._resting = False
        self._saving = False
        self._asked: Counter[Key] = Counter()  # who waits now
        self._watchers: dict[Key, list[Progress]] = {}

    def sets(self, epoch: int) -> int:
        """Chunk sets of an epoch; each enters the pool with the segment of its number."""
        return self._order.sets(epoch)

    def segments(self, epoch: int) -> int:
        return self._order.segments(epoch)

    def rows(self, epoch: int) -> int:
        return self._order.rows(epoch)

    def unread(self, epoch: int) -> int:
        return self._order.unread(epoch)

    def by_source(self, chunks: I64) -> list[SourceChunks]:
        return self._numbers.by_source(chunks)

    async def segment(self, epoch: int, number: int, progress: Progress | None = None) -> Segment:
        """Segment `number` of `epoch`; built at most once at a time, whoever asks.

        What cannot be read after its retries is among its bad units. A segment made ahead of demand is then made
        again when it is asked for: it may be readable now.
        """
        key = (epoch, number)
        self._resting = False
        self._asked[key] += 1
        if progress is not None:
            self._watchers.setdefault(key, []).append(progress)
        try:
            # Shielded: a session that goes away must not take the segment from the others.
            return await asyncio.shield(self._start(key))
        finally:
            self._asked[key] -= 1
            if not self._asked[key]:
                del self._asked[key]
            if progress is not None:
                watching = self._watchers[key]
                watching.remove(progress)
                if not watching:
                    del self._watchers[key]

    async def units(self, epoch: int, number: int) -> int | None:
        """See `core.segment.SegmentSource`: planned once, and remembered."""
        if self._may_drop:
            return None
        key = (epoch, number)
        making = self._recent.get(key)
        if key not in self._units and making is not None:
            await asyncio.wait({making})  # counting it beside would plan it twice
        if key not in self._units:
            self._count(key, await asyncio.to_thread(self._planned_units, epoch, number))
        return self._units[key]

    def _planned_units(self, epoch: int, number: int) -> int:
        if self._masks:
            return len(self._masks.kept(Place(epoch, number), self._order.segment_rows(epoch, number)))
        return self._order.segment_units(epoch, number)

    def _count(self, key: Key, units: int) -> None:
        self._units[key] = units
        if len(self._units) > _COUNTED:
            self._units.popitem(last=False)

    def ready(self, epoch: int, number: int) -> bool:
        """Is the segment there, and nothing of it lost, without waiting?"""
        task = self._recent.get((epoch, number))
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return False
        return not task.result().lost

    def look_ahead(self, epoch: int, number: int) -> None:
        """Begin to build what follows segment `number`, across the end of the epoch, if nobody has.

        One segment, and a few where segments are small: a bundle may take more than one of them.
        """
        if not self._ahead or self._saving:
            return
        small = self._order.rows(epoch) < _SMALL * self._order.segments(epoch)
        key = (epoch, number)
        for _ in range(_AHEAD if small else 1):
            key = self._after(*key)
            self._start(key)

    def forget(self, epoch: int, number: int) -> None:
        """See `core.segment.SegmentSource`. One that is being made stays: it is asked for what it needs right now."""
        task = self._recent.get((epoch, number))
        if task is not None and task.done():
            self._recent.drop((epoch, number))

    def _after(self, epoch: int, number: int) -> Key:
        return (epoch, number + 1) if number + 1 < self._order.segments(epoch) else (epoch + 1, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered: rows that wait in the pool, and segments."""
        return self.pool_bytes + self.segment_bytes

    @property
    def pool_bytes(self) -> int:
        return self._order.nbytes

    @property
    def segment_bytes(self) -> int:
        return self._recent.nbytes

    def save(self, on: bool) -> None:
        """Whether memory is short: no segment ahead then, none kept but the last, and no rows that wait."""
        self._saving = on
        self._order.save(on)
        if on:
            asyncio.get_running_loop().run_in_executor(None, self._order.forget)  # it may have to wait for a plan
            self._recent.trim(1, small=False)

    def rest(self) -> None:
        """Nobody reads now: forget what can be made again, also what is being made."""
        self._resting = True
        self._order.forget()
        self._recent.drop_made()

    async def stop(self) -> None:
        tasks = self._recent.unmade()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._recent = Recent()

    def _start(self, key: Key) -> asyncio.Task[Segment]:
        task = self._recent.get(key)
        if task is not None:
            self._recent.put(key, task)
            return task
        task = asyncio.get_running_loop().create_task(self._build(*key), name=f"segment {key}")
        task.add_done_callback(lambda t: self._ended(key, t))
        self._recent.put(key, task)
        if self._saving:
            self._recent.trim(1, small=False)
        else:
            self._recent.trim()
        return task

    def _ended(self, key: Key, task: asyncio.Task[Segment]) -> None:
        """A failure goes to those who wait now; it is not remembered."""
        failed = task.cancelled() or task.exception() is not None
        if self._recent.get(key) is task:
            if failed or self._resting:
                self._recent.drop(key)
            else:
                self._recent.made(key, task.result())
        if self._resting:
            self._order.forget()

    def _plan(self, epoch: int, number: int) -> _Planned:
        """Off the event loop, at once where segments are small: each time costs threads that wake each other."""
        ids = self._order.segment_rows(epoch, number)
        if self._masks:
            ids = self._masks.kept(Place(epoch, number), ids)
        mixed = self.meter.add(epoch, number, ids) if self.meter is not None else None
        if mixed is not None:
            some = "" if mixed.complete else f" (of {mixed.segments} of its {mixed.of_segments} segments)"
            named = "+".join(source.name for source in self._numbers.sources)
            _log.info("%s, epoch %d was mixed%s: %s", named, epoch, some, mixed)
        chunk, row = self._numbers.locate(ids)
        whole = build(number, ids, chunk, row, {}) if len(ids) <= _SMALL else None
        return _Planned(ids, chunk, row, np.bincount(chunk), whole, self._words_entering(epoch, number))

    async def _build(self, epoch: int, number: int) -> Segment:
        began = started = time.perf_counter()
        planned = await asyncio.to_thread(self._plan, epoch, number)
        self._count((epoch, number), len(planned.ids))
        wanted = np.flatnonzero(planned.units)
        mixed = time.perf_counter() - started
        infos: dict[int, Fault] = {}
        per_source = self._numbers.by_source(wanted)
        for part in per_source:
            self._chunks.prefetch(part.dataset, part.own.tolist())
        ready, rows_of = 0, dict(zip(wanted.tolist(), planned.units[wanted].tolist(), strict=True))
        for part in per_source:
            for at in range(0, len(part.own), _GROUP):
                group: list[int] = part.own[at : at + _GROUP].tolist()
                for c, info in zip(group, await self._infos(part.dataset, group), strict=True):
                    infos[part.first + c] = info
                    ready += rows_of[part.first + c]
                for watcher in self._watchers.get((epoch, number), ()):
                    watcher(ready, len(planned.ids), f"reading {part.dataset.name}")
        started = time.perf_counter()
        segment = await self._made(number, planned, infos)
        self._counters.add("mix_seconds", mixed + time.perf_counter() - started)
        self._counters.add("segments_built")
        if planned.entering:
            words = (epoch, number, planned.entering, time.perf_counter() - began)
            _log.info("epoch %d, chunk set %d %s; its segment was ready in %.2f s", *words)
        self._counters.add("data_errors", len(segment.bad))
        if segment.lost and not self._asked[epoch, number]:
            # At once and not in `_ended`, which runs a turn of the loop later: who asks before that must not get it.
            self._recent.drop((epoch, number))
        return segment

    async def _made(self, number: int, planned: _Planned, infos: Infos) -> Segment:
        if planned.whole is not None and not has_gaps(infos):
            return planned.whole
        return await asyncio.to_thread(build, number, planned.ids, planned.chunk, planned.row, infos)

    def _words_entering(self, epoch: int, number: int) -> str:
        """What enters the pool with a chunk set, for the log; empty: nothing, or nobody reads it."""
        entering = self._order.entering(epoch, number) if _log.isEnabledFor(logging.INFO) else []
        if not entering:
            return ""
        parts = []
        for part in entering[:_SOURCES_NAMED]:
            dataset = self._numbers.sources[part.source]
            paths = dataset.manifest.shards["path"]
            named = ", ".join(paths[shard].as_py() for shard in part.shards[:_SHARDS_NAMED])
            more = f" and {len(part.shards) - _SHARDS_NAMED} more" if len(part.shards) > _SHARDS_NAMED else ""
            parts.append(f"{part.rows} rows of {dataset.name} from {named}{more}")
        rest = len(entering) - len(parts)
        return f"enters the pool: {'; '.join(parts)}{f'; and rows of {rest} more datasets' if rest else ''}"

    async def _infos(self, dataset: DatasetVersion, chunks: list[int]) -> Sequence[Fault]:
        """What is known of each chunk, or why none of its rows can be had: they fail where they would have come."""
        try:
            return await self._chunks.infos(dataset, chunks)
        except CHUNK_FAULTS:
            return await asyncio.gather(*(self._info(dataset, chunk) for chunk in chunks))

    async def _info(self, dataset: DatasetVersion, chunk: int) -> Fault:
        try:
            return (await self._chunks.infos(dataset, [chunk]))[0]
        except CHUNK_FAULTS as fault:
            return fault
