"""Rules of purity that no other law shows: masks move no row, a changed segment is noticed, order knows no sizes."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_proto.v1.cursor import Cursor
from penstock_service.batch.view import View
from penstock_service.core.errors import OrderChanged
from penstock_service.mix.stream import Stream
from tests.laws.filtered import Filtered, Leaving, everything, filtered_worlds, rows_left
from tests.laws.test_feeds import World, bundle_sizes, epoch, loop, run, worlds

__all__ = ["loop"]  # a fixture of this module too


@settings(max_examples=50)
@given(worlds(), st.data())
def test_rows_that_are_left_out_move_no_other(world: World, data: st.DataObject) -> None:
    """Rule 1, through the mixer and the feed: a filter, or another one, only leaves gaps."""

    async def check() -> None:
        rows = everything(world)
        chain = tuple(replace(source, chain=Leaving()) for source in world.stream.sources)
        whole, _, _ = await epoch(World(world.stream, Filtered()).feed(View(1, 0, 1)), [9])
        order = [row for step in whole for row in step]
        for _ in range(2):
            gone = frozenset(data.draw(st.lists(st.sampled_from(rows), max_size=len(rows) - 1)))
            expected = [row for row in order if row not in gone]
            if not expected:
                continue
            left, _, _ = await epoch(
                World(replace(world.stream, sources=chain), Filtered(gone)).feed(View(1, 0, 1)), [9]
            )
            assert [row for step in left for row in step] == expected

    run(check())


@settings(max_examples=60)
@given(filtered_worlds(), st.integers(1, 5), bundle_sizes, st.data())
def test_a_segment_that_is_not_what_it_was_is_refused(
    world: World, batch: int, sizes: list[int], data: st.DataObject
) -> None:
    """Rule 6: whatever row leaves or joins the segment that a cursor lies in, the digest tells."""

    async def check() -> None:
        if not rows_left(world):
            return
        assert isinstance(world.chunks, Filtered)
        view = View(batch, 0, 1)
        _, cursors, _ = await epoch(world.feed(view), sizes)
        inside = [cursor for cursor in cursors if cursor.taken]
        if not inside:
            return
        cursor = data.draw(st.sampled_from(inside))
        segment = world.stream.order().segment_rows(0, cursor.segment).tolist()
        here = [(i >> 48) * 10_000 + (i & ((1 << 48) - 1)) for i in segment]
        row = data.draw(st.sampled_from(sorted(set(everything(world)))))
        # The data changed unnoticed: a row that was left out is not any more, or the other way round.
        changed = World(world.stream, Filtered(world.chunks.gone ^ {row}))
        if row not in here:
            # Elsewhere: this segment is what it was, and goes on.
            made = await changed.feed(view, cursor).next(1, 1 << 30)
            assert made.epoch in (0, 1)
            return
        try:
            await changed.feed(view, cursor).next(1, 1 << 30)
        except OrderChanged as error:
            assert f"segment {cursor.segment} of epoch 0" in str(error)  # noqa: PT017
            return
        raise AssertionError("a changed segment was not noticed")

    run(check())


@settings(max_examples=40)
@given(worlds(), st.integers(0, 4))
def test_each_segment_is_made_of_its_own_plan_alone(world: World, at: int) -> None:
    """Rule 7: nothing is carried from one segment to the next, and nothing of batch or world size is in one."""

    async def check() -> None:
        in_turn = world.feed(View(1, 0, 1))._segments
        numbers = list(range(in_turn.segments(at)))
        made = {n: await in_turn.segment(at, n) for n in numbers}
        backwards = world.feed(View(7, 1, 7, "pad"))._segments
        for n in reversed(numbers):
            other = await backwards.segment(at, n)
            assert (other.digest, other.chunk.tolist(), other.row.tolist()) == (
                made[n].digest,
                made[n].chunk.tolist(),
                made[n].row.tolist(),
            )
            assert await backwards.units(at, n) in (None, other.units)

    run(check())


@given(worlds(), st.integers(0, 2**64 - 1), st.integers(0, 9))
def test_seed_and_epoch_are_no_part_of_the_fingerprint(world: World, seed: int, number: int) -> None:
    """Rule 8: they are fields of the cursor of their own; a state may be of any epoch of its stream."""
    stream: Stream = world.stream
    assert replace(stream, seed=seed).fingerprint() == stream.fingerprint()
    cursor = Cursor(number, 0, 0, 0, 5, seed, 0, stream.plan.to_json(), stream.fingerprint())
    assert Cursor.from_json(cursor.to_json()).fingerprint == stream.fingerprint()
