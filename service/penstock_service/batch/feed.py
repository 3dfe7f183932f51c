"""The steps of one rank, bundle by bundle: walks the segments, cuts steps by the view, gathers their rows."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import until_next
from penstock_service.batch.explain import Reached, explain
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.pick import pick
from penstock_service.batch.policy import Applied
from penstock_service.batch.view import View
from penstock_service.batch.walk import Walk
from penstock_service.core.channel import Counters
from penstock_service.core.errors import CHUNK_FAULTS, DataError, InvalidRequest, ServiceError, SourceUnreadable
from penstock_service.core.feed import Bundle, EpochEnd, Memory, ordinary
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
        self._walk = Walk(segments, view, at, policy, resumed)
        self.reaches = self._walk.reaches
        self._padded = self._repeated = 0
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
        await self._walk.pass_over(progress)
        await self._walk.hold(self._view.global_batch, progress)
        self._waited = time.perf_counter() - started
        wanted = max(1, min(steps, int(size / max(1.0, self._view.rows * self._row_bytes))))
        wanted = min(wanted, until_next(self._view.skip, self._walk.epoch, self._walk.step) or wanted)
        await self._walk.hold_ready(wanted * self._view.global_batch)
        left = self._walk.left()
        if left == 0:
            return self._end_epoch()
        full = min(wanted, left // self._view.global_batch)
        if full:
            return await self._full_steps(self._before_bad(full))
        return await self._last_step(left, progress)

    async def explain(self, step: int, all_ranks: bool) -> pa.RecordBatch:
        """See `core.feed.Feed`."""
        self._view = self._walk.view = replace(self._view, skip=((self._walk.epoch, self._walk.step, step),))
        await self._walk.pass_over(None)
        await self._walk.hold(self._view.global_batch, None)
        left = self._walk.left()
        short = left < self._view.global_batch
        if self._walk.step < step or left == 0 or (short and self._view.last == "drop"):
            raise InvalidRequest(
                f"there is no step {step}: epoch {self._walk.epoch} has {self._walk.step} steps, from 0 on"
            )
        head = await self._walk.head(left, None) if short and self._view.last == "wrap" else []
        ranks = range(self._view.world_size) if all_ranks else (self._view.rank,)
        reached = Reached(self._walk.held, self._walk.taken, left, head)
        return await asyncio.to_thread(explain, self._view, ranks, reached, self._segments.by_source)

    def _before_bad(self, steps: int) -> int:
        """How many of the next `steps` full steps hold no row that is an error; raises if the first does."""
        bad = self._first_bad(steps * self._view.global_batch)
        return steps if bad is None else bad // self._view.global_batch

    def _first_bad(self, units: int) -> int | None:
        """Where among the next `units` units the first bad one is, if not in the first step; raises if it is."""
        before = -self._walk.taken
        for segment in self._walk.held:
            first = int(np.searchsorted(segment.bad.unit, -before))
            if first < len(segment.bad):
                at = before + int(segment.bad.unit[first])
                if at < min(units, self._view.global_batch):
                    ((where, reason),) = segment.bad.take(np.array([first])).reasons(self._segments.by_source)
                    raise DataError(
                        f"{where}: {reason.removesuffix('.')}. It would have come in step {self._walk.step}"
                        f"{_cures(self._policy)}"
                    )
                return at if at < units else None
            before += segment.units
        return None

    # -- steps --------------------------------------------------------------------------------------------------

    async def _full_steps(self, steps: int) -> Bundle:
        units = self._view.full_steps(self._walk.taken, steps)
        try:
            return await self._bundle(units, steps, steps * self._view.global_batch)
        except CHUNK_FAULTS as fault:
            if steps > 1:  # those before it come first
                return await self._full_steps(1)
            raise self._lost(fault) from fault

    async def _last_step(self, left: int, progress: Progress | None) -> Bundle | EpochEnd:
        self._first_bad(left)
        head = await self._walk.head(left, progress) if self._view.last == "wrap" else []
        last = self._view.last_step(left, sum(s.units for s in head) or left)
        if last is None:
            self._walk.dropped = left
            self._walk.taken += left
            return self._end_epoch()
        self._padded, self._repeated = last.padded, last.repeated
        differing = {"last_rows": len(last.units), "last_units": left}
        if last.valid is not None:
            differing["last_valid"] = last.valid
        try:
            return await self._bundle(last.units + self._walk.taken, 1, left, head, **differing)
        except CHUNK_FAULTS as fault:
            raise self._lost(fault, head) from fault

    def _why(self) -> str:
        """What leaves rows out of this epoch, as far as is known."""
        if self._policy is None:
            return ""
        bad = f"on_error={self._policy.on_error!r} ({self._walk.skipped} bad rows; `penstock bad-rows` lists them)"
        others = self._policy.others() if self._walk.skipped < self._segments.rows(self._walk.epoch) else ()
        causes = [*others, *([bad] if self._walk.skipped else [])]
        return f" by {' and by '.join(causes)}" if causes else ""

    def _lost(self, fault: ServiceError, head: Sequence[Segment] = ()) -> ServiceError:
        """The error of a chunk that was evicted and cannot be made again, though the segment was whole when built.

        This session has begun with the segment; for whoever comes next it is made anew, without that chunk.
        """
        for segment in (*self._walk.held, *head):
            self._segments.forget(self._walk.epoch, segment.number)
        said = str(fault).removesuffix(".")
        if self._policy is None or self._policy.on_error == "fail":
            return DataError(f"{said}. Its row would have come in step {self._walk.step}{_cures(self._policy)}")
        return SourceUnreadable(
            f"{said}. Its row comes in step {self._walk.step}, in a segment that was begun with it: it cannot be left "
            "out of that. Make the data readable again; the stream goes on where it is"
        )

    async def _bundle(
        self, units: I64, steps: int, taken: int, head: Sequence[Segment] = (), **differing: int
    ) -> Bundle:
        """`units` count from the first unit of the first segment held; those of `head` follow."""
        started = time.perf_counter()
        picked = pick([*self._walk.held, *head], units)
        absent = {c: rows for segment in (*self._walk.held, *head) for c, rows in segment.absent.items()}
        body, rows_by_dataset = await self._fetch.rows(picked, absent, self._memory)
        seconds = time.perf_counter() - started
        self._counters.add("gather_seconds", seconds)
        self._row_bytes = max(1.0, body.size / max(1, len(units)))
        bundle = Bundle(
            epoch=self._walk.epoch,
            first_step=self._walk.step,
            steps=steps,
            segment=self._walk.held[0].number,
            taken=self._walk.taken,
            spans=self._walk.spans(taken),
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
        self._walk.take(taken, steps)
        return replace(bundle, ends_epoch=await self._walk.ends())

    def _end_epoch(self) -> EpochEnd:
        end = EpochEnd(
            self._walk.epoch,
            self._walk.step,
            self._walk.dropped,
            self._padded,
            self._repeated,
            self._segments.unread(self._walk.epoch),
            self._walk.skipped,
            self._walk.substituted,
        )
        if self._walk.step == 0 and not self._walk.dropped:
            raise InvalidRequest(
                f"no row is left of the {self._segments.rows(self._walk.epoch)} that an epoch reads: all of them are "
                f"left out{self._why()}"
            )
        if self._walk.step == 0:
            raise InvalidRequest(
                f"an epoch has {self._walk.dropped} rows, fewer than global_batch_size={self._view.global_batch}, and "
                "last='drop' drops them all: there is no step; take a smaller batch, or last='short'"
            )
        self._walk.next_epoch()
        self._padded = self._repeated = 0
        return end


def _cures(policy: Applied | None) -> str:
    if policy is None or policy.on_error != "fail":
        return ""
    return "; on_error='skip', 'substitute' or 'quarantine' goes on without it"
