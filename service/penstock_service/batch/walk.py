"""Where a feed is in the one global order: the segments it holds, what of them was taken, what is passed over."""

import numpy as np

from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import skipped_from
from penstock_service.batch.policy import Applied, unit_of, units_left
from penstock_service.batch.view import View
from penstock_service.core.chunk import no_rows
from penstock_service.core.errors import ServiceError
from penstock_service.core.feed import Span
from penstock_service.core.segment import Progress, Segment, SegmentSource


class Walk:
    """Walks the segments of one epoch after the other. Belongs to the event loop."""

    def __init__(
        self, segments: SegmentSource, view: View, at: Cursor, policy: Applied | None, resumed: Cursor | None
    ) -> None:
        """`resumed`: `at` as it was brought, where the journal that it knew may be shorter."""
        self.epoch, self.step = at.epoch, at.step
        self.taken = at.taken  # units of the first segment held
        self.held: list[Segment] = []
        self.dropped = 0  # rows of this epoch's end that are too few for a step
        self.skipped = self.substituted = 0  # bad rows of the segments held in this epoch
        self.view = view
        self._segments = segments
        self._policy = policy
        self._next_segment = at.segment  # the first one not held
        self._resumed = (resumed or at) if at.taken else None
        self._to_skip = 0  # units of a skipped range that are still to be passed over, and how many it has
        self._skip_units = 0

    def left(self) -> int:
        return sum(s.units for s in self.held) - self.taken

    async def pass_over(self, progress: Progress | None) -> bool:
        """Take the skipped steps that come next, without their rows; were there any? After an error it goes on."""
        passed = False
        while self._to_skip or (steps := skipped_from(self.view.skip, self.epoch, self.step)):
            if not self._to_skip:
                self._to_skip = self._skip_units = steps * self.view.global_batch
            passed, ended = True, await self._take(progress)
            taken, self._to_skip = self._skip_units - self._to_skip, 0
            full, rest = divmod(taken, self.view.global_batch)
            self.step += full
            if rest and self.view.last == "drop":
                self.dropped = rest
            elif rest:
                self.step += 1  # the last step of the epoch
            if ended:
                break
        return passed

    async def _take(self, progress: Progress | None) -> bool:
        """Take `_to_skip` units, or as many as the epoch has left: then True. What can be counted is not made."""
        while (left := self.left()) < self._to_skip:
            if self._next_segment >= self._segments.segments(self.epoch):
                self.taken += left
                self._to_skip -= left
                return True
            # The segment that a cursor lies in is made nevertheless: it may not be what it was.
            units = None if self._resumed else await self._count(self._next_segment)
            if units is None or left + units > self._to_skip:
                await self._hold_next(progress)
                continue
            self._to_skip -= left + units
            self.held, self.taken, self._next_segment = [], 0, self._next_segment + 1
        self.taken += self._to_skip
        self._to_skip = 0
        self._drop_exhausted()
        return False

    async def _count(self, number: int) -> int | None:
        """How many units a segment has; None where that is known only when it is made."""
        if self._policy is not None and not self._policy.counts_all(self.epoch, number):
            return None
        return await self._segments.units(self.epoch, number)

    async def hold(self, units: int, progress: Progress | None) -> None:
        """Hold segments until `units` units are left, or the epoch ends."""
        self._drop_exhausted()
        while self.left() < units and self._next_segment < self._segments.segments(self.epoch):
            await self._hold_next(progress)

    async def hold_ready(self, units: int) -> None:
        """Hold what is there without waiting: a bundle leaves rather than waits for the next segment."""
        while (
            self.left() < units
            and self._next_segment < self._segments.segments(self.epoch)
            and self._segments.ready(self.epoch, self._next_segment)
        ):
            await self._hold_next(None)

    async def _hold_next(self, progress: Progress | None) -> None:
        number = self._next_segment
        built = await self._segments.segment(self.epoch, number, progress)
        self._segments.look_ahead(self.epoch, number)
        segment = await self._apply(built)
        begin = self._find_place(built, segment)
        self.skipped += int(np.sum(segment.left_out >= begin))
        self.substituted += int(np.sum(segment.stand_ins.unit >= units_left(begin, segment.left_out)))
        self.held.append(segment)
        self._next_segment += 1
        self._drop_exhausted()

    async def _apply(self, built: Segment) -> Segment:
        return built if self._policy is None else await self._policy.apply(self.epoch, built)

    def _find_place(self, built: Segment, segment: Segment) -> int:
        """After a seek: is this the segment the cursor was taken in? Where in it as built we begin.

        The cursor counted units under its own policy; from here on they are counted under this one.
        """
        if self._resumed is None:
            return 0
        at, self._resumed = self._resumed, None
        begin = unit_of(at, built, no_rows()) if self._policy is None else self._policy.unit_of(at, built)
        self.taken = units_left(begin, segment.left_out)
        return begin

    def _drop_exhausted(self) -> None:
        while self.held and self.taken >= self.held[0].units:
            # The last segment of an epoch stays: it says where the epoch's end is.
            if len(self.held) == 1 and self._next_segment >= self._segments.segments(self.epoch):
                return
            self.taken -= self.held.pop(0).units

    async def head(self, left: int, progress: Progress | None) -> list[Segment]:
        """The epoch's first segments, enough to fill the last step up with."""
        head: list[Segment] = []
        wanted = self.view.global_batch - left
        for number in range(self._segments.segments(self.epoch)):
            head.append(await self._apply(await self._segments.segment(self.epoch, number, progress)))
            if sum(s.units for s in head) >= wanted:
                break
        return head

    async def ends(self) -> bool:
        """Does no step of this epoch follow? Steps that are skipped next are passed over to find out."""
        segments = self._segments.segments(self.epoch)
        least = self.view.global_batch if self.view.last == "drop" else 1  # units that make a step
        try:
            passed = await self.pass_over(None)
            left, number = self.left(), self._next_segment
            while passed and left < least and number < segments:
                units = await self._count(number)
                if units is None:
                    return False
                left, number = left + units, number + 1
        except ServiceError:
            return False  # raised again when the next step is asked for; the steps before it are good
        return number >= segments and left < least

    def spans(self, units: int) -> tuple[Span, ...]:
        spans, before = [], self.taken
        for segment in self.held:
            here = min(units, segment.units - before)
            if here:
                spans.append(Span(segment.number, here, segment.digest))
            units, before = units - here, 0
            if not units:
                break
        return tuple(spans)

    def reaches(self, epoch: int, segment: int, rows: int) -> tuple[int, bool]:
        """The step of `epoch` that the first unit of a segment not held comes in, and whether that is certain.

        Args:
            rows: about how many a segment has, for those in between.
        """
        if epoch != self.epoch:
            return 0, segment == 0
        between = segment - self._next_segment
        units = max(0, self.left() + between * rows)
        return self.step + units // self.view.global_batch, between == 0

    def take(self, units: int, steps: int) -> None:
        """They were made into steps."""
        self.taken += units
        self.step += steps
        self._drop_exhausted()

    def next_epoch(self) -> None:
        """To the start of the next epoch."""
        self.epoch, self.step, self._next_segment, self.taken = self.epoch + 1, 0, 0, 0
        self.held = []
        self.dropped = self.skipped = self.substituted = 0
