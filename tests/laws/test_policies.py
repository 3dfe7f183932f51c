"""Laws of policies on errors, over random datasets, bad rows, lost chunks, worlds and histories of resumes."""

import asyncio
import itertools
from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_proto.v1.cursor import Cursor
from penstock_service.batch.policy import OnError, Policy
from penstock_service.batch.view import Last, View
from penstock_service.core.channel import Counters
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import DataError, SourceGone, SourceUnreadable
from penstock_service.core.feed import Bundle, EpochEnd
from penstock_service.core.plan import PlanConstants
from penstock_service.mix.mixer import Mixer
from penstock_service.mix.stream import Stream
from tests.laws.test_feeds import SCHEMA, InMemory, InMemoryLease, World, dataset, epoch, loop, run, worlds

__all__ = ["loop"]  # the module's fixture: the event loop of all examples

NOTHING = -1
PLACED = Policy("substitute", pa.record_batch({"id": pa.array([NOTHING], pa.int64())}))
POLICIES = {"skip": Policy("skip"), "quarantine": Policy("quarantine"), "substitute": PLACED, "fail": Policy("fail")}


async def whole_order(world: World) -> list[int]:
    steps, _, _ = await epoch(World(world.stream, InMemory()).feed(View(1, 0, 1)), [64])
    return [row for step in steps for row in step]


@st.composite
def spoiled(draw: st.DrawFn) -> World:
    """A world some of whose rows are errors, and some of whose chunks cannot be parsed at all."""
    world = draw(worlds())
    ids = [int(s.name) * 10_000 + p for s in world.stream.sources for p in range(s.manifest.rows)]
    bad = set(draw(st.lists(st.sampled_from(ids), max_size=12)))
    chunks = [(s.name, c) for s in world.stream.sources for c in range(s.manifest.chunks)]
    lost = {key: DataError("torn") for key in draw(st.lists(st.sampled_from(chunks), max_size=1))}
    return World(world.stream, InMemory(frozenset(bad), lost))


def is_bad(world: World, row: int) -> bool:
    source = next(s for s in world.stream.sources if int(s.name) == row // 10_000)
    starts = source.manifest.chunk_start
    chunk = next(c for c in range(source.manifest.chunks) if starts[c] <= row % 10_000 < starts[c + 1])
    return row in world.chunks.bad or (source.name, chunk) in world.chunks.lost


async def upto(world: World, on_error: OnError, at: Cursor | None, batch: int, steps: int) -> tuple[list[int], Cursor]:
    """At most `steps` steps of an epoch from `at` on, and where they end; fewer where the epoch or `fail` ends it."""
    feed = world.feed(View(batch, 0, 1), at, POLICIES[on_error])
    rows: list[int] = []
    cursor = at or Cursor(0, 0, 0, 0, batch, world.stream.seed, 0)
    for _ in range(steps):
        try:
            made = await feed.next(1, 1 << 30)
        except DataError:
            break
        if isinstance(made, EpochEnd):
            break
        rows += pa.ipc.read_record_batch(made.body, SCHEMA)["id"].to_pylist()
        base = Cursor(made.epoch, made.segment, made.taken, made.first_step, batch, world.stream.seed, 0)
        units = made.units if made.last_units is None else made.last_units
        # As the client does it: from its first bundle on, a cursor counts under its own policy.
        cursor = Cursor.from_json(_with(base.after(1, units, made.spans, made.taken), on_error).to_json())
    return rows, cursor


def _with(cursor: Cursor, on_error: str) -> Cursor:
    return Cursor(**{**cursor.__dict__, "on_error": on_error})


@settings(deadline=None, max_examples=150)
@given(spoiled(), st.data())
def test_good_rows_come_once_and_in_order_through_any_history_of_policies(world: World, data: st.DataObject) -> None:
    async def check() -> None:
        order = await whole_order(world)
        good = [row for row in order if not is_bad(world, row)]
        if not good:
            return
        got: list[int] = []
        at: Cursor | None = None
        for _ in range(data.draw(st.integers(1, 5))):
            policy: OnError = data.draw(st.sampled_from(["skip", "quarantine", "substitute", "fail"]))
            rows, at = await upto(world, policy, at, data.draw(st.integers(1, 6)), data.draw(st.integers(0, 6)))
            got += [row for row in rows if row != NOTHING]
            assert got == good[: len(got)]
        rows, at = await upto(world, data.draw(st.sampled_from(["skip", "substitute"])), at, 5, 1 << 30)
        assert got + [row for row in rows if row != NOTHING] == good

    run(check())


@settings(deadline=None, max_examples=100)
@given(spoiled(), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["short", "drop", "pad", "wrap"]), st.data())
def test_ranks_have_equal_steps_and_one_order_under_each_policy(
    world: World, ranks: int, rows: int, last: Last, data: st.DataObject
) -> None:
    async def check() -> None:
        batch = ranks * rows
        name: OnError = data.draw(st.sampled_from(["skip", "quarantine", "substitute"]))
        order = await whole_order(world)
        expected = [NOTHING if is_bad(world, r) else r for r in order]
        if name != "substitute":
            expected = [r for r in expected if r != NOTHING]
        if len(expected) < (batch if last == "drop" else 1):
            return
        sizes: Sequence[int] = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
        parts = [
            await epoch(world.feed(View(batch, r, ranks, last), policy=POLICIES[name]), sizes) for r in range(ranks)
        ]
        assert len({len(steps) for steps, _, _ in parts}) == 1
        (end,) = {end for _, _, end in parts}
        together = [r for step in zip(*(p[0] for p in parts), strict=True) for part in step for r in part]
        left = len(expected) % batch
        assert together[: len(expected)] == (expected[: len(expected) - left] if last == "drop" else expected)
        count = sum(is_bad(world, r) for r in order)
        assert (end.skipped, end.substituted) == ((0, count) if name == "substitute" else (count, 0))

    run(check())


@settings(deadline=None, max_examples=100)
@given(spoiled(), st.integers(1, 3), st.data())
def test_stand_ins_are_marked_and_have_the_ids_of_the_rows_they_stand_for(
    world: World, ranks: int, data: st.DataObject
) -> None:
    async def check() -> None:
        rows = data.draw(st.integers(1, 5))
        order = await whole_order(world)
        policy = data.draw(st.sampled_from([PLACED, Policy("substitute")]))
        sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        told: dict[int, tuple[int, bool]] = {}  # by id: the value that came, and whether it was marked
        for rank in range(ranks):
            feed = world.feed(View(rows * ranks, rank, ranks), policy=policy, ids=True)
            for turn in itertools.count():
                try:
                    made = await feed.next(sizes[turn % len(sizes)], 1 << 30)
                except DataError as error:
                    assert "no row of its shard is good" in str(error)  # noqa: PT017 - where it comes is drawn too
                    return
                if isinstance(made, EpochEnd):
                    break
                _note(made, feed_schema(), told)
        assert set(told) == set(order)
        for row, (value, marked) in told.items():
            assert marked == is_bad(world, row)
            assert value == row if not marked else value == NOTHING or not is_bad(world, value)

    def feed_schema() -> pa.Schema:
        return pa.schema([*SCHEMA, pa.field("__source__", pa.int32(), False), pa.field("__row__", pa.int64(), False)])

    run(check())


def _note(made: Bundle, schema: pa.Schema, told: dict[int, tuple[int, bool]]) -> None:
    batch = pa.ipc.read_record_batch(made.body, schema).to_pydict()
    ids = [s * 10_000 + r for s, r in zip(batch["__source__"], batch["__row__"], strict=True)]
    for i, row in enumerate(ids):
        told[row] = (batch["id"][i], i in made.substituted)


@settings(deadline=None, max_examples=60)
@given(spoiled(), st.data())
def test_what_no_byte_explains_fails_at_the_step_of_its_first_row_on_every_rank(
    world: World, data: st.DataObject
) -> None:
    async def check() -> None:
        chunks = [(s.name, c) for s in world.stream.sources for c in range(s.manifest.chunks)]
        lost = {data.draw(st.sampled_from(chunks)): SourceUnreadable("the disk does not answer")}
        broken = World(world.stream, InMemory(frozenset(), lost))
        order = await whole_order(world)
        first = next((i for i, row in enumerate(order) if is_bad(broken, row)), None)
        if first is None:
            return
        for rank in range(2):
            rows: list[int] = []
            feed = broken.feed(View(4, rank, 2))
            try:
                while isinstance(made := await feed.next(3, 1 << 30), Bundle):
                    rows += pa.ipc.read_record_batch(made.body, SCHEMA)["id"].to_pylist()
            except DataError as error:
                assert "does not answer" in str(error)  # noqa: PT017 - that it is raised is asserted below
                assert not error.retryable  # noqa: PT017
                assert len(rows) == first // 4 * 2
            else:
                raise AssertionError("nothing was raised")

    run(check())


class Evicting(InMemory):
    """Segments are whole when they are built; then some chunks cannot be made again."""

    def __init__(self, gone: tuple[str, int]) -> None:
        super().__init__()
        self.gone = gone

    async def lease(self, dataset: DatasetVersion, chunks: Sequence[int]) -> InMemoryLease:
        if any((dataset.name, chunk) == self.gone for chunk in chunks):
            raise SourceGone("the file is gone")
        return await super().lease(dataset, chunks)


@settings(deadline=None, max_examples=40)
@given(worlds(), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.data())
def test_a_chunk_that_cannot_be_made_again_stops_at_its_step_and_is_never_passed_over(
    world: World, sizes: list[int], data: st.DataObject
) -> None:
    async def check() -> None:
        chunks = [(s.name, c) for s in world.stream.sources for c in range(s.manifest.chunks)]
        gone = data.draw(st.sampled_from(chunks))
        marked = World(world.stream, InMemory(frozenset(), {gone: DataError("")}))
        order = await whole_order(world)
        first = next((i for i, row in enumerate(order) if is_bad(marked, row)), None)
        if first is None:
            return
        for policy, error in (("fail", DataError), ("skip", SourceUnreadable)):
            feed = World(world.stream, Evicting(gone)).feed(View(3, 0, 1), policy=POLICIES[policy])
            rows: list[int] = []
            with pytest.raises(error, match=f"step {first // 3}"):  # noqa: PT012 - where is what is tested
                for turn in itertools.count():
                    made = await feed.next(sizes[turn % len(sizes)], 1 << 30)
                    assert isinstance(made, Bundle)
                    rows += pa.ipc.read_record_batch(made.body, SCHEMA)["id"].to_pylist()
            assert rows == order[: first // 3 * 3]

    run(check())


class Recovering(InMemory):
    """Chunk 1 cannot be read until somebody says that it can."""

    broken = True

    async def infos(self, dataset: DatasetVersion, chunks: Sequence[int]) -> list[ChunkInfo]:
        if 1 in chunks and self.broken:
            raise SourceUnreadable("not now")
        return await super().infos(dataset, chunks)


def test_a_segment_made_ahead_that_lacks_something_is_made_again_when_it_is_asked_for() -> None:
    async def check() -> None:
        plan = PlanConstants(4, 4, 1, "full")
        stream = Stream((dataset(0, [[4], [4]]),), (1,), 1, False, plan, "all", None)
        chunks = Recovering()
        mixer = Mixer(stream.sources, stream.order(), chunks, Counters())
        await mixer.segment(0, 0)
        mixer.look_ahead(0, 0)
        while any(t.get_name().startswith("segment") for t in asyncio.all_tasks()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        assert not mixer.ready(0, 1)
        chunks.broken = False
        assert not (await mixer.segment(0, 1)).lost
        # What is asked for and lacks something is what all get who ask, until nobody reads any more.
        chunks = Recovering()
        other = Mixer(stream.sources, stream.order(), chunks, Counters())
        lacking = await other.segment(0, 1)
        assert lacking.lost == [1]
        chunks.broken = False
        assert await other.segment(0, 1) is lacking
        other.rest()
        assert not (await other.segment(0, 1)).lost

    run(check())
