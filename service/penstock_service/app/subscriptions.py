"""From a client's Open to a feed: look datasets up, settle the plan, check the cursor, share what is shared."""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Final, cast

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import BadCursor, Cursor
from penstock_service.app.jobs import Agreement, Claim, Seeds
from penstock_service.batch.columns import delivered
from penstock_service.batch.feed import StepFeed
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.view import Last, View
from penstock_service.core.channel import Counters
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import CursorMismatch, InvalidRequest, NoRows
from penstock_service.core.feed import Opening
from penstock_service.core.plan import PlanConstants, PoolDefaults, PoolWish, Start, Until
from penstock_service.core.segment import ChunkSource
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.overlap import shared_files
from penstock_service.mix.stream import Stream, StreamWish, WeightBy, settle
from penstock_service.transform.chain import Chain, parse

Lookup = Callable[[str, str], Awaitable[DatasetVersion]]
"""A split of a dataset version by NAME or NAME@VERSION, whose files are as they were."""

_IDLE_REMEMBERED: Final = 4

Key = tuple[Any, ...]  # Stream.key

_log = logging.getLogger(__name__)


class Subscriptions:
    """Opens feeds. Streams with the same order share one mixer, whoever subscribes."""

    def __init__(
        self,
        lookup: Lookup,
        chunks: ChunkSource,
        seeds: Seeds,
        defaults: PoolDefaults,
        step_bytes: int,
        python_modules: tuple[str, ...],
        counters: Counters,
    ) -> None:
        """`step_bytes`: the most that one step of one rank may have; `python_modules`: those that streams may run."""
        self._step_bytes = step_bytes
        self._python_modules = python_modules
        self._lookup = lookup
        self._seeds = seeds
        self._agreement = Agreement()
        self._chunks = chunks
        self._defaults = defaults
        self._counters = counters
        self._mixers: OrderedDict[Key, Mixer] = OrderedDict()
        self._readers: Counter[Key] = Counter()

    async def open(self, request: pb.Open) -> Opening:
        """Raises a ServiceError that says what is wrong with the request."""
        view = View(
            global_batch=request.view.global_batch,
            rank=request.view.rank,
            world_size=request.view.world_size,
            last=cast(Last, request.view.last or "short"),
        )
        notes: list[str] = []
        cursor = _cursor(request.cursor)
        wish = await self._wish(request, cursor, notes)
        stream = await settle(wish, self._chunks, self._defaults, _carried_plan(cursor))
        notes.extend(await asyncio.to_thread(shared_files, stream.sources))
        notes.extend(stream.readings())
        self._check_step(view, stream)
        mixer = await self._mixer(stream)
        at = self._begin(request, stream, view, cursor)
        if at.segment >= mixer.segments:
            raise InvalidRequest(
                f"the state is in segment {at.segment}, but an epoch of this stream has {mixer.segments}"
            )
        schema = delivered(stream.sources[0].schema, list(request.view.columns), request.view.text)
        ticket = self._agreement.join(request.job, request.name, _claim(view, request.view.replica, stream, at))
        held = ExitStack()
        held.callback(self._agreement.leave, request.job, request.name, ticket)
        for source in stream.sources:
            held.callback(self._chunks.hold(source).release)
        self._readers[stream.key] += 1
        held.callback(self._left, stream.key)
        fetch = Fetch(mixer, self._chunks, schema, request.view.row_ids)
        for note in notes:
            _log.warning("stream %s: %s", request.name, note)
        _log.info(
            "stream %s: pool of %d rows, %d leave at a time, up to %d cycles; seed %d",
            *(request.name, stream.plan.pool_rows, stream.plan.drain, stream.plan.cycles, stream.seed),
        )
        return Opening(
            feed=StepFeed(mixer, fetch, view, at, self._counters, stream.row_bytes),
            schema=fetch.schema,
            fingerprint=stream.fingerprint(),
            plan=stream.plan.to_json(),
            cursor=at,
            rows=None if stream.may_drop else mixer.rows,
            steps=None if stream.may_drop else view.steps_of(mixer.rows),
            seed=stream.seed,
            datasets=tuple(s.reference for s in stream.sources),
            notes=tuple(notes),
            close=held.close,
        )

    @property
    def nbytes(self) -> int:
        """Bytes of indices and waiting rows, over all streams."""
        return sum(mixer.nbytes for mixer in self._mixers.values())

    async def stop(self) -> None:
        for mixer in self._mixers.values():
            await mixer.stop()
        self._mixers.clear()

    async def _wish(self, request: pb.Open, cursor: Cursor | None, notes: list[str]) -> StreamWish:
        spec = request.stream
        chain = await asyncio.to_thread(parse, spec.rows, self._python_modules)
        pool = PoolWish(
            pool_rows=spec.pool_rows if spec.HasField("pool_rows") else None,
            pool_bytes=spec.pool_bytes if spec.HasField("pool_bytes") else None,
            refill_below=spec.refill_below if spec.HasField("refill_below") else None,
            start=cast(Start, spec.start or "ramp"),
        )
        sources = await self._sources(spec.sources, chain, notes)
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
        self, named: Sequence[pb.Source], chain: Chain, notes: list[str]
    ) -> list[tuple[DatasetVersion, float | None]]:
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

    def _check_step(self, view: View, stream: Stream) -> None:
        """One step of one rank is made in memory at once: it must fit there."""
        size = view.rows * stream.row_bytes
        if size > self._step_bytes:
            raise InvalidRequest(
                f"a step of {view.rows} rows of {stream.row_bytes:.0f} bytes needs {size / 1e9:.1f} GB at each rank; "
                f"this server makes steps up to {self._step_bytes / 1e9:.1f} GB (a quarter of --memory): at most "
                f"{max(1, int(self._step_bytes / stream.row_bytes))} rows per rank"
            )

    async def _mixer(self, stream: Stream) -> Mixer:
        mixer = self._mixers.get(stream.key)
        if mixer is None:
            order = await asyncio.to_thread(stream.order)
            mixer = self._mixers.setdefault(stream.key, Mixer(stream.sources, order, self._chunks, self._counters))
        self._mixers.move_to_end(stream.key)
        return mixer

    def _left(self, key: Key) -> None:
        """One reader of a stream has gone; streams that nobody reads keep little, and only the latest of them."""
        self._readers[key] -= 1
        if self._readers[key] == 0:
            del self._readers[key]
            self._mixers[key].rest()
        idle = [k for k in self._mixers if k not in self._readers]
        for old in idle[: max(0, len(idle) - _IDLE_REMEMBERED)]:
            del self._mixers[old]


def _claim(view: View, replica: int, stream: Stream, at: Cursor) -> Claim:
    facts = (
        ("world size", view.world_size),
        ("global batch", view.global_batch),
        ("last", view.last),
        ("seed", stream.seed),
        ("datasets", tuple(s.reference for s in stream.sources)),
        ("order", tuple(stream.fingerprint().values())),
    )
    return Claim(view.rank, replica, (at.epoch, at.segment, at.taken), facts)


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
