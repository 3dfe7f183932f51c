"""From a client's Open to a feed: look datasets up, settle the plan, check the cursor, share what is shared."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import named
from penstock_service.app.agreement import Agreement, Claim
from penstock_service.app.asking import Asking, Lookup
from penstock_service.app.badrows import BadRows
from penstock_service.app.losses import Losses
from penstock_service.app.mixers import Mixers
from penstock_service.app.position import begin, carried_plan, check_start, read_cursor
from penstock_service.app.run import RunSegments, epoch_rows
from penstock_service.app.runs import Runs
from penstock_service.app.seeds import Seeds
from penstock_service.batch.columns import delivered
from penstock_service.batch.feed import StepFeed
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.placeholder import parse_placeholder
from penstock_service.batch.policy import Applied, OnError, Policy
from penstock_service.batch.view import Last, View
from penstock_service.core.channel import Counters
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.feed import News, Opening
from penstock_service.core.plan import PoolDefaults
from penstock_service.core.segment import ChunkSource, SegmentSource
from penstock_service.mix.overlap import shared_files
from penstock_service.mix.stream import Stream, settle

_log = logging.getLogger(__name__)


class Subscriptions:
    """Opens feeds."""

    def __init__(
        self,
        lookup: Lookup,
        mixers: Mixers,
        runs: Runs,
        chunks: ChunkSource,
        seeds: Seeds,
        defaults: PoolDefaults,
        step_bytes: int,
        python_modules: tuple[str, ...],
        counters: Counters,
        bad_rows: BadRows,
        opened: Callable[[DatasetVersion], str] = lambda dataset: "",
        room_for: Callable[[Stream], object] = lambda stream: None,
    ) -> None:
        """`step_bytes`: the most that one step of one rank may have; `python_modules`: those that streams may run;
        `opened` is told what is read, and says what its user should know of it; `room_for` raises ResourceExhausted
        where memory is too short for a stream that nobody reads yet.
        """
        self._opened = opened
        self._step_bytes = step_bytes
        self._room_for = room_for
        self._asking = Asking(lookup, seeds, python_modules)
        self._agreement = Agreement()
        self._chunks = chunks
        self._defaults = defaults
        self._counters = counters
        self._bad_rows = bad_rows
        self._mixers = mixers
        self._runs = runs

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
        on_error = cast(OnError, request.view.on_error or "fail")
        Policy(on_error)  # a word that is none is told first of all
        notes: list[str] = []
        cursor = read_cursor(request.cursor)
        wish = await self._asking.wish(request, cursor, notes)
        stream = await settle(wish, self._chunks, self._defaults, carried_plan(cursor))
        notes.extend(await asyncio.to_thread(shared_files, stream.sources))
        notes.extend(stream.readings())
        self._check_step(view, stream)
        if not request.reopened and not looking:
            self._room_for(stream)
        at = begin(request, stream, view, cursor, notes)
        schema = delivered(stream.sources[0].schema, list(request.view.columns), request.view.text)
        policy = Policy(on_error, await asyncio.to_thread(parse_placeholder, request.view.placeholder, schema))
        with ExitStack() as failed:  # what was taken is let go of if the rest is refused
            run: RunSegments | None = None
            ticket: int | None = None
            segments: SegmentSource
            if looking:
                journal = await self._runs.look(at, request.branch)
                segments = mixer = await self._mixers.aside(stream.under(journal))
                failed.callback(mixer.rest)
                rows = epoch_rows(mixer, stream.under(journal), at.epoch)
            else:
                run, ticket = await self._join(request, view, stream, at, failed)
                segments = run
                rows = run.epoch_rows()
            if at.segment >= segments.segments(at.epoch):
                raise InvalidRequest(
                    f"the state is in segment {at.segment}, but an epoch of this stream has "
                    f"{segments.segments(at.epoch)}"
                )
            for source in stream.sources:
                failed.callback(self._chunks.hold(source).release)
            if not looking:
                notes.extend(note for source in stream.sources if (note := self._opened(source)))
            held = failed.pop_all()
        fetch = Fetch(segments, self._chunks, schema, request.view.row_ids, policy.placeholder)
        known, at = at, at if run is None else replace(at, run=run.run.journal.carried())
        if run is None:
            applied = Applied(policy, segments, self._chunks)
        else:
            hears = self._bad_rows.hears_of(request.job, request.name, on_error, run)
            applied = Applied(policy, run, self._chunks, hears, run.cuts, run.leaves_out)
            if on_error != "fail":
                run.losing = Losses(self._runs, run, applied, hears).lost
        feed = StepFeed(segments, fetch, view, at, self._counters, stream.row_bytes, applied, known)
        rows = None if policy.leaves_out else rows
        if run is not None:
            run.reaches, run.global_batch = feed.reaches, view.global_batch
            _tell(request.name, stream, notes)
        return Opening(
            feed=feed,
            schema=fetch.schema,
            fingerprint=stream.fingerprint(),
            plan=stream.plan.to_json(),
            cursor=at,
            rows=rows,
            steps=None if rows is None else view.steps_of(rows),
            seed=stream.seed,
            datasets=tuple(s.reference for s in stream.sources),
            step_bytes=view.rows * stream.row_bytes,
            notes=tuple(notes),
            close=held.close,
            started=lambda start: self._started(request, ticket, start),
            news=lambda: None if run is None else _news(run, view, policy),
            listen=lambda listener: None if run is None else run.listen(listener),
        )

    def _started(self, request: pb.Open, ticket: int | None, start: str) -> None:
        if ticket is not None:
            self._agreement.started(request.job, request.name, ticket, check_start(start))

    def _check_step(self, view: View, stream: Stream) -> None:
        """One step of one rank is made in memory at once: it must fit there."""
        size = view.rows * stream.row_bytes
        if size > self._step_bytes:
            raise InvalidRequest(
                f"a step of {view.rows} rows of {stream.row_bytes:.0f} bytes needs {size / 1e9:.1f} GB at each rank; "
                f"this server makes steps up to {self._step_bytes / 1e9:.1f} GB (a quarter of --memory): at most "
                f"{max(1, int(self._step_bytes / stream.row_bytes))} rows per rank"
            )

    async def _join(
        self, request: pb.Open, view: View, stream: Stream, at: Cursor, held: ExitStack
    ) -> tuple[RunSegments, int]:
        """The segments of the request's run, and its ticket among the ranks; both are let go of with `held`."""
        segments = await self._runs.join(
            *(request.job, request.name, stream, at, request.branch, view.rank, view.world_size)
        )
        held.callback(self._runs.leave, segments)
        run = segments.run.id if at.run else None  # who has no state takes the run that there is
        claim = _claim(request, view, stream, at, run)
        ticket = self._agreement.join(request.job, request.name, claim)
        held.callback(self._agreement.leave, request.job, request.name, ticket)
        return segments, ticket


def _news(segments: RunSegments, view: View, policy: Policy) -> News | None:
    news = segments.news()
    if news is None or news.rows is None:
        return news
    return news._replace(rows=None) if policy.leaves_out else news._replace(steps=view.steps_of(news.rows))


def _tell(name: str, stream: Stream, notes: list[str]) -> None:
    for note in notes:
        _log.warning("stream %s: %s", name, note)
    _log.info(
        "stream %s: pool of %d rows, %d leave at a time, up to %d cycles; seed %d",
        *(name, stream.plan.pool_rows, stream.plan.drain, stream.plan.cycles, stream.seed),
    )


def _claim(request: pb.Open, view: View, stream: Stream, at: Cursor, run: str | None) -> Claim:
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
            ("run (branch=True on all ranks, or on none)", run),
        ),
    )
