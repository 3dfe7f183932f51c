"""From a client's Open to a feed: look datasets up, settle the plan, check the cursor, share what is shared."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Final, cast

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import BadCursor, Cursor
from penstock_service.batch.columns import delivered
from penstock_service.batch.feed import StepFeed
from penstock_service.batch.view import Last, View
from penstock_service.core.channel import Counters
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import CursorMismatch, InvalidRequest, NoRows
from penstock_service.core.feed import Opening
from penstock_service.core.plan import PlanConstants, PoolDefaults, PoolWish, Start, Until
from penstock_service.core.segment import ChunkSource
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.overlap import shared_files
from penstock_service.mix.stream import Stream, StreamWish, settle

Lookup = Callable[[str, str], Awaitable[DatasetVersion]]
"""A split of a dataset version by NAME or NAME@VERSION, whose files are as they were."""

_MIXERS_REMEMBERED: Final = 8

_log = logging.getLogger(__name__)


class Subscriptions:
    """Opens feeds. Streams with the same order share one mixer, whoever subscribes."""

    def __init__(self, lookup: Lookup, chunks: ChunkSource, defaults: PoolDefaults, counters: Counters) -> None:
        self._lookup = lookup
        self._chunks = chunks
        self._defaults = defaults
        self._counters = counters
        self._mixers: OrderedDict[tuple[Any, ...], Mixer] = OrderedDict()

    async def open(self, request: pb.Open) -> Opening:
        """Raises a ServiceError that says what is wrong with the request."""
        view = View(
            global_batch=request.view.global_batch,
            rank=request.view.rank,
            world_size=request.view.world_size,
            last=cast(Last, request.view.last or "short"),
        )
        notes: list[str] = []
        wish = await self._wish(request.stream, notes)
        cursor = _cursor(request.cursor)
        stream = await settle(wish, self._chunks, self._defaults, _carried_plan(cursor))
        at = self._begin(request, stream, view, cursor)
        schema = delivered(stream.sources[0].schema, list(request.view.columns), request.view.text)
        mixer = self._mixer(stream)
        holds = ExitStack()
        for source in stream.sources:
            holds.callback(self._chunks.hold(source).release)
        feed = StepFeed(mixer, self._chunks, view, schema, at, self._counters)
        notes.extend(await asyncio.to_thread(shared_files, stream.sources))
        for note in notes:
            _log.warning("stream %s: %s", request.name, note)
        _log.info(
            "stream %s: pool of %d rows, %d leave at a time", request.name, stream.plan.pool_rows, stream.plan.drain
        )
        return Opening(
            feed=feed,
            schema=schema,
            fingerprint=stream.fingerprint(),
            plan=stream.plan.to_json(),
            cursor=at.to_json(),
            rows=mixer.rows,
            steps=view.steps_of(mixer.rows),
            datasets=tuple(s.reference for s in stream.sources),
            notes=tuple(notes),
            close=holds.close,
        )

    async def stop(self) -> None:
        for mixer in self._mixers.values():
            await mixer.stop()
        self._mixers.clear()

    async def _wish(self, spec: pb.StreamSpec, notes: list[str]) -> StreamWish:
        pool = PoolWish(
            pool_rows=spec.pool_rows if spec.HasField("pool_rows") else None,
            pool_bytes=spec.pool_bytes if spec.HasField("pool_bytes") else None,
            refill_below=spec.refill_below if spec.HasField("refill_below") else None,
            start=cast(Start, spec.start or "ramp"),
        )
        sources = await self._sources(spec.sources, notes)
        return StreamWish(
            sources=tuple(dataset for dataset, _ in sources),
            weights=tuple(weight for _, weight in sources),
            seed=spec.seed,
            shuffle=not spec.unshuffled,
            pool=pool,
            until=cast(Until, spec.until or "all"),
            epoch_rows=spec.epoch_rows if spec.HasField("epoch_rows") else None,
        )

    async def _sources(self, named: Sequence[pb.Source], notes: list[str]) -> list[tuple[DatasetVersion, float | None]]:
        """Datasets and their weights. One without rows among full ones weighs 0, and is noted."""
        found = []
        empty: NoRows | None = None
        for source in named:
            try:
                dataset = await self._lookup(source.dataset, source.split)
            except NoRows as nothing:
                empty = nothing
                notes.append(f"{source.dataset} weighs 0: {nothing}")
            else:
                found.append((dataset, source.weight if source.HasField("weight") else None))
        if empty is not None and not found:
            raise empty
        return found

    def _begin(self, request: pb.Open, stream: Stream, view: View, cursor: Cursor | None) -> Cursor:
        """Where the feed begins: at the cursor, if it is one of this stream."""
        fingerprint, plan = stream.fingerprint(), stream.plan.to_json()
        if cursor is None:
            return Cursor(request.epoch, 0, 0, 0, view.global_batch, stream.seed, 0, plan, fingerprint)
        differing = [
            f"{name} (cursor {cursor.fingerprint.get(name, 'none')}, now {fingerprint.get(name, 'none')})"
            for name in sorted({*fingerprint, *cursor.fingerprint})
            if cursor.fingerprint.get(name) != fingerprint.get(name)
        ]
        if cursor.seed != stream.seed:
            differing.append(f"seed (cursor {cursor.seed}, now {stream.seed})")
        if differing:
            raise CursorMismatch(
                f"this state belongs to another stream; what differs: {'; '.join(differing)}. "
                "Open the stream as it was when the state was saved, or begin a new epoch without the state"
            )
        return Cursor(**{**asdict(cursor), "global_batch": view.global_batch})

    def _mixer(self, stream: Stream) -> Mixer:
        mixer = self._mixers.get(stream.key)
        if mixer is None:
            mixer = self._mixers[stream.key] = Mixer(stream.sources, stream.order(), self._chunks, self._counters)
        self._mixers.move_to_end(stream.key)
        while len(self._mixers) > _MIXERS_REMEMBERED:
            # Only the memory of it goes: feeds that still use it keep it alive.
            self._mixers.popitem(last=False)
        return mixer


def _cursor(text: str) -> Cursor | None:
    if not text:
        return None
    try:
        return Cursor.from_json(text)
    except BadCursor as error:
        raise InvalidRequest(f"the state that was loaded is no cursor: {error}") from error


def _carried_plan(cursor: Cursor | None) -> PlanConstants | None:
    if cursor is None:
        return None
    try:
        return PlanConstants.from_json(dict(cursor.plan))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"the plan constants in the state are not whole: {error!r}") from error
