"""Laws of steps that are skipped and steps that are explained, whatever the world, filters, batch and ranks."""

from dataclasses import replace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import Skips, joined, skipped_from
from penstock_service.batch.explain import SCHEMA as EXPLAINED
from penstock_service.batch.feed import StepFeed
from penstock_service.batch.fetch import Fetch
from penstock_service.batch.view import Last, View
from penstock_service.core.channel import Counters
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.feed import Bundle, EpochEnd
from penstock_service.mix.mixer import Mixer
from tests.laws.filtered import Filtered, filtered_worlds, rows_left
from tests.laws.test_feeds import SCHEMA, World, bundle_sizes, loop, run, worlds

__all__ = ["loop"]  # a fixture of this module too

LASTS: list[Last] = ["short", "drop", "pad", "wrap"]
Steps = dict[int, tuple[list[int], int]]  # by number: rows, and how many of them are data


async def delivered(
    feed: StepFeed, sizes: list[int], view: View
) -> tuple[Steps, dict[int, Cursor], EpochEnd, list[bool]]:
    """Steps of the rest of the epoch by number, cursors after them, the end, and what bundles said of it."""
    steps: Steps = {}
    cursors: dict[int, Cursor] = {}
    ends: list[bool] = []
    turn = 0
    while True:
        made = await feed.next(sizes[turn % len(sizes)], 1 << 30)
        turn += 1
        if isinstance(made, EpochEnd):
            return steps, cursors, made, ends
        ends.append(made.ends_epoch)
        rows = pa.ipc.read_record_batch(made.body, feed._fetch.schema)["id"].to_pylist()
        at = Cursor(made.epoch, made.segment, made.taken, made.first_step, view.global_batch, 0, 0, skip=view.skip)
        begin = 0
        for number in range(made.steps):
            last = number + 1 == made.steps
            count = made.last_rows if last and made.last_rows is not None else made.rows
            valid = made.last_valid if last and made.last_valid is not None else count
            steps[made.first_step + number] = rows[begin : begin + count], valid
            begin += count
            cursors[made.first_step + number] = at.after(number + 1, _units(made, number + 1), made.spans, made.taken)


def _units(made: Bundle, steps: int) -> int:
    units = steps * made.units
    if steps == made.steps and made.last_units is not None:
        units += made.last_units - made.units
    return units


@st.composite
def skips(draw: st.DrawFn, steps: int) -> Skips:
    found = draw(st.lists(st.tuples(st.integers(0, steps + 1), st.integers(1, steps + 2)), min_size=1, max_size=3))
    return joined((0, begin, begin + length) for begin, length in found)


@settings(max_examples=60)
@given(filtered_worlds(), st.integers(1, 3), st.integers(1, 5), st.sampled_from(LASTS), bundle_sizes, st.data())
def test_skipped_steps_are_missing_and_no_other_step_moves(
    world: World, ranks: int, rows: int, last: Last, sizes: list[int], data: st.DataObject
) -> None:
    async def check() -> None:
        views = [View(ranks * rows, rank, ranks, last) for rank in range(ranks)]
        try:
            whole = [await delivered(world.feed(view), [7], view) for view in views]
        except InvalidRequest:  # filters or last="drop" left nothing
            return
        count = whole[0][2].steps
        skip = data.draw(skips(count))
        found = []
        for view in views:
            skipping = replace(view, skip=skip)
            found.append(await delivered(world.feed(skipping), sizes, skipping))
        for before, after in zip(whole, found, strict=True):
            assert after[0] == {n: step for n, step in before[0].items() if not skipped_from(skip, 0, n)}
            assert (after[2].steps, after[2].dropped) == (count, before[2].dropped)
            if skipped_from(skip, 0, count - 1):
                assert (after[2].padded, after[2].repeated) == (0, 0)
            else:
                assert after[2] == before[2]
            # Only the bundle with the last step that comes may say so; it does where all up to the end is skipped.
            assert not any(after[3][:-1])
            skipped = skipped_from(skip, 0, max(after[0]) + 1) if after[0] else 0
            if skipped and not any(source.chain for source in world.stream.sources):
                assert after[3][-1] == (skipped >= count - 1 - max(after[0]))
        assert len({tuple(steps) for steps, _, _, _ in found}) == 1
        # A cursor of any step that came gives the same tail, on another world too.
        if not found[0][0]:
            return
        at = data.draw(st.sampled_from(sorted(found[0][0])))
        assert found[0][1][at] == replace(whole[0][1][at], skip=skip)
        other = View(ranks * rows, 0, 1, last, skip)
        tail, _, end, _ = await delivered(world.feed(other, found[0][1][at]), sizes, other)
        joined_rows = {n: [row for f in found for row in f[0][n][0][: f[0][n][1]]] for n in found[0][0] if n > at}
        assert {n: step[:valid] for n, (step, valid) in tail.items()} == joined_rows
        assert end.steps == count

    run(check())


@settings(max_examples=40)
@given(filtered_worlds(bad=True), st.integers(1, 4), bundle_sizes)
def test_a_bad_row_in_a_skipped_step_stops_nobody(world: World, batch: int, sizes: list[int]) -> None:
    async def check() -> None:
        assert isinstance(world.chunks, Filtered)
        good = World(world.stream, Filtered(world.chunks.gone))
        view = View(batch, 0, 1)
        if not rows_left(world):
            return
        whole, _, _, _ = await delivered(good.feed(view), sizes, view)
        hurt = [n for n, (step, _) in whole.items() if set(step) & world.chunks.bad]
        skipping = replace(view, skip=joined((0, n, n + 1) for n in hurt))
        found, _, _, _ = await delivered(world.feed(skipping), sizes, skipping)
        assert found == {n: step for n, step in whole.items() if n not in hurt}

    run(check())


@settings(max_examples=40)
@given(worlds(), st.integers(1, 4), st.integers(0, 30))
def test_what_is_skipped_and_can_be_counted_is_not_made(world: World, batch: int, until: int) -> None:
    async def check() -> None:
        chunks = Filtered()
        mixer = Mixer(world.stream.sources, world.stream.order(), chunks, Counters(), ahead=False)
        view = View(batch, 0, 1, skip=((0, 0, 10**9),))
        at = Cursor(0, 0, 0, 0, batch, world.stream.seed, 0)
        feed = StepFeed(mixer, Fetch(mixer, chunks, SCHEMA, False), view, at, Counters())
        end = await feed.next(1, 1)
        assert isinstance(end, EpochEnd)
        assert end.steps == View(batch, 0, 1).steps_of(mixer.rows(0))
        assert chunks.asked == []
        # What follows the skip is as if every step had come.
        plain = View(batch, 0, 1)
        whole, _, _, _ = await delivered(world.feed(plain), [5], plain)
        some = replace(plain, skip=joined([(0, 0, min(until, len(whole) - 1))]))
        found, _, _, _ = await delivered(world.feed(some), [5], some)
        assert found == {n: step for n, step in whole.items() if n >= min(until, len(whole) - 1)}

    run(check())


@settings(max_examples=80)
@given(filtered_worlds(bad=True), st.integers(1, 3), st.integers(1, 5), st.sampled_from(LASTS), st.data())
def test_an_explained_step_is_the_step_that_is_delivered(
    world: World, ranks: int, rows: int, last: Last, data: st.DataObject
) -> None:
    async def check() -> None:
        assert isinstance(world.chunks, Filtered)
        views = [View(ranks * rows, rank, ranks, last) for rank in range(ranks)]
        good = World(world.stream, Filtered(world.chunks.gone))
        try:
            whole = [await delivered(good.feed(view), [4], view) for view in views]
        except InvalidRequest:
            return
        count = whole[0][2].steps
        number = data.draw(st.integers(0, count + 1))
        begins = [c for n, c in sorted(whole[0][1].items()) if n < number and c.digest]
        at = data.draw(st.sampled_from([None, *begins]))
        if number >= count:
            try:
                await world.feed(views[0], at).explain(number, True)
            except InvalidRequest as error:
                assert f"has {count} steps" in str(error)  # noqa: PT017 - nothing else can be raised here
                return
            raise AssertionError("there is no such step")
        table = await world.feed(views[0], at).explain(number, True)
        assert table.schema == EXPLAINED
        found = table.to_pylist()
        expected = [
            (rank, place, place < valid, row)
            for rank, (steps, _, _, _) in enumerate(whole)
            for step, valid in [steps[number]]
            for place, row in enumerate(step)
        ]
        assert [(r["rank"], r["place"], r["valid"], 10_000 * r["source"] + r["row"]) for r in found] == expected
        order = world.stream.order()
        for r in found:
            source = world.stream.sources[r["source"]]
            assert (r["dataset"], r["version"], r["split"]) == (source.name, source.version, source.split)
            assert (r["shard"], r["shard_row"]) == source.manifest.locate(r["row"])
            kept = [
                i
                for i in order.segment_rows(0, r["segment"]).tolist()
                if (i >> 48) * 10_000 + (i & ((1 << 48) - 1)) not in world.chunks.gone
            ]
            assert kept[r["unit"]] == r["source"] << 48 | r["row"]
            assert (r["bad"] is not None) == (10_000 * r["source"] + r["row"] in world.chunks.bad)
        one = await world.feed(views[-1], at).explain(number, False)
        assert one.to_pylist() == [r for r in found if r["rank"] == ranks - 1]

    run(check())
