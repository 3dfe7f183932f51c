"""Laws of a mixture that is changed while it is read, and of rows that are left out: nothing before moves."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock_service.core.journal import Entry, Place
from penstock_service.core.plan import PlanConstants, Until
from penstock_service.mix.epochs import Epochs
from penstock_service.mix.masks import Masks
from penstock_service.mix.pool import SOURCE_SHIFT, MixingPool
from penstock_service.mix.schedule import Change, Schedule

untils = st.sampled_from(["all", "first", "repeat"])
sources = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9)), min_size=2, max_size=4)


@st.composite
def plans(draw: st.DrawFn) -> PlanConstants:
    drain = draw(st.integers(1, 80))
    pool = draw(st.integers(drain, 4 * drain))
    cycles = draw(st.integers(2, 17)) if pool > drain else 1
    return PlanConstants(pool, drain, cycles, draw(st.sampled_from(["ramp", "full"])))


def drawn(
    data: st.DataObject, found: list[tuple[int, int]], plan: PlanConstants, until: Until, epoch_rows: int | None
) -> tuple[Schedule, Schedule, list[Change]]:
    """The schedule without and with changes, made as a run makes them: each at a set that the epoch has, ascending."""
    rows, weights = zip(*found, strict=True)
    before = after = Schedule(rows, weights, plan, until, epoch_rows)
    least = 1 if until == "all" else 0
    changes: list[Change] = []
    for _ in range(data.draw(st.integers(1, 3))):
        first = changes[-1].number if changes else 1
        if after.sets <= first:
            break
        shares = data.draw(st.lists(st.integers(least, 9), min_size=len(found), max_size=len(found)).filter(any))
        changes.append(Change(data.draw(st.integers(first, after.sets - 1)), tuple(shares)))
        after = Schedule(rows, weights, plan, until, epoch_rows, changes)
    assume(changes)
    return before, after, changes


@given(sources, plans(), untils, st.none() | st.integers(1, 900), st.data())
def test_sets_before_a_change_are_those_without_it_and_the_rest_has_no_gaps(
    found: list[tuple[int, int]], plan: PlanConstants, until: Until, epoch_rows: int | None, data: st.DataObject
) -> None:
    before, after, changes = drawn(data, found, plan, until, epoch_rows)
    for number in range(changes[0].number):
        assert after.takes(number) == before.takes(number)
    for source, (size, _) in enumerate(found):
        pieces = [(t.start, t.stop) for s in range(after.sets) for t in after.takes(s) if t.source == source]
        ends = [0, *(stop for _, stop in pieces)]
        assert [start for start, _ in pieces] == ends[:-1]
        assert ends[-1] == after.rows_by_source[source]
        assert until == "repeat" or ends[-1] <= size
    assert after.rows == sum(after.rows_by_source)
    assert not after.takes(after.sets)
    if until == "all" and epoch_rows is None:
        assert after.rows_by_source == tuple(size for size, _ in found)
        assert after.unread == 0
    if until == "repeat":
        assert after.rows == before.rows
    if epoch_rows is not None:
        assert after.rows <= epoch_rows


@given(sources, plans(), st.data())
def test_under_first_the_epoch_ends_when_a_source_of_the_new_mixture_has_run_out(
    found: list[tuple[int, int]], plan: PlanConstants, data: st.DataObject
) -> None:
    _, after, changes = drawn(data, found, plan, "first", None)
    last = changes[-1].weights
    assert any(w and after.rows_by_source[i] == found[i][0] for i, w in enumerate(last))
    meant = {i for i, (_, w) in enumerate(found) if w or last[i]}
    assert after.unread == sum(found[i][0] - after.rows_by_source[i] for i in meant)


@given(plans(), st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), st.integers(1, 12))
def test_after_a_change_every_set_has_the_new_shares(plan: PlanConstants, weights: list[int], number: int) -> None:
    change = Change(number, tuple(weights))
    schedule = Schedule([10**6] * 3, [1, 2, 3], plan, "first", None, [change])
    total, taken, rows = sum(weights), [0, 0, 0], 0
    for s in range(number, number + 20):
        for take in schedule.takes(s):
            taken[take.source] += take.stop - take.start
        rows = sum(taken)
        for source, weight in enumerate(weights):
            assert abs(taken[source] - Fraction(rows * weight, total)) <= 3


def pool_of(
    found: list[tuple[int, int]], plan: PlanConstants, until: Until, mixtures: list[tuple[Place, tuple[int, ...]]]
) -> MixingPool:
    rows, weights = zip(*found, strict=True)
    starts = [np.array([0, n // 2, n], np.int64) for n in rows]
    return MixingPool(Epochs(rows, weights, plan, until, None, mixtures), plan, starts, 11)


@settings(max_examples=50)
@given(sources, plans(), untils, st.integers(0, 2), st.data())
def test_segments_before_the_change_are_bit_identical_and_later_epochs_keep_the_new_weights(
    found: list[tuple[int, int]], plan: PlanConstants, until: Until, epoch: int, data: st.DataObject
) -> None:
    _, _, changes = drawn(data, found, plan, until, None)
    place = Place(epoch, changes[0].number)
    without = pool_of(found, plan, until, [])
    changed = pool_of(found, plan, until, [(place, changes[0].weights)])
    asked = [(e, g) for e in range(epoch + 1) for g in range(changed.segments(e)) if (e, g) < place]
    for e, g in asked:
        assert changed.segment_rows(e, g).tolist() == without.segment_rows(e, g).tolist()
    ids = [int(i) for g in range(changed.segments(epoch)) for i in changed.segment_rows(epoch, g)]
    assert len(ids) == changed.rows(epoch)
    if until == "all":
        expected = [source << SOURCE_SHIFT | row for source, (n, _) in enumerate(found) for row in range(n)]
        assert sorted(ids) == expected
    fresh = pool_of([(n, w) for (n, _), w in zip(found, changes[0].weights, strict=True)], plan, until, [])
    assert changed.segments(epoch + 1) == fresh.segments(0)
    for g in range(min(4, fresh.segments(0))):
        assert changed.segment_rows(epoch + 1, g).tolist() == fresh.segment_rows(epoch + 1, g).tolist()


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30), st.integers(1, 9)), max_size=5), st.data())
def test_rows_left_out_are_gone_from_their_place_on_and_move_no_other(
    hidden: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    places = [Place(0, data.draw(st.integers(0, 3))) for _ in hidden]
    entries = [
        Entry("quarantine", place, {"rows": {"abc"[source]: [[first, first + n]]}, "reason": ""})
        for place, (source, first, n) in zip(places, hidden, strict=True)
    ]
    masks = Masks(entries, ["a", "b", "c"])
    assert bool(masks) is bool(entries)
    everything = [(source, row) for source in range(3) for row in range(40)]
    order = data.draw(st.permutations(everything))
    ids = np.array([source << SOURCE_SHIFT | row for source, row in order], np.uint64)
    for segment in range(4):
        gone = {
            (source, row)
            for place, (source, first, n) in zip(places, hidden, strict=True)
            for row in range(first, first + n)
            if place <= Place(0, segment)
        }
        kept = [source << SOURCE_SHIFT | row for source, row in order if (source, row) not in gone]
        assert masks.kept(Place(0, segment), ids).tolist() == kept
        for source, first, n in hidden:
            whole = all((source, row) in gone for row in range(first, first + n))
            assert masks.hide(Place(0, segment), source, first, first + n) is whole


@pytest.mark.parametrize("reshuffle", [True, False])
def test_a_change_in_one_epoch_leaves_the_epochs_before_it_as_they_were(reshuffle: bool) -> None:
    plan = PlanConstants(200, 50, 16, "ramp")
    starts = [np.array([0, 500], np.int64), np.array([0, 700], np.int64)]
    epochs = Epochs([500, 700], [1, 1], plan, "all", None, [(Place(1, 9), (5, 1))])
    changed = MixingPool(epochs, plan, starts, 3, reshuffle)
    without = MixingPool(Epochs([500, 700], [1, 1], plan), plan, starts, 3, reshuffle)
    for g in range(without.segments(0)):
        assert changed.segment_rows(0, g).tolist() == without.segment_rows(0, g).tolist()
    one = [int(i) for g in range(changed.segments(1)) for i in changed.segment_rows(1, g)]
    assert len(one) == len(set(one)) == 1200
    assert changed.segment_rows(1, 12).tolist() != without.segment_rows(1, 12).tolist()
