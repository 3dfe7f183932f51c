"""The steps of one rank, bundle by bundle: walks the segments, cuts steps by the view, gathers their rows."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import skipped_from, until_next
from penstock_service.batch.explain import Reached, explain
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.pick import pick
from penstock_service.batch.policy import Applied, unit_of, units_left
from penstock_service.batch.view import View
from penstock_service.core.channel import Counters
from penstock_service.core.chunk import no_rows
from penstock_service.core.errors import CHUNK_FAULTS, DataError, InvalidRequest, ServiceError, SourceUnreadable
from penstock_service.core.feed import Bundle, EpochEnd, Memory, Span, ordinary
from penstock_service.core.segment import Progress, Segment, SegmentSource

I64 = npt.NDArray[np.int64]


class StepFeed:
    """Feed of one rank. Belongs to the event loop; gathering runs in a thread."""

    def __init__(
        self,
        segments: SegmentSource,
        fetch: Fetch,
        view: View,
        at: Cursor,
        counters: Counters,
        row_bytes: float = 64.0,
        policy: Applied | None = None,
        resumed: Cursor | None = None,
    ) -> None:
        """`resumed`: `at` as it was brought, where the journal that it knew may be shorter.

        `row_bytes`: about how many bytes a row has, for the first bundle; later ones go by what was gathered.
        """
        self._segments = segments
        self._policy = policy
        self._fetch = fetch
        self._view = view
        self._counters = counters
        self._epoch, self._step = at.epoch, at.step
        self._next_segment = at.segment  # the first one not held
        self._taken = at.taken  # of the first one held
        self._resumed = (resumed or at) if at.taken else None
        self._held: list[Segment] = []
        self._to_skip = 0  # units of a skipped range that are still to be passed over, and how many it has
        self._skip_units = 0
        self._padded = self._repeated = self._dropped = 0
        self._skipped = self._substituted = 0  # bad rows of the segments held in this epoch
        self._waited = 0.0  # for the rows of the bundle being made
        self._row_bytes = max(1.0, row_bytes)
        self._memory: Memory = ordinary  # for the bundle being made

    async def next(
        self, steps: int, size: int, progress: Progress | None = None, memory: Memory = ordinary
    ) -> Bundle | EpochEnd:
        """See `core.feed.Feed`.

        Raises:
            DataError: the next step holds a row that is none; nothing after it can be had.
            OrderChanged: the segment that the position lies in is not the one it was taken in.
        """
        self._memory = memory
        started = time.perf_counter()
        await self._pass_over(progress)
        await self._hold(self._view.global_batch, progress)
        self._waited = time.perf_counter() - started
        wanted = max(1, min(steps, int(size / max(1.0, self._view.rows * self._row_bytes))))
        wanted = min(wanted, until_next(self._view.skip, self._epoch, self._step) or wanted)
        await self._hold_ready(wanted * self._view.global_batch)
        left = self._left()
        if left == 0:
            return self._end_epoch()
        full = min(wanted, left // self._view.global_batch)
        if full:
            return await self._full_steps(self._before_bad(full))
        return await self._last_step(left, progress)

    def reaches(self, epoch: int, segment: int, rows: int) -> tuple[int, bool]:
        """The step of `epoch` that the first unit of a segment not held comes in, and whether that is certain.

        Args:
            rows: about how many a segment has, for those in between.
        """
        if epoch != self._epoch:
            return 0, segment == 0
        between = segment - self._next_segment
        units = max(0, self._left() + between * rows)
        return self._step + units // self._view.global_batch, between == 0

    async def explain(self, step: int, all_ranks: bool) -> pa.RecordBatch:
        """See `core.feed.Feed`."""
        self._view = replace(self._view, skip=((self._epoch, self._step, step),))
        await self._pass_over(None)
        await self._hold(self._view.global_batch, None)
        left = self._left()
        short = left < self._view.global_batch
        if self._step < step or left == 0 or (short and self._view.last == "drop"):
            raise InvalidRequest(f"there is no step {step}: epoch {self._epoch} has {self._step} steps, from 0 on")
        head = await self._head(left, None) if short and self._view.last == "wrap" else []
        ranks = range(self._view.world_size) if all_ranks else (self._view.rank,)
        reached = Reached(self._held, self._taken, left, head)
        return await asyncio.to_thread(explain, self._view, ranks, reached, self._segments.by_source)

    # -- walking ------------------------------------------------------------------------------------------------

    def _left(self) -> int:
        return sum(s.units for s in self._held) - self._taken

    async def _pass_over(self, progress: Progress | None) -> bool:
        """Take the skipped steps that come next, without their rows; were there any? After an error it goes on."""
        passed = False
        while self._to_skip or (steps := skipped_from(self._view.skip, self._epoch, self._step)):
            if not self._to_skip:
                self._to_skip = self._skip_units = steps * self._view.global_batch
            passed, ended = True, await self._take(progress)
            taken, self._to_skip = self._skip_units - self._to_skip, 0
            full, rest = divmod(taken, self._view.global_batch)
            self._step += full
            if rest and self._view.last == "drop":
                self._dropped = rest
            elif rest:
                self._step += 1  # the last step of the epoch
            if ended:
                break
        return passed

    async def _take(self, progress: Progress | None) -> bool:
        """Take `_to_skip` units, or as many as the epoch has left: then True. What can be counted is not made."""
        while (left := self._left()) < self._to_skip:
            if self._next_segment >= self._segments.segments(self._epoch):
                self._taken += left
                self._to_skip -= left
                return True
            # The segment that a cursor lies in is made nevertheless: it may not be what it was.
            units = None if self._resumed else await self._count(self._next_segment)
            if units is None or left + units > self._to_skip:
                await self._hold_next(progress)
                continue
            self._to_skip -= left + units
            self._held, self._taken, self._next_segment = [], 0, self._next_segment + 1
        self._taken += self._to_skip
        self._to_skip = 0
        self._drop_exhausted()
        return False

    async def _count(self, number: int) -> int | None:
        """How many units a segment has; None where that is known only when it is made."""
        if self._policy is not None and not self._policy.counts_all(self._epoch, number):
            return None
        return await self._segments.units(self._epoch, number)

    async def _hold(self, units: int, progress: Progress | None) -> None:
        """Hold segments until `units` units are left, or the epoch ends."""
        self._drop_exhausted()
        while self._left() < units and self._next_segment < self._segments.segments(self._epoch):
            await self._hold_next(progress)

    async def _hold_ready(self, units: int) -> None:
        """Hold what is there without waiting: a bundle leaves rather than waits for the next segment."""
        while (
            self._left() < units
            and self._next_segment < self._segments.segments(self._epoch)
            and self._segments.ready(self._epoch, self._next_segment)
        ):
            await self._hold_next(None)

    async def _hold_next(self, progress: Progress | None) -> None:
        number = self._next_segment
        built = await self._segments.segment(self._epoch, number, progress)
        self._segments.look_ahead(self._epoch, number)
        segment = await self._apply(built)
        begin = self._find_place(built, segment)
        self._skipped += int(np.sum(segment.left_out >= begin))
        self._substituted += int(np.sum(segment.stand_ins.unit >= units_left(begin, segment.left_out)))
        self._held.append(segment)
        self._next_segment += 1
        self._drop_exhausted()

    async def _apply(self, built: Segment) -> Segment:
        return built if self._policy is None else await self._policy.apply(self._epoch, built)

    def _find_place(self, built: Segment, segment: Segment) -> int:
        """After a seek: is this the segment the cursor was taken in? Where in it as built we begin.

        The cursor counted units under its own policy; from here on they are counted under this one.
        """
        if self._resumed is None:
            return 0
        at, self._resumed = self._resumed, None
        begin = unit_of(at, built, no_rows()) if self._policy is None else self._policy.unit_of(at, built)
        self._taken = units_left(begin, segment.left_out)
        return begin

    def _drop_exhausted(self) -> None:
        while self._held and self._taken >= self._held[0].units:
            # The last segment of an epoch stays: it says where the epoch's end is.
            if len(self._held) == 1 and self._next_segment >= self._segments.segments(self._epoch):
                return
            self._taken -= self._held.pop(0).units

    def _before_bad(self, steps: int) -> int:
        """How many of the next `steps` full steps hold no row that is an error; raises if the first does."""
        bad = self._first_bad(steps * self._view.global_batch)
        return steps if bad is None else bad // self._view.global_batch

    def _first_bad(self, units: int) -> int | None:
        """Where among the next `units` units the first bad one is, if not in the first step; raises if it is."""
        before = -self._taken
        for segment in self._held:
            first = int(np.searchsorted(segment.bad.unit, -before))
            if first < len(segment.bad):
                at = before + int(segment.bad.unit[first])
                if at < min(units, self._view.global_batch):
                    ((where, reason),) = segment.bad.take(np.array([first])).reasons()
                    raise DataError(f"{where}: {reason}. It would have come in step {self._step}{_cures(self._policy)}")
                return at if at < units else None
            before += segment.units
        return None

    # -- steps --------------------------------------------------------------------------------------------------

    async def _full_steps(self, steps: int) -> Bundle:
        units = self._view.full_steps(self._taken, steps)
        try:
            return await self._bundle(units, steps, steps * self._view.global_batch)
        except CHUNK_FAULTS as fault:
            if steps > 1:  # those before it come first
                return await self._full_steps(1)
            raise self._lost(fault) from fault

    async def _last_step(self, left: int, progress: Progress | None) -> Bundle | EpochEnd:
        self._first_bad(left)
        head = await self._head(left, progress) if self._view.last == "wrap" else []
        last = self._view.last_step(left, sum(s.units for s in head) or left)
        if last is None:
            self._dropped = left
            self._taken += left
            return self._end_epoch()
        self._padded, self._repeated = last.padded, last.repeated
        differing = {"last_rows": len(last.units), "last_units": left}
        if last.valid is not None:
            differing["last_valid"] = last.valid
        try:
            return await self._bundle(last.units + self._taken, 1, left, head, **differing)
        except CHUNK_FAULTS as fault:
            raise self._lost(fault) from fault

    def _lost(self, fault: ServiceError) -> ServiceError:
        """The error of a chunk that was evicted and cannot be made again, though the segment was whole when built."""
        if self._policy is None or self._policy.on_error == "fail":
            return DataError(f"{fault}. Its row would have come in step {self._step}{_cures(self._policy)}")
        return SourceUnreadable(
            f"{fault}. Its row comes in step {self._step}, in a segment that was begun with it: it cannot be left out "
            "of that. Make the data readable again; the stream goes on where it is"
        )

    async def _head(self, left: int, progress: Progress | None) -> list[Segment]:
        """The epoch's first segments, enough to fill the last step up with."""
        head: list[Segment] = []
        wanted = self._view.global_batch - left
        for number in range(self._segments.segments(self._epoch)):
            head.append(await self._apply(await self._segments.segment(self._epoch, number, progress)))
            if sum(s.units for s in head) >= wanted:
                break
        return head

    async def _bundle(
        self, units: I64, steps: int, taken: int, head: Sequence[Segment] = (), **differing: int
    ) -> Bundle:
        """`units` count from the first unit of the first segment held; those of `head` follow."""
        started = time.perf_counter()
        picked = pick([*self._held, *head], units)
        absent = {c: rows for segment in (*self._held, *head) for c, rows in segment.absent.items()}
        body, rows_by_dataset = await self._fetch.rows(picked, absent, self._memory)
        seconds = time.perf_counter() - started
        self._counters.add("gather_seconds", seconds)
        self._row_bytes = max(1.0, body.size / max(1, len(units)))
        bundle = Bundle(
            epoch=self._epoch,
            first_step=self._step,
            steps=steps,
            segment=self._held[0].number,
            taken=self._taken,
            spans=self._spans(taken),
            rows=self._view.rows,
            units=self._view.global_batch,
            body=body,
            rows_by_dataset=rows_by_dataset,
            rows_wait_seconds=self._waited,
            gather_seconds=seconds,
            substituted=tuple(picked.stand_ins.tolist()),
            ends_epoch=False,  # told below
            **differing,
        )
        self._taken += taken
        self._step += steps
        self._drop_exhausted()
        return replace(bundle, ends_epoch=await self._ends())

    async def _ends(self) -> bool:
        """Does no step of this epoch follow? Steps that are skipped next are passed over to find out."""
        try:
            passed = await self._pass_over(None)
            while passed and self._left() == 0 and self._next_segment < self._segments.segments(self._epoch):
                if await self._count(self._next_segment) != 0:
                    return False
                self._next_segment += 1  # the last segments of an epoch may be empty
        except ServiceError:
            return False  # raised again when the next step is asked for; the steps before it are good
        left = self._left()
        last = self._next_segment >= self._segments.segments(self._epoch)
        return last and (left == 0 or (left < self._view.global_batch and self._view.last == "drop"))

    def _spans(self, units: int) -> tuple[Span, ...]:
        spans, before = [], self._taken
        for segment in self._held:
            here = min(units, segment.units - before)
            if here:
                spans.append(Span(segment.number, here, segment.digest))
            units, before = units - here, 0
            if not units:
                break
        return tuple(spans)

    def _end_epoch(self) -> EpochEnd:
        end = EpochEnd(
            self._epoch,
            self._step,
            self._dropped,
            self._padded,
            self._repeated,
            self._segments.unread(self._epoch),
            self._skipped,
            self._substituted,
        )
        if self._step == 0 and not self._dropped:
            bad = f", {self._skipped} of them as bad rows (on_error='{self._policy.on_error}')" if self._policy else ""
            raise InvalidRequest(
                f"no row is left of the {self._segments.rows(self._epoch)} that an epoch reads: all of them are left "
                f"out by filters{bad if self._skipped else ''}"
            )
        if self._step == 0:
            raise InvalidRequest(
                f"an epoch has {self._dropped} rows, fewer than global_batch_size={self._view.global_batch}, and "
                "last='drop' drops them all: there is no step; take a smaller batch, or last='short'"
            )
        self._epoch, self._step, self._next_segment, self._taken = self._epoch + 1, 0, 0, 0
        self._held = []
        self._dropped = self._padded = self._repeated = self._skipped = self._substituted = 0
        return end


def _cures(policy: Applied | None) -> str:
    if policy is None or policy.on_error != "fail":
        return ""
    return "; on_error='skip', 'substitute' or 'quarantine' goes on without it"
