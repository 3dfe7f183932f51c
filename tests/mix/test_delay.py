import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.hashing import hash_rows
from penstock_service.mix.delay import delays, first_fill_thresholds, thresholds


def _mean(limits: tuple[int, ...]) -> float:
    """Mean of the law: each threshold not yet passed adds one cycle with the probability of passing it."""
    return sum(1 - t / 2**64 for t in limits)


def test_golden_thresholds_of_the_default_pool() -> None:
    got = thresholds(2_000_000, 500_000, 16)
    assert len(got) == 15
    assert got[:3] == (4437548756922913904, 7821564270913377915, 10402169381124919214)


@given(st.integers(1, 10_000), st.integers(1, 12))
def test_the_mean_wait_is_pool_over_drain_minus_one(drain: int, times: int) -> None:
    pool = drain * times
    assert abs(_mean(thresholds(pool, drain, 5 * times + 16)) - (times - 1)) < 1e-6


@given(st.integers(2, 40), st.floats(1.05, 6))
def test_a_first_fill_leaves_a_full_drain_in_every_segment(cycles: int, ratio: float) -> None:
    drain = 100_000
    pool = int(drain * min(ratio, (cycles + 1) / 2))
    law, first = thresholds(pool, drain, cycles), first_fill_thresholds(pool, drain, cycles)

    def probabilities(limits: tuple[int, ...]) -> list[float]:
        edges = [0.0, *(t / 2**64 for t in limits), 1.0]
        return [b - a for a, b in itertools.pairwise(edges)]

    entering, filled = probabilities(law), probabilities(first)
    for segment in range(cycles):
        leaving = pool * filled[segment] + drain * sum(entering[segment - s] for s in range(1, segment + 1))
        assert abs(leaving - drain) < drain * 1e-4


def test_delays_follow_the_law() -> None:
    limits = thresholds(4_000, 1_000, 16)
    drawn = delays(hash_rows(1, np.arange(200_000, dtype=np.uint64)), limits)
    assert drawn.max() <= 15
    assert abs(float(drawn.mean()) - 3) < 0.03
    edges = [0.0, *(t / 2**64 for t in limits), 1.0]
    for d in range(16):
        assert abs(float((drawn == d).mean()) - (edges[d + 1] - edges[d])) < 0.005


def test_a_pool_that_is_drained_whole_makes_nobody_wait() -> None:
    assert thresholds(1_000, 1_000, 1) == ()
    assert delays(np.arange(5, dtype=np.uint64), ()).tolist() == [0] * 5
