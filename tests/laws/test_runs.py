"""Laws of runs, without network or a clock: whatever is changed while ranks read, a replay gives what they got.

Ranks of one run read in a drawn order; mixtures are changed, rows quarantined and chunks given up in between. Then any
cursor of any rank is resumed, by the journal it carries or by the one on disk.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_proto.v1.cursor import Cursor
from penstock_service.app.journal import Journals
from penstock_service.app.mixers import Mixers
from penstock_service.app.run import RunSegments
from penstock_service.app.runs import Runs
from penstock_service.batch.feed import StepFeed
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.view import View
from penstock_service.core.channel import Counters
from penstock_service.core.errors import InvalidRequest, JournalConflict, SourceUnreadable
from penstock_service.core.feed import EpochEnd
from penstock_service.core.journal import Journal, Place
from penstock_service.core.plan import PlanConstants, Until
from penstock_service.mix.stream import Stream
from tests.laws.test_feeds import SCHEMA, InMemory, dataset

BATCH = 4
QUICK = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - every example syncs its journal


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    with asyncio.Runner() as runner:
        RUNNER.append(runner)
        yield
        RUNNER.clear()


RUNNER: list[asyncio.Runner] = []


@dataclass
class Reader:
    """One rank: the rows it got, step by step, and the cursor after each."""

    segments: RunSegments
    feed: StepFeed
    at: Cursor
    steps: list[tuple[int, int, list[int]]] = field(default_factory=list)  # epoch, step, rows
    cursors: list[Cursor] = field(default_factory=list)

    async def read(self, bundles: int) -> None:
        for _ in range(bundles):
            made = await self.feed.next(3, 1 << 30)
            if isinstance(made, EpochEnd):
                self.at = self.at.next_epoch()
                continue
            rows = pa.ipc.read_record_batch(made.body, SCHEMA)["id"].to_pylist()
            base, at, units = self.at, 0, 0
            for step in range(made.steps):
                last = step + 1 == made.steps
                count = made.last_rows if last and made.last_rows is not None else made.rows
                valid = made.last_valid if last and made.last_valid is not None else count
                self.steps.append((made.epoch, made.first_step + step, rows[at : at + valid]))
                at += count
                units += made.last_units if last and made.last_units is not None else made.units
                self.at = base.after(step + 1, units, made.spans, made.taken)
                self.cursors.append(replace(self.at, run=self.segments.run.journal.carried()))


@dataclass
class Server:
    """A state folder and the runs read there."""

    folder: Path
    stream: Stream
    chunks: InMemory = field(default_factory=InMemory)

    def __post_init__(self) -> None:
        self.journals = Journals(self.folder)
        self.runs = Runs(self.journals, Mixers(self.chunks, Counters()))

    async def open(
        self, rank: int, world: int, at: Cursor | None = None, branch: bool = False, job: str = "job"
    ) -> Reader:
        cursor = at or Cursor(0, 0, 0, 0, BATCH, self.stream.seed, 0)
        segments = await self.runs.join(job, "train", self.stream, cursor, branch, rank, world)
        view = View(BATCH, rank, world)
        feed = StepFeed(segments, Fetch(segments, self.chunks, SCHEMA, False), view, cursor, Counters())
        segments.reaches, segments.global_batch = feed.reaches, BATCH
        return Reader(segments, feed, cursor)

    def close(self) -> None:
        self.journals.close()


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    shards = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=5)
    sources = tuple(dataset(i, found) for i, found in enumerate(draw(st.lists(shards, min_size=2, max_size=3))))
    drain = draw(st.integers(4, 16))
    pool = draw(st.integers(drain, 4 * drain))
    plan = PlanConstants(
        pool, drain, draw(st.integers(2, 6)) if pool > drain else 1, draw(st.sampled_from(["ramp", "full"]))
    )
    until: Until = draw(st.sampled_from(["all", "first", "repeat"]))
    weights = draw(st.lists(st.integers(1, 5), min_size=len(sources), max_size=len(sources)))
    return Stream(sources, tuple(weights), draw(st.integers(0, 2**64 - 1)), True, plan, until, None)


@dataclass(frozen=True)
class Change:
    """What one change asks for. How far readers are ahead is a matter of time, so all is drawn before they begin."""

    kind: str
    weights: list[int]
    source: int
    row: int
    reader: int
    chunk: int


@st.composite
def changes(draw: st.DrawFn, stream: Stream, world: int) -> Change:
    least, sources = 1 if stream.until == "all" else 0, len(stream.sources)
    source = draw(st.integers(0, sources - 1))
    manifest = stream.sources[source].manifest
    return Change(
        draw(st.sampled_from(["mixture", "mixture", "quarantine", "unreadable"])),
        draw(st.lists(st.integers(least, 6), min_size=sources, max_size=sources).filter(any)),
        source,
        draw(st.integers(0, manifest.rows - 1)),
        draw(st.integers(0, world - 1)),
        draw(st.integers(0, manifest.chunks - 1)),
    )


async def apply(server: Server, readers: list[Reader], change: Change) -> None:
    run, sources = readers[0].segments.run.id, server.stream.sources
    source = sources[change.source]
    if change.kind == "mixture":
        await server.runs.set_mixture(run, {s.name: w for s, w in zip(sources, change.weights, strict=True)})
        return
    if change.kind == "quarantine":
        await server.runs.quarantine(run, source.name, [change.row])
        return
    reader = readers[change.reader]
    place = reader.segments.run.foremost.next
    if place.segment >= reader.segments.segments(place.epoch):
        place = Place(place.epoch + 1, 0)
    await server.runs.unreadable(reader.segments, change.source, [change.chunk], "torn", place)
    chunk = tuple(source.manifest.chunk_start[change.chunk : change.chunk + 2].tolist())
    assert reader.segments.hidden(place, change.source, [chunk])


async def empty(work: Callable[[], Any]) -> bool:
    """Did so much get left out that nothing is?"""
    try:
        await work()
    except InvalidRequest as error:
        assert "no row is left" in str(error)  # noqa: PT017
        return True
    return False


async def replayed(server: Server, readers: list[Reader]) -> Reader:
    """Where the run was changed no rank had read: put together, the ranks have one order, that of a replay by one."""
    run = readers[0].segments.run
    assert {reader.segments.run.id for reader in readers} == {run.id}
    n = min(len(reader.steps) for reader in readers)
    together = [
        (parts[0][0], parts[0][1], [row for part in parts for row in part[2]])
        for parts in zip(*(reader.steps[:n] for reader in readers), strict=True)
    ]
    start = Cursor(0, 0, 0, 0, BATCH, server.stream.seed, 0, run=run.journal.carried())
    again = await server.open(0, 1, start)
    while len(again.steps) < n:
        await again.read(1)
    assert again.steps[:n] == together
    return again


async def resume_anywhere(server: Server, lost: Path, who: Reader, cut: int) -> None:
    """A cursor gives the same tail after a restart; with the whole journal in it, where the state folder was lost."""
    journal, tail = who.segments.run.journal, who.steps[cut + 1 :]
    cursor = Cursor.from_json(who.cursors[cut].to_json())
    latest = replace(cursor, run=journal.carried())
    for folder, at in ((server.folder, cursor), (lost, latest)):
        if folder == lost and journal.entries and "entries" not in latest.run:
            continue
        after = Server(folder, server.stream, server.chunks)
        try:
            resumed = await after.open(who.segments.rank, who.segments.world_size, at)
            assert resumed.segments.run.journal == journal
            while len(resumed.steps) < len(tail):
                await resumed.read(1)
            assert resumed.steps[: len(tail)] == tail
            kept = after.journals.of(journal.run)
            assert (kept.journal if kept is not None else Journal(journal.run)) == journal
        finally:
            after.close()


@settings(deadline=None, max_examples=30)
@given(streams(), st.integers(1, 2), st.data())
def test_replay_equals_live(stream: Stream, world: int, data: st.DataObject) -> None:
    reads = st.lists(st.integers(0, 5), min_size=world, max_size=world)
    script = data.draw(st.lists(st.tuples(reads, changes(stream, world)), min_size=1, max_size=4))
    one, part = data.draw(st.integers(0, world - 1)), data.draw(st.floats(0, 1, exclude_max=True))

    async def check(server: Server, lost: Path) -> None:
        readers = [await server.open(rank, world) for rank in range(world)]
        for steps, change in script:
            for reader, n in zip(readers, steps, strict=True):
                if await empty(partial(reader.read, n)):
                    return
            await apply(server, readers, change)
        most = max(len(reader.steps) for reader in readers)
        for reader in readers:
            while len(reader.steps) < most + 3:
                if await empty(partial(reader.read, 1)):
                    return
        again = await replayed(server, readers)
        # Any cursor of any rank gives the same tail: here, and where the state folder was lost.
        who = readers[one]
        cut = int(part * len(who.cursors))
        for reader in (*readers, again):
            server.runs.leave(reader.segments)
        server.close()
        await resume_anywhere(server, lost, who, cut)

    with TemporaryDirectory(dir=QUICK) as folder, TemporaryDirectory(dir=QUICK) as lost:
        server = Server(Path(folder), stream)
        try:
            RUNNER[0].run(check(server, Path(lost)))
        finally:
            server.close()


@settings(deadline=None, max_examples=25)
@given(streams(), st.data())
def test_the_step_told_is_the_first_that_can_differ(stream: Stream, data: st.DataObject) -> None:
    async def check(server: Server) -> None:
        undisturbed = await server.open(0, 1)
        elsewhere = replace(undisturbed.at, run={"id": "other", "n": 0, "head": "79dade832b506b2a"})
        reader = await server.open(0, 1, elsewhere, job="another")
        await reader.read(data.draw(st.integers(0, 12)))
        sources = len(stream.sources)
        weights = data.draw(st.lists(st.integers(1, 6), min_size=sources, max_size=sources))
        began = await server.runs.set_mixture(
            "other", {s.name: w for s, w in zip(stream.sources, weights, strict=True)}
        )
        assert began.exact
        assert Place(began.epoch, began.segment) >= reader.segments.next
        while not reader.steps or reader.steps[-1][:2] < (began.epoch, began.step + 4):
            await reader.read(1)
            if reader.at.epoch > began.epoch:
                break
        while len(undisturbed.steps) < len(reader.steps):
            await undisturbed.read(1)
        for got, expected in zip(reader.steps, undisturbed.steps, strict=False):
            if got[:2] < (began.epoch, began.step):
                assert got == expected
        firsts = [c for c, s in zip(reader.cursors, reader.steps, strict=True) if s[:2] == (began.epoch, began.step)]
        for after in firsts:  # the step told ends in the segment told, or behind it: it has units of it
            assert Place(after.epoch, after.segment) >= Place(began.epoch, began.segment)

    with TemporaryDirectory(dir=QUICK) as folder:
        server = Server(Path(folder), stream)
        try:
            RUNNER[0].run(check(server))
        finally:
            server.close()


@settings(deadline=None, max_examples=20)
@given(streams(), st.lists(st.integers(0, 40), min_size=1, max_size=4), st.data())
def test_changes_made_while_ranks_read_at_the_same_time_are_met_by_all_at_one_row(
    stream: Stream, turns: list[int], data: st.DataObject
) -> None:
    async def check(server: Server) -> None:
        readers = [await server.open(rank, 2) for rank in range(2)]
        drawn = [data.draw(st.lists(st.integers(1, 6), min_size=3, max_size=3)) for _ in turns]

        async def changing() -> None:
            for turn, weights in zip(turns, drawn, strict=True):
                for _ in range(turn):
                    await asyncio.sleep(0)
                wanted = {s.name: w for s, w in zip(stream.sources, weights, strict=False)}
                await server.runs.set_mixture(readers[0].segments.run.id, wanted)

        await asyncio.gather(changing(), *(reader.read(10) for reader in readers))
        assert len(readers[0].segments.run.journal.entries) == len(turns)
        await replayed(server, readers)

    with TemporaryDirectory(dir=QUICK) as folder:
        server = Server(Path(folder), stream)
        try:
            RUNNER[0].run(check(server))
        finally:
            server.close()


def a_stream(until: Until = "all") -> Stream:
    sources = tuple(dataset(i, [[10, 10], [10, 10]]) for i in range(2))
    return Stream(sources, (1, 1), 5, True, PlanConstants(16, 4, 6, "ramp"), until, None)


def test_a_chunk_given_up_twice_is_one_entry_and_one_that_a_rank_holds_cannot_be(tmp_path: Path) -> None:
    async def check(server: Server) -> None:
        readers = [await server.open(rank, 2) for rank in range(2)]
        await readers[0].read(3)
        building = readers[0].segments.next
        ahead = Place(building.epoch, building.segment + 1)
        await asyncio.gather(*(server.runs.unreadable(r.segments, 1, [2], "torn", ahead) for r in readers))
        run = readers[0].segments.run
        assert [(e.kind, e.place, e.what) for e in run.journal.entries] == [
            ("unreadable", building, {"rows": {"1": [[20, 30]]}, "reason": "torn"})
        ]
        held = Place(building.epoch, building.segment - 1)
        with pytest.raises(SourceUnreadable, match=r"lost\. Its rows cannot be left out .* already has rows"):
            await server.runs.unreadable(readers[1].segments, 0, [0], "lost", held)
        assert len(run.journal.entries) == 1
        assert readers[1].segments.news() is not None
        assert readers[1].segments.news() is None

    RUNNER[0].run(check(Server(tmp_path, a_stream())))


def test_a_rank_that_was_cut_off_joins_one_that_came_first_meanwhile(tmp_path: Path) -> None:
    """A server killed while ranks connect: who comes back has a run already, who comes first begins one."""

    async def check(server: Server) -> None:
        early = await server.open(0, 2)
        saved = replace(Cursor(0, 0, 0, 0, BATCH, server.stream.seed, 0), run=early.segments.run.journal.carried())
        server.runs.leave(early.segments)
        late = await server.open(1, 2)
        assert late.segments.run.id != saved.run["id"]
        back = await server.open(0, 2, saved)
        assert back.segments.run is late.segments.run
        # Alone, or where its journal says something, it goes on in its own.
        for reader in (late, back):
            server.runs.leave(reader.segments)
        alone = await server.open(0, 1, saved)
        assert alone.segments.run.id == saved.run["id"]
        await server.runs.set_mixture(alone.segments.run.id, {"0": 1, "1": 5})
        server.runs.leave(alone.segments)
        late = await server.open(1, 2)
        again = await server.open(0, 2, saved)
        assert again.segments.run.id == saved.run["id"] != late.segments.run.id

    RUNNER[0].run(check(Server(tmp_path, a_stream())))


def test_ranks_branch_into_one_run_and_the_old_one_keeps_its_order(tmp_path: Path) -> None:
    async def check(server: Server) -> None:
        first = [await server.open(rank, 2) for rank in range(2)]
        for reader in first:
            await reader.read(2)
        saved = first[0].cursors[0]
        old = first[0].segments.run
        await server.runs.set_mixture(old.id, {"0": 1, "1": 5})
        for reader in first:
            await reader.read(8)
            server.runs.leave(reader.segments)
        back = [await server.open(rank, 2, saved) for rank in range(2)]
        assert [r.segments.run.journal for r in back] == [old.journal] * 2
        with pytest.raises(InvalidRequest, match=r"rolled back.*branch=True"):
            await server.runs.set_mixture(old.id, {"0": 5, "1": 1})
        for reader in back:
            await reader.read(8)
        n = len(back[0].steps)
        position = [s[:2] for s in first[0].steps].index(back[0].steps[0][:2])
        assert first[0].steps[position : position + n] == back[0].steps[: len(first[0].steps) - position]
        for reader in back:
            server.runs.leave(reader.segments)
        branched = [await server.open(rank, 2, saved, branch=True) for rank in range(2)]
        new = branched[0].segments.run
        assert branched[1].segments.run is new
        assert new.id != old.id
        assert new.journal.entries == ()
        await server.runs.set_mixture(new.id, {"0": 5, "1": 1})
        for reader in branched:
            await reader.read(8)
        assert branched[0].steps != back[0].steps
        latest = branched[0].cursors[-1]
        for reader in branched:
            server.runs.leave(reader.segments)
        # A third way from the same state: another run again.
        third = await server.open(0, 1, saved, branch=True)
        assert third.segments.run.id not in (old.id, new.id)
        # The two runs have parted: a cursor of one is none of the other.
        mixed = replace(latest, run={**latest.run, "id": old.id})
        with pytest.raises(JournalConflict, match=r"(?s)neither begins with the other.*branch=True"):
            await server.open(0, 1, mixed)
        kept = {status.run: len(status.entries) for status in await server.runs.all()}
        assert (kept[old.id], kept[new.id]) == (1, 1)

    RUNNER[0].run(check(Server(tmp_path, a_stream())))


def test_a_rank_that_comes_with_more_entries_teaches_the_others_until_they_have_read_on(tmp_path: Path) -> None:
    async def check(folder: Path, read: int) -> None:
        server = Server(folder / "a", a_stream())
        readers = [await server.open(rank, 2) for rank in range(2)]
        for reader in readers:
            await reader.read(3)
        old = readers[1].cursors[-1]
        run = readers[0].segments.run.id
        await server.runs.set_mixture(run, {"0": 1, "1": 5})
        new = replace(readers[0].cursors[-1], run=readers[0].segments.run.journal.carried())
        for reader in readers:
            await reader.read(4)
        other = Server(folder / "b", a_stream())  # the state folder was lost
        late = await other.open(1, 2, old)
        await late.read(read)
        if read > 1:
            with pytest.raises(JournalConflict, match=r"have read on without them.*all ranks resume"):
                await other.open(0, 2, new)
            return
        early = await other.open(0, 2, new)
        assert late.segments.run.journal == early.segments.run.journal == readers[0].segments.run.journal
        for reader in (late, early):
            await reader.read(3)
        mine = readers[1].steps[len([c for c in readers[1].cursors if c.step <= old.step and c.epoch == old.epoch]) :]
        assert late.steps[: len(mine)] == mine[: len(late.steps)]

    for read in (0, 6):
        for name in "ab":
            (tmp_path / f"{read}" / name).mkdir(parents=True)
        RUNNER[0].run(check(tmp_path / f"{read}", read))


def test_a_rank_that_resumes_within_a_segment_holds_it(tmp_path: Path) -> None:
    async def check(server: Server) -> None:
        reader = await server.open(0, 1)
        await reader.read(4)
        within = next(c for c in reader.cursors if 0 < c.taken < 4 and c.segment > 2)
        server.runs.leave(reader.segments)
        back = await server.open(0, 1, within)
        began = await server.runs.set_mixture(back.segments.run.id, {"0": 1, "1": 5})
        assert (began.epoch, began.segment) == (within.epoch, within.segment + 1)
        assert began.step >= within.step
        assert not began.exact  # the segment that the cursor is in was not made yet: nobody knows its length

    RUNNER[0].run(check(Server(tmp_path, a_stream())))
