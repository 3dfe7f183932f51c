"""Laws of the pressure ladder: never a stop below the limit, always one above it, and one rung at a time."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.budget import CALM, GRACE, LOOKS, SHARES, SLACK, Ladder, LookAhead, Rung

LIMIT = 1000
looks = st.lists(
    st.tuples(st.integers(0, 1500), st.integers(0, 1500), st.floats(0.01, 3.0)), max_size=60
)  # measured, reserved, seconds since the look before


def rungs(found: list[tuple[int, int, float]]) -> list[Rung]:
    ladder, now, taken = Ladder(LIMIT), 0.0, []
    for measured, reserved, seconds in found:
        now += seconds
        taken.append(ladder.look(measured, reserved, now))
    return taken


@given(looks)
def test_one_rung_at_a_time_and_the_stop_is_final(found: list[tuple[int, int, float]]) -> None:
    taken = [Rung.OK, *rungs(found)]
    for before, after in pairwise(taken):
        assert abs(after - before) <= 1
        if before is Rung.STOP:
            assert after is Rung.STOP


@given(looks)
def test_it_stops_only_after_looks_above_the_limit_for_the_whole_grace(found: list[tuple[int, int, float]]) -> None:
    taken = rungs(found)
    if Rung.STOP not in taken:
        return
    at = taken.index(Rung.STOP)
    above = at + 1
    while above > 0 and found[above - 1][0] > LIMIT:
        above -= 1
    assert at + 1 - above >= LOOKS
    assert sum(seconds for _, _, seconds in found[above + 1 : at + 1]) >= GRACE - 1e-9


@given(looks, st.lists(st.tuples(st.integers(LIMIT + 1, 5000), st.integers(0, 5000), st.floats(0.01, 3.0)), min_size=4))
def test_it_always_stops_when_it_stays_above_the_limit_for_longer_than_the_grace(
    before: list[tuple[int, int, float]], above: list[tuple[int, int, float]]
) -> None:
    """Whatever was before: a few looks, and the grace from the first of them on."""
    waited = sum(seconds for _, _, seconds in above[1:])
    taken = rungs([*before, *above])
    if len(above) >= LOOKS and waited >= GRACE + 1e-6:
        assert taken[-1] is Rung.STOP


@given(looks)
def test_what_is_only_reserved_never_stops(found: list[tuple[int, int, float]]) -> None:
    assert Rung.STOP not in rungs([(min(measured, LIMIT), reserved, s) for measured, reserved, s in found])


@given(looks)
def test_a_rung_is_taken_only_at_its_share_and_left_only_well_below_it(found: list[tuple[int, int, float]]) -> None:
    taken = [Rung.OK, *rungs(found)]
    for (before, after), (measured, reserved, _) in zip(pairwise(taken), found, strict=True):
        pressed = max(measured, reserved)
        if before < after < Rung.STOP:
            assert pressed >= SHARES[after] * LIMIT
        if after < before:
            assert pressed < (SHARES[before] - SLACK) * LIMIT


@given(looks)
def test_when_memory_is_free_again_everything_is_given_back(found: list[tuple[int, int, float]]) -> None:
    taken = rungs([*found, *[(0, 0, CALM)] * 4])
    assert taken[-1] in (Rung.OK, Rung.STOP)
    if Rung.STOP not in taken:
        assert taken[-1] is Rung.OK


def test_a_rung_is_kept_for_a_while() -> None:
    ladder = Ladder(LIMIT)
    assert ladder.look(750, 0, 0.0) is Rung.LESS_AHEAD
    assert ladder.look(10, 0, CALM / 2) is Rung.LESS_AHEAD
    assert ladder.look(10, 0, CALM) is Rung.OK


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Ladder(0)


@given(st.integers(1, 1 << 40), st.integers(1, 1 << 30), st.lists(st.booleans(), max_size=60))
def test_the_look_ahead_halves_down_to_one_chunk_and_comes_back(most: int, chunk: int, pressed: list[bool]) -> None:
    ahead = LookAhead(most, chunk)
    sizes = [ahead.bytes]
    for now, short in enumerate(pressed):
        sizes.append(ahead.look(Rung.LESS_AHEAD if short else Rung.OK, float(2 * now)))
    for short, (before, after) in zip(pressed, pairwise(sizes), strict=True):
        assert min(most, chunk) <= after <= most
        assert after == (max(min(most, chunk), before // 2) if short else min(most, 2 * before))
    for now in range(60):
        ahead.look(Rung.REFUSE, 1000.0 + 2 * now)
    assert ahead.bytes == min(most, chunk)
    for now in range(60):
        ahead.look(Rung.OK, 2000.0 + 2 * now)
    assert ahead.bytes == most


def test_the_look_ahead_changes_step_by_step() -> None:
    ahead = LookAhead(1 << 20, 1)
    assert [ahead.look(Rung.STOP, now) >> 10 for now in (0.0, 0.25, 0.5, 1.0, 1.25, 2.0)] == [
        512,
        512,
        512,
        256,
        256,
        128,
    ]
