from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.plan import PlanConstants, Until
from penstock_service.mix.schedule import Schedule, integer_weights


@st.composite
def plans(draw: st.DrawFn) -> PlanConstants:
    drain = draw(st.integers(1, 400))
    pool = draw(st.integers(drain, 4 * drain))
    cycles = draw(st.integers(2, 20)) if pool > drain else 1
    return PlanConstants(pool, drain, cycles, draw(st.sampled_from(["ramp", "full"])))


sources = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 9)), min_size=1, max_size=6).filter(
    lambda found: any(rows and weight for rows, weight in found)
)


def _read(schedule: Schedule, source: int) -> list[tuple[int, int]]:
    return [(t.start, t.stop) for s in range(schedule.sets) for t in schedule.takes(s) if t.source == source]


@given(sources, plans(), st.sampled_from(["all", "first", "repeat"]), st.none() | st.integers(1, 3000))
def test_sets_take_each_source_once_without_gaps(
    found: list[tuple[int, int]], plan: PlanConstants, until: Until, epoch_rows: int | None
) -> None:
    rows, weights = zip(*found, strict=True)
    schedule = Schedule(rows, weights, plan, until, epoch_rows)
    for source, (size, weight) in enumerate(found):
        pieces = _read(schedule, source)
        ends = [0, *(stop for _, stop in pieces)]
        assert [start for start, _ in pieces] == ends[:-1]
        assert ends[-1] == schedule.rows_by_source[source]
        if until != "repeat":
            assert ends[-1] <= size
        if not weight or not size:
            assert ends[-1] == 0
    assert schedule.rows == sum(schedule.rows_by_source)
    assert not schedule.takes(schedule.sets)


@given(sources, plans())
def test_until_all_reads_every_row_of_every_weighted_source(found: list[tuple[int, int]], plan: PlanConstants) -> None:
    rows, weights = zip(*found, strict=True)
    schedule = Schedule(rows, weights, plan, "all")
    assert schedule.rows_by_source == tuple(r if w else 0 for r, w in found)
    assert schedule.unread == 0


@given(sources, plans())
def test_until_first_ends_when_one_has_run_out_and_counts_the_rest(
    found: list[tuple[int, int]], plan: PlanConstants
) -> None:
    rows, weights = zip(*found, strict=True)
    schedule = Schedule(rows, weights, plan, "first")
    live = [i for i, (r, w) in enumerate(found) if r and w]
    assert any(schedule.rows_by_source[i] == rows[i] for i in live)
    assert schedule.unread == sum(rows[i] - schedule.rows_by_source[i] for i in live)


@given(sources, plans(), st.integers(1, 5000))
def test_until_repeat_gives_exactly_the_epoch_asked_for_in_proportion(
    found: list[tuple[int, int]], plan: PlanConstants, epoch_rows: int
) -> None:
    rows, weights = zip(*found, strict=True)
    schedule = Schedule(rows, weights, plan, "repeat", epoch_rows)
    live = [w if r else 0 for r, w in found]
    assert schedule.rows == epoch_rows
    for got, weight in zip(schedule.rows_by_source, live, strict=True):
        assert abs(got - Fraction(epoch_rows * weight, sum(live))) < 1 + 1e-9


@given(sources, plans())
def test_without_weights_sources_run_out_in_step(found: list[tuple[int, int]], plan: PlanConstants) -> None:
    rows = [r for r, _ in found]
    if not any(rows):
        return
    schedule = Schedule(rows, rows, plan)
    read = [0] * len(rows)
    for number in range(schedule.sets):
        for take in schedule.takes(number):
            read[take.source] = take.stop
        done = sum(read) / sum(rows)
        assert all(abs(r - done * size) <= len(rows) for r, size in zip(read, rows, strict=True))
    assert read == rows


@given(plans(), st.integers(1, 5), st.integers(1, 5))
def test_shares_hold_in_every_set_while_no_source_has_run_out(plan: PlanConstants, a: int, b: int) -> None:
    schedule = Schedule([10**6, 10**6], [a, b], plan, "first")
    for number in range(1, min(schedule.sets - 1, 20)):
        taken = {t.source: t.stop for t in schedule.takes(number)}
        if len(taken) == 2:
            total = taken[0] + taken[1]
            assert abs(taken[0] - total * a / (a + b)) <= 2


def test_a_small_source_is_in_every_full_set() -> None:
    plan = PlanConstants(40_000, 10_000, 16, "ramp")
    schedule = Schedule([990_000, 10_000], [990_000, 10_000], plan)
    for number in range(7, schedule.sets - 1):
        assert {t.source for t in schedule.takes(number)} == {0, 1}


def test_a_ramp_doubles_up_to_a_full_set() -> None:
    plan = PlanConstants(4 * 6400, 6400, 16, "ramp")
    schedule = Schedule([10**6], [1], plan)
    sizes = [sum(t.stop - t.start for t in schedule.takes(s)) for s in range(9)]
    assert sizes == [100, 200, 400, 800, 1600, 3200, 6400, 6400, 6400]


def test_a_full_start_fills_the_pool_first() -> None:
    plan = PlanConstants(4 * 6400, 6400, 16, "full")
    schedule = Schedule([10**6], [1], plan)
    assert [schedule.takes(s)[0].stop for s in range(3)] == [25_600, 32_000, 38_400]


def test_what_fits_the_pool_is_one_segment() -> None:
    schedule = Schedule([700, 300], [700, 300], PlanConstants(1000, 1000, 1, "ramp"))
    assert (schedule.sets, schedule.segments, schedule.rows) == (1, 1, 1000)


def test_decimal_weights_become_small_integers() -> None:
    assert integer_weights([0.7, 0.3]) == (7, 3)
    assert integer_weights([2, 4]) == (1, 2)
    assert integer_weights([0.125, 0.5, 0]) == (1, 4, 0)


@pytest.mark.parametrize("weights", [[-1, 2], [float("nan"), 1], [float("inf"), 1], [0, 0]])
def test_weights_that_are_none_are_refused(weights: list[float]) -> None:
    with pytest.raises(InvalidRequest, match="weight"):
        integer_weights(weights)


def test_sources_without_rows_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no rows"):
        Schedule([0, 0], [1, 1], PlanConstants(1, 1, 1, "ramp"))
