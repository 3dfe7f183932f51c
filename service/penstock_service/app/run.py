"""A run that is being read: its journal as it stands, and the sessions that read it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from penstock_proto.v1.cursor import Cursor
from penstock_service.app.mixers import Mixers
from penstock_service.core.errors import ServiceError
from penstock_service.core.feed import News
from penstock_service.core.journal import Journal, Place, mixtures
from penstock_service.core.segment import I64, Cut, Progress, Segment, SourceChunks
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.stream import Stream

Reaches = Callable[[int, int, int], tuple[int, bool]]
"""See `StepFeed.reaches`."""


class Run:
    """Belongs to the event loop. `users` counts sessions and those that are about to be one."""

    def __init__(self, job: str, stream: str, journal: Journal, parent: object = None) -> None:
        """`parent`: what it branched off."""
        self.job, self.stream, self.parent = job, stream, parent
        self.journal = journal
        self.readers: list[RunSegments] = []
        self.users = 0
        self.growing = asyncio.Lock()  # one entry at a time; nobody joins meanwhile
        self.joined = asyncio.Condition()
        self._closed_from: Place | None = None  # from here on nobody may take hold: an entry is being written
        self._opened = asyncio.Event()

    @property
    def id(self) -> str:
        return self.journal.run

    @property
    def foremost(self) -> "RunSegments":
        """The reader that is furthest; there must be one."""
        return max(self.readers, key=lambda reader: reader.next)

    @property
    def world_size(self) -> int:
        return self.readers[-1].world_size if self.readers else 0

    @property
    def ranks(self) -> list[int]:
        return sorted({reader.rank for reader in self.readers if reader.world_size == self.world_size})

    @property
    def missing(self) -> list[int]:
        """Ranks that have no session here."""
        return sorted(set(range(self.world_size)) - set(self.ranks))

    def close_from(self, place: Place) -> None:
        self._closed_from = place
        self._opened.clear()

    def open_again(self) -> None:
        self._closed_from = None
        self._opened.set()

    def is_open(self, place: Place) -> bool:
        return self._closed_from is None or place < self._closed_from

    async def opened(self, place: Place) -> None:
        while not self.is_open(place):
            await self._opened.wait()


def _nowhere(epoch: int, segment: int, rows: int) -> tuple[int, bool]:
    return 0, False


class RunSegments:
    """The segments of a run for one session: those of the run's order as its journal has it now.

    What changes lies ahead of every segment that any session of the run holds, so switching at once is safe.
    """

    def __init__(
        self,
        run: Run,
        base: Stream,
        mixer: Mixer,
        at: Place,
        rank: int,
        world_size: int,
        resumed: Cursor | None = None,
    ) -> None:
        """`base`: the stream without journal; `at`: the first segment of which the session's client had no row.

        `resumed`: where the session begins, if that is within a segment.
        """
        self.run, self.base, self.mixer = run, base, mixer
        self.rank, self.world_size = rank, world_size
        self.resumed = resumed  # until it holds that segment
        self.next = at  # no row from here on was given to this session
        self.under = base.under(run.journal)  # the stream that `mixer` mixes
        self.reaches: Reaches = _nowhere  # of the feed
        self.global_batch = 1
        self.losing: Callable[[Place, Segment], Awaitable[None]] | None = (
            None  # what is done about chunks that are lost
        )
        self._told = run.journal
        self._listener: Callable[[], None] | None = None

    def let_go(self) -> None:
        """The session has ended. Feed and session are let go of at once: they hold memory, and hold this in turn."""
        self.reaches, self.losing, self._listener = _nowhere, None, None

    # -- the order ----------------------------------------------------------------------------------------------

    def segments(self, epoch: int) -> int:
        return self.mixer.segments(epoch)

    def rows(self, epoch: int) -> int:
        return self.mixer.rows(epoch)

    def unread(self, epoch: int) -> int:
        return self.mixer.unread(epoch)

    def by_source(self, chunks: I64) -> list[SourceChunks]:
        return self.mixer.by_source(chunks)

    async def segment(self, epoch: int, number: int, progress: Progress | None = None) -> Segment:
        """Whoever gets a segment holds it: from then on the journal cannot change it."""
        place = Place(epoch, number)
        while True:
            await self.run.opened(place)
            mixer = self.mixer
            try:
                segment = await mixer.segment(epoch, number, progress)
            except ServiceError:
                if mixer is self.mixer:
                    raise
                continue  # the journal grew meanwhile: what failed may not be wanted any more
            if mixer is self.mixer and self.run.is_open(place):
                if self.losing is not None and self._uncut(place, segment):
                    await self.losing(place, segment)
                    continue  # the journal leaves out now what cannot be had
                self.resumed = None
                self.next = max(self.next, Place(epoch, number + 1))
                return segment

    async def units(self, epoch: int, number: int) -> int | None:
        """Whoever counts a segment without making it has passed it by, and holds it as well."""
        place = Place(epoch, number)
        while True:
            await self.run.opened(place)
            mixer = self.mixer
            units = await mixer.units(epoch, number)
            if mixer is self.mixer and self.run.is_open(place):
                if units is not None:
                    self.next = max(self.next, Place(epoch, number + 1))
                return units

    def ready(self, epoch: int, number: int) -> bool:
        return self.run.is_open(Place(epoch, number)) and self.mixer.ready(epoch, number)

    def look_ahead(self, epoch: int, number: int) -> None:
        self.mixer.look_ahead(epoch, number)

    def forget(self, epoch: int, number: int) -> None:
        self.mixer.forget(epoch, number)

    # -- the journal --------------------------------------------------------------------------------------------

    def switch(self, under: Stream, mixer: Mixer, mixers: Mixers) -> None:
        """The journal has grown; `mixer` was taken for this reader."""
        if self not in self.run.readers:  # it left meanwhile
            mixers.leave(under)
            return
        old, self.under, self.mixer = self.under, under, mixer
        mixers.leave(old)
        if self._listener is not None:
            self._listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """`listener` is called when there is news."""
        self._listener = listener

    def news(self) -> News | None:
        """What the client should know of the journal and was not told."""
        journal = self.run.journal
        if journal is self._told:
            return None
        self._told = journal
        rows = self.epoch_rows()
        return News(json.dumps(journal.carried(), separators=(",", ":")), rows)

    def epoch_rows(self) -> int | None:
        """Rows of a whole epoch, from this one on; None where that is not known, or not the same for all."""
        return epoch_rows(self.mixer, self.under, self.next.epoch)

    def cuts(self, epoch: int, segment: int, entries: int | None = None) -> list[Cut]:
        """What the journal (its first `entries`) leaves out of the tail of a segment."""
        names = {source.name: i for i, source in enumerate(self.base.sources)}
        return [
            Cut(names[name], ranges, entry.what["tail"][2])
            for entry in self.run.journal.entries[:entries]
            if entry.what.get("tail", [])[:2] == [epoch, segment]
            for name, ranges in entry.what["rows"].items()
            if name in names
        ]

    def leaves_out(self) -> list[str]:
        """What leaves rows out besides a policy, in words."""
        entries = [entry for entry in self.run.journal.entries if entry.kind != "mixture"]
        found = ["filters"] if self.base.may_drop else []
        if entries:
            more = f", and {len(entries) - 1} more entries" if len(entries) > 1 else ""
            found.append(f"the journal of the run ({entries[0].what.get('reason') or entries[0].kind}{more})")
        return found

    def _uncut(self, place: Place, segment: Segment) -> bool:
        """Does the segment lack chunks that the journal does not leave out of its tail?"""
        lost = segment.lost
        if not lost:
            return False
        cuts = self.cuts(*place)
        for part in self.by_source(np.array(lost, np.int64)):
            for start in part.dataset.manifest.chunk_start[part.own].tolist():
                if not any(c.source == part.source and any(a <= start < b for a, b in c.ranges) for c in cuts):
                    return True
        return False

    def hidden(self, place: Place, source: int, ranges: Sequence[tuple[int, int]]) -> bool:
        """Does the journal leave these rows of a source out there?"""
        cuts = [tuple(found) for c in self.cuts(*place) if c.source == source for found in c.ranges]
        if cuts and all(any(a <= first and behind <= b for a, b in cuts) for first, behind in ranges):
            return True
        masks = self.under.masks()
        return masks is not None and all(masks.hide(place, source, first, behind) for first, behind in ranges)


def epoch_rows(mixer: Mixer, stream: Stream, first: int) -> int | None:
    """Rows of a whole epoch, from epoch `first` on; None where that is not known, or not the same for all."""
    if stream.may_drop or any(entry.kind != "mixture" for entry in stream.entries):
        return None
    epochs = {first}
    for place, _ in mixtures(stream.entries):
        epochs |= {max(first, place.epoch), max(first, place.epoch + 1)}
    found = {mixer.rows(epoch) for epoch in epochs}
    return found.pop() if len(found) == 1 else None
