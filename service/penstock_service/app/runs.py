"""Runs: which one an Open belongs to, and how their journals grow."""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from penstock_proto.v1.cursor import Cursor
from penstock_service.app.journal import Journals, Passing
from penstock_service.app.mixers import Mixers
from penstock_service.app.run import Run, RunSegments
from penstock_service.core.errors import InvalidRequest, JournalConflict, NotFound, SourceUnreadable, Unavailable
from penstock_service.core.journal import Carried, Entry, Journal, Place, branched, reconcile
from penstock_service.core.run import Began, RunStatus, row_ranges
from penstock_service.mix.stream import Stream

T = TypeVar("T")

_RANKS_COME_WITHIN: Final = 30.0  # seconds that an unreadable chunk waits for ranks that are not connected

_log = logging.getLogger(__name__)


class Runs:
    """All runs that sessions of this server read. Belongs to the event loop."""

    def __init__(self, journals: Journals, mixers: Mixers, passing: Passing = lambda point: None) -> None:
        """`passing` is told of each point of a change as it is passed."""
        self._journals = journals
        self._mixers = mixers
        self._passing = passing
        self._live: dict[str, Run] = {}
        self._finding = asyncio.Lock()
        self._writing: set[asyncio.Task[Any]] = set()

    # -- opening ------------------------------------------------------------------------------------------------

    async def join(
        self, job: str, name: str, stream: Stream, at: Cursor, branch: bool, rank: int, world_size: int
    ) -> RunSegments:
        """The run that an Open belongs to, for one more session. `leave` is its pair.

        Raises:
            JournalConflict: the cursor's journal and that of its run have parted.
        """
        first = Place(at.epoch, at.segment + (at.taken > 0))
        async with self._finding:
            run = await self._find(job, name, Carried.of(at.run), branch, first)
            run.users += 1
            self._live[run.id] = run  # its last session may have left meanwhile
        try:
            async with run.growing:
                under = stream.under(run.journal)
                mixer = await self._mixers.take(under)
                reader = RunSegments(run, stream, mixer, first, rank, world_size, at if at.taken else None)
                run.readers.append(reader)
        except BaseException:
            self._release(run)
            raise
        async with run.joined:
            run.joined.notify_all()
        return reader

    def leave(self, reader: RunSegments) -> None:
        """May be called twice."""
        if reader in reader.run.readers:
            reader.run.readers.remove(reader)
            reader.let_go()
            self._mixers.leave(reader.under)
            self._release(reader.run)

    def _release(self, run: Run) -> None:
        run.users -= 1
        if run.users == 0:
            self._live.pop(run.id, None)

    async def _find(self, job: str, name: str, carried: Carried | None, branch: bool, first: Place) -> Run:
        if carried is None:
            # Entries are only written while all ranks are connected: who comes without a cursor after that begins anew.
            return self._joinable(job, name, None, 0) or self._begin(job, name, Journal(secrets.token_hex(8)))
        live = self._live.get(carried.run)
        known = live.journal if live is not None else await self._known(carried.run)
        if branch:
            return await self._branch(job, name, carried, known, first)
        if live is None and known is None and not carried.n:
            # Ranks that were cut off while another one came for the first time: nothing tells their runs apart.
            live = self._joinable(job, name, None, 0)
            if live is not None:
                return live
        journal = reconcile(carried, known, first)
        if live is not None:
            if journal != live.journal:
                await self._whole(self._adopt(live, journal))
            return live
        if journal != known and journal.entries:
            await self._whole(asyncio.to_thread(self._journals.write, job, name, journal))
        return self._begin(job, name, journal)

    async def _branch(self, job: str, name: str, carried: Carried, known: Journal | None, first: Place) -> Run:
        parent = (carried.run, carried.n, carried.head, first)
        run = self._joinable(job, name, parent, carried.n)
        if run is None:
            journal = branched(carried, known, secrets.token_hex(8))
            if journal.entries:
                await self._whole(asyncio.to_thread(self._journals.write, job, name, journal))
            _log.info("run %s branched off run %s with %d journal entries", journal.run, carried.run, carried.n)
            run = self._begin(job, name, journal, parent)
        return run

    def _joinable(self, job: str, name: str, parent: object, entries: int) -> Run | None:
        for run in reversed(self._live.values()):
            if (run.job, run.stream, run.parent, len(run.journal.entries)) == (job, name, parent, entries):
                return run
        return None

    def _begin(self, job: str, name: str, journal: Journal, parent: object = None) -> Run:
        run = self._live[journal.run] = Run(job, name, journal, parent)
        return run

    async def _known(self, run: str) -> Journal | None:
        kept = await asyncio.to_thread(self._journals.of, run)
        return kept.journal if kept is not None else None

    async def look(self, at: Cursor, branch: bool) -> Journal:
        """The journal that would hold for a session that begins at a cursor; nothing is written.

        Raises: as `join`.
        """
        carried = Carried.of(at.run)
        if carried is None:
            return Journal("")
        live = self._live.get(carried.run)
        known = live.journal if live is not None else await self._known(carried.run)
        if branch:
            return branched(carried, known, "")
        return reconcile(carried, known, Place(at.epoch, at.segment + (at.taken > 0)))

    # -- asking -------------------------------------------------------------------------------------------------

    async def all(self) -> list[RunStatus]:
        """Runs with sessions, and those with entries in the state folder."""
        kept = await asyncio.to_thread(self._journals.all)
        found = {one.journal.run: _status(one.job, one.stream, one.journal, None) for one in kept}
        found.update({run.id: _status(run.job, run.stream, run.journal, run) for run in self._live.values()})
        return list(found.values())

    async def one(self, run: str) -> RunStatus:
        """By its id, or as many of its first letters as tell it from others."""
        found = [status for status in await self.all() if status.run.startswith(run)]
        if not run or len(found) != 1:
            which = f"{len(found)} runs begin with {run!r}" if found and run else f"there is no run {run!r}"
            raise NotFound(f"{which}; `penstock runs` and GET /api/v1/runs list them")
        return found[0]

    # -- changing -----------------------------------------------------------------------------------------------

    async def set_mixture(self, run: str, weights: Mapping[str, float]) -> Began:
        """Other weights from the first chunk set on of which no rank holds a row.

        Raises:
            NotFound: no such run.
            InvalidRequest: weights that cannot be, ranks that are not connected, or a later entry after a rollback.
            Unavailable: it could not be written; nothing has changed.
        """
        found = await self._being_read(run)

        def entry() -> Entry:
            place = _first_free(found, "mixture")
            return Entry("mixture", place, {"weights": found.foremost.base.weights_of(weights)})

        return await self._change(found, entry)

    async def quarantine(self, run: str, dataset: str, rows: Sequence[int | str], reason: str = "") -> Began:
        """Leave rows of a dataset out, by their stored numbers, from the first segment on that no rank holds.

        Raises: as `set_mixture`.
        """
        found = await self._being_read(run)

        def entry() -> Entry:
            stream = found.foremost.base
            source = next((s for s in stream.sources if s.name == dataset.partition("@")[0]), None)
            if source is None:
                names = ", ".join(s.name for s in stream.sources)
                raise InvalidRequest(f"run {found.id} does not read a dataset {dataset!r}; it reads {names}")
            version = dataset.partition("@")[2].partition(":")[0]
            if not source.version.startswith(version):
                raise InvalidRequest(
                    f"run {found.id} reads {source.name}@{source.version}, not {dataset}: rows of one version may be "
                    f"others in another. Name it {source.name}, or with the version that is read"
                )
            ranges = row_ranges(rows, source.manifest.rows, source.name)
            what = {"rows": {source.name: ranges}, "reason": reason}
            return Entry("quarantine", _first_free(found, "quarantine"), what)

        return await self._change(found, entry)

    async def unreadable(
        self,
        reader: RunSegments,
        source: int,
        chunks: Sequence[int],
        reason: str,
        building: Place,
        unit_of: Callable[[Cursor], int] | None = None,
    ) -> None:
        """Leave the rows of chunks that cannot be read out, from the first segment on that no rank holds.

        Does nothing where the journal leaves them out already: another session met them first. Ask for the segment
        `building` again afterwards.

        Args:
            source: its number in the stream; `chunks`: their ordinals in the dataset.
            building: the segment that could not be made for want of them.
            unit_of: where in `building`, as it is built, a cursor stands. Ranks that resume there and hold none of it
                yet leave the rows out of its tail.

        Raises:
            SourceUnreadable: some rank already holds that segment, with their rows.
            Unavailable: not all ranks are connected, so that nobody knows what they hold.
        """
        run = reader.run
        dataset = reader.base.sources[source]
        start = dataset.manifest.chunk_start
        ranges = [(int(start[chunk]), int(start[chunk + 1])) for chunk in sorted(chunks)]
        await self._all_connected(run)

        def entry() -> Entry | None:
            if reader.hidden(building, source, ranges):
                return None
            place = _first_free(run, "unreadable")
            tail: dict[str, Any] = {}
            if place > building and unit_of is not None and all(_had_only_before(one, building) for one in run.readers):
                resumed = [one.resumed for one in run.readers if one.resumed is not None]
                there = [unit_of(at) for at in resumed if Place(at.epoch, at.segment) == building]
                tail = {"tail": [*building, max(there)]}
            elif place > building:
                raise SourceUnreadable(
                    f"{reason}. Its rows cannot be left out of {building}: a rank of run {run.id} already has rows of "
                    "that segment. Make the data readable again; the stream goes on where it is"
                )
            rows = row_ranges(
                [f"{first}-{behind - 1}" for first, behind in ranges], dataset.manifest.rows, dataset.name
            )
            return Entry("unreadable", place, {"rows": {dataset.name: rows}, "reason": reason, **tail})

        await self._whole(self._append(run, entry))

    async def _being_read(self, run: str) -> Run:
        status = await self.one(run)
        found = self._live.get(status.run)
        if found is None or not found.readers:
            raise InvalidRequest(
                f"no trainer reads run {status.run} (job {status.job!r}, stream {status.stream!r}) from this server "
                "now: start it, then ask again"
            )
        if found.missing:
            raise InvalidRequest(_not_connected(found))
        return found

    async def _all_connected(self, run: Run) -> None:
        """A session that failed for want of them would be one that is missing: so wait for them here."""
        try:
            async with asyncio.timeout(_RANKS_COME_WITHIN), run.joined:
                await run.joined.wait_for(lambda: not run.missing)
        except TimeoutError:
            raise Unavailable(_not_connected(run)) from None

    async def _change(self, run: Run, entry: Callable[[], Entry]) -> Began:
        began = await self._whole(self._append(run, entry))
        assert began is not None  # noqa: S101 - there was an entry
        return began

    async def _append(self, run: Run, entry: Callable[[], Entry | None]) -> Began | None:
        async with run.growing:
            if not run.readers or run.missing:
                raise InvalidRequest(_not_connected(run))
            made = entry()
            if made is None:
                return None
            await self._grow(run, run.journal.append(made), made.place)
            return _began(run, made)

    async def _adopt(self, run: Run, journal: Journal) -> None:
        """A cursor knows more than this server: its state folder was lost, or is an old one."""
        async with run.growing:
            new = journal.entries[len(run.journal.entries) :]
            if new and run.readers and min(e.place for e in new) < run.foremost.next:
                raise JournalConflict(
                    f"the state's journal of run {run.id} has {len(journal.entries)} entries (head {journal.head}), "
                    f"this server's has {len(run.journal.entries)} (head {run.journal.head}), and other ranks have "
                    f"read on without them up to {run.foremost.next}. Let all ranks resume from states of one step"
                )
            if new:
                await self._grow(run, journal, min(e.place for e in new))

    async def _grow(self, run: Run, journal: Journal, place: Place) -> None:
        """Nobody takes hold of `place` or what follows it until the entries are written, and then take effect."""
        run.close_from(place)
        taken = []
        try:
            for reader in list(run.readers):
                under = reader.base.under(journal)
                taken.append((reader, under, await self._mixers.take(under)))
            await asyncio.to_thread(self._journals.write, run.job, run.stream, journal)
            self._passing("before effect")
        except BaseException:
            for _, under, _ in taken:
                self._mixers.leave(under)
            raise
        else:
            run.journal = journal
            for reader, under, mixer in taken:
                reader.switch(under, mixer, self._mixers)
        finally:
            run.open_again()
        _log.info("run %s: %s from %s on", run.id, journal.entries[-1].kind, journal.entries[-1].place)
        self._passing("after effect")

    async def _whole(self, work: Awaitable[T]) -> T:
        """Work that is done to its end even if whoever asked for it goes away: nothing is left half done."""
        task = asyncio.ensure_future(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """What is being written is written."""
        await asyncio.gather(*self._writing, return_exceptions=True)


def _had_only_before(reader: RunSegments, place: Place) -> bool:
    """Was it given nothing of that segment or what follows, though its client has the first part of it?"""
    at = reader.resumed
    return reader.next <= place or (at is not None and Place(at.epoch, at.segment) == place)


def _first_free(run: Run, kind: str) -> Place:
    """The first place of which no rank holds a row and at which an entry of this kind can begin."""
    reader = run.foremost
    place = reader.next
    behind = reader.mixer.sets(place.epoch) if kind == "mixture" else reader.mixer.segments(place.epoch)
    return place if place.segment < behind else Place(place.epoch + 1, 0)


def _began(run: Run, entry: Entry) -> Began:
    reader, place = run.foremost, entry.place
    mixer, plan = reader.mixer, reader.base.plan
    step, known = reader.reaches(place.epoch, place.segment, plan.drain)
    complete = Place(place.epoch, place.segment + plan.cycles - 1)
    at = step + (plan.cycles - 1) * plan.drain // reader.global_batch
    if complete.segment >= mixer.segments(place.epoch):
        complete, at = Place(place.epoch + 1, 0), 0
    if place.segment == 0 or entry.kind != "mixture":
        complete, at = place, step
    return Began(
        run=run.id,
        n=len(run.journal.entries),
        head=run.journal.head,
        epoch=place.epoch,
        segment=place.segment,
        step=step,
        exact=known,
        complete_epoch=complete.epoch,
        complete_segment=complete.segment,
        complete_step=at,
        carried=json.dumps(run.journal.carried(), separators=(",", ":")),
    )


def _status(job: str, stream: str, journal: Journal, run: Run | None) -> RunStatus:
    place = run.foremost.next if run is not None and run.readers else None
    return RunStatus(
        run=journal.run,
        job=job,
        stream=stream,
        datasets=tuple(s.reference for s in run.foremost.base.sources) if run is not None and run.readers else (),
        world_size=run.world_size if run is not None else 0,
        ranks=tuple(run.ranks) if run is not None else (),
        epoch=place.epoch if place is not None else None,
        segment=place.segment if place is not None else None,
        head=journal.head,
        entries=tuple(entry.to_json() for entry in journal.entries),
    )


def _not_connected(run: Run) -> str:
    missing = ", ".join(map(str, run.missing)) or "all"
    return (
        f"run {run.id} is read by {run.world_size} ranks, and of ranks {missing} no session is open here: nobody can "
        "tell which rows they hold. Ask again when all of them have opened the stream (it opens with the first batch)"
    )
