"""From a client's Open to a feed: look datasets up, settle the plan, check the cursor, share what is shared."""

import asyncio
import logging
from collections import Counter, OrderedDict
from contextlib import ExitStack
from typing import Any, Final, cast

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import named
from penstock_service.app.agreement import Agreement, Claim
from penstock_service.app.asking import Asking, Lookup
from penstock_service.app.position import begin, carried_plan, check_start, read_cursor
from penstock_service.app.seeds import Seeds
from penstock_service.batch.columns import delivered
from penstock_service.batch.feed import StepFeed
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.view import Last, View
from penstock_service.core.channel import Counters
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.feed import Opening
from penstock_service.core.plan import PoolDefaults
from penstock_service.core.quality import Quality
from penstock_service.core.segment import ChunkSource
from penstock_service.core.status import StreamStatus
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.overlap import shared_files
from penstock_service.mix.stream import Stream, settle

_IDLE_REMEMBERED: Final = 4
_LOOKED_AT: Final = 4  # streams whose counts are kept for the next look

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
        self._asking = Asking(lookup, seeds, python_modules)
        self._agreement = Agreement()
        self._chunks = chunks
        self._defaults = defaults
        self._counters = counters
        self._mixers: OrderedDict[Key, Mixer] = OrderedDict()
        self._streams: dict[Key, Stream] = {}  # of those mixers
        self._looked_at: OrderedDict[Key, Mixer] = OrderedDict()
        self._readers: Counter[Key] = Counter()

    async def open(self, request: pb.Open, looking: bool = False) -> Opening:
        """Raises a ServiceError that says what is wrong with the request.

        Args:
            looking: the feed is only asked where rows come from: no rank of the job takes notice of it.
        """
        view = View(
            global_batch=request.view.global_batch,
            rank=request.view.rank,
            world_size=request.view.world_size,
            last=cast(Last, request.view.last or "short"),
            skip=tuple((r.epoch, r.begin, r.end) for r in request.view.skip),
        )
        notes: list[str] = []
        cursor = read_cursor(request.cursor)
        wish = await self._asking.wish(request, cursor, notes)
        stream = await settle(wish, self._chunks, self._defaults, carried_plan(cursor))
        notes.extend(await asyncio.to_thread(shared_files, stream.sources))
        notes.extend(stream.readings())
        self._check_step(view, stream)
        mixer = await (self._aside(stream) if looking else self._mixer(stream))
        at = begin(request, stream, view, cursor, notes)
        if at.segment >= mixer.segments:
            raise InvalidRequest(
                f"the state is in segment {at.segment}, but an epoch of this stream has {mixer.segments}"
            )
        schema = delivered(stream.sources[0].schema, list(request.view.columns), request.view.text)
        held = ExitStack()
        if looking:
            held.callback(mixer.rest)
        else:
            ticket = self._agreement.join(request.job, request.name, _claim(request, view, stream, at))
            held.callback(self._agreement.leave, request.job, request.name, ticket)
            self._readers[stream.key] += 1
            held.callback(self._left, stream.key)
            _tell(request.name, stream, notes)
        for source in stream.sources:
            held.callback(self._chunks.hold(source).release)
        fetch = Fetch(mixer, self._chunks, schema, request.view.row_ids)
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
            step_bytes=view.rows * stream.row_bytes,
            notes=tuple(notes),
            close=held.close,
            started=lambda start: self._agreement.started(request.job, request.name, ticket, check_start(start)),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of indices and waiting rows, over all streams."""
        return sum(mixer.nbytes for mixer in self._mixers.values())

    def streams(self) -> list[StreamStatus]:
        """Those that are read, and the latest of those that were."""
        return [
            StreamStatus(
                datasets=tuple(source.reference for source in stream.sources),
                seed=stream.seed,
                shuffle=stream.shuffle,
                pool_rows=stream.plan.pool_rows,
                drain=stream.plan.drain,
                cycles=stream.plan.cycles,
                rows=mixer.rows,
                segments=mixer.segments,
                sessions=self._readers[key],
                mixing_bytes=mixer.nbytes,
                qualities=tuple(mixer.meter.qualities()) if mixer.meter is not None else (),
            )
            for key, mixer in self._mixers.items()
            for stream in [self._streams[key]]
        ]

    def mixed(self) -> dict[str, Quality]:
        """How well the last finished epoch of each stream was mixed, by the names of its datasets."""
        found = {}
        for key, mixer in self._mixers.items():
            quality = mixer.meter.last_finished() if mixer.meter is not None else None
            if quality is not None:
                found["+".join(source.label for source in self._streams[key].sources)] = quality
        return found

    async def stop(self) -> None:
        for mixer in (*self._mixers.values(), *self._looked_at.values()):
            await mixer.stop()
        self._mixers.clear()
        self._looked_at.clear()

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
            order, meter = await asyncio.to_thread(stream.order), await asyncio.to_thread(stream.meter)
            made = Mixer(stream.sources, order, self._chunks, self._counters, meter)
            mixer = self._mixers.setdefault(stream.key, made)
            self._streams[stream.key] = stream
        self._mixers.move_to_end(stream.key)
        return mixer

    async def _aside(self, stream: Stream) -> Mixer:
        """A mixer for looks alone: sessions find what they remember as it was. Only its counts outlive a look."""
        mixer = self._looked_at.pop(stream.key, None)
        if mixer is None:
            order = await asyncio.to_thread(stream.order)
            mixer = Mixer(stream.sources, order, self._chunks, Counters(), ahead=False)
        self._looked_at[stream.key] = mixer
        if len(self._looked_at) > _LOOKED_AT:
            self._looked_at.popitem(last=False)
        return mixer

    def _left(self, key: Key) -> None:
        """One reader of a stream has gone; streams that nobody reads keep little, and only the latest of them."""
        self._readers[key] -= 1
        if self._readers[key] == 0:
            del self._readers[key]
            if key in self._mixers:  # not where the server has stopped meanwhile
                self._mixers[key].rest()
        idle = [k for k in self._mixers if k not in self._readers]
        for old in idle[: max(0, len(idle) - _IDLE_REMEMBERED)]:
            del self._mixers[old], self._streams[old]


def _tell(name: str, stream: Stream, notes: list[str]) -> None:
    for note in notes:
        _log.warning("stream %s: %s", name, note)
    _log.info(
        "stream %s: pool of %d rows, %d leave at a time, up to %d cycles; seed %d",
        *(name, stream.plan.pool_rows, stream.plan.drain, stream.plan.cycles, stream.seed),
    )


def _claim(request: pb.Open, view: View, stream: Stream, at: Cursor) -> Claim:
    asked = request.view
    readable = {"weights": stream.weights, "pool": stream.plan.to_json()}
    return Claim(
        rank=view.rank,
        replica=asked.replica,
        token=request.token,
        reopened=request.reopened,
        start=check_start(request.start),
        position=(at.epoch, at.segment, at.taken),
        always=(
            ("world size", view.world_size),
            ("seed", stream.seed),
            ("datasets", tuple(s.reference for s in stream.sources)),
            *((name, readable.get(name, short)) for name, short in stream.fingerprint().items()),
        ),
        here=(
            ("global batch", view.global_batch),
            ("last", view.last),
            ("steps to skip", named(view.skip)),
            ("on_error", asked.on_error or "fail"),
            ("placeholder", asked.placeholder),
        ),
    )
