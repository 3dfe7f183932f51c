"""Measures of mixing: exact where they can be counted, best for a perfect shuffle, worst for none."""

from math import comb

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.core.plan import PlanConstants, PoolDefaults, PoolWish, Start, resolve
from penstock_service.core.quality import Quality
from penstock_service.mix.epochs import Epochs
from penstock_service.mix.meter import Meter
from penstock_service.mix.pool import SOURCE_SHIFT, MixingPool
from penstock_service.mix.quality import Stored, adjacent_ideal, distinct_ideal, rank_correlation

sizes = st.lists(st.integers(0, 30), min_size=1, max_size=12).filter(lambda found: sum(found) > 0)


@given(sizes, st.data())
def test_the_ideal_number_of_distinct_shards_is_hurlberts(rows: list[int], data: st.DataObject) -> None:
    total = sum(rows)
    n = data.draw(st.integers(1, total))
    exact = sum(1 - comb(total - a, n) / comb(total, n) for a in rows)
    assert distinct_ideal(rows, n) == pytest.approx(exact, rel=1e-5)
    many = [a * 1000 for a in rows]  # another way to compute it, where few are drawn of many
    exact = sum(1 - comb(total * 1000 - a, n) / comb(total * 1000, n) for a in many)
    assert distinct_ideal(many, n) == pytest.approx(exact, rel=1e-5)
    pairs = sum(a * (a - 1) for a in rows) / (total * (total - 1)) if total > 1 else 0.0
    assert adjacent_ideal(rows) == pytest.approx(pairs)


def test_the_ideal_holds_for_a_million_shards_and_a_billion_rows() -> None:
    rows = np.full(1_000_000, 1_000)
    assert distinct_ideal(rows, 4096) == pytest.approx(1e6 * (1 - (1 - 1e-6) ** 4096), rel=1e-5)
    assert distinct_ideal([500_000_000, 500_000_000], 4096) == pytest.approx(2.0)


@given(st.integers(2, 60), st.randoms())
def test_the_rank_correlation_is_spearmans(n: int, random: "np.random.Generator") -> None:
    order = list(range(n))
    random.shuffle(order)
    squares = sum((place - value) ** 2 for place, value in enumerate(order))
    stored = np.array(order, np.int64) * 17
    assert rank_correlation(stored) == pytest.approx(1 - 6 * squares / (n * (n * n - 1)))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=40))
def test_ties_have_the_mean_of_their_ranks(values: list[int]) -> None:
    ranks = [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]
    spread = np.std(ranks)
    expected = float(np.corrcoef(np.arange(len(values)), ranks)[0, 1]) if spread > 0 else 0.0
    assert rank_correlation(np.array(values, np.int64)) == pytest.approx(expected)


def whole(order: npt.NDArray[np.uint64], stored: Stored, segments: int = 1) -> Quality:
    parts = {i: stored.measure(i, part) for i, part in enumerate(np.array_split(order, segments))}
    return stored.conclude(0, parts, segments)


@settings(max_examples=30)
@given(st.integers(2, 60), st.integers(500, 2_000), st.integers(0, 2**32), st.integers(1, 4))
def test_a_perfect_shuffle_scores_the_ideal_and_the_stored_order_the_worst(
    shards: int, rows: int, seed: int, segments: int
) -> None:
    segments = min(segments, shards * rows // 1_000)
    starts = [np.arange(0, shards * rows + 1, rows, dtype=np.int64)]
    stored = Stored(starts, [shards * rows], 1_000)
    ids = np.arange(shards * rows, dtype=np.uint64)
    shuffled = whole(np.random.default_rng(seed).permutation(ids), stored, segments)
    assert shuffled.shards == pytest.approx(shuffled.shards_ideal, rel=0.05)
    assert shuffled.adjacent == pytest.approx(shuffled.adjacent_ideal, abs=6 * 0.5 / np.sqrt(700))  # of one window
    assert abs(shuffled.rank_correlation) < 6 / np.sqrt(min(shards * rows, 1 << 14))
    none = whole(ids, stored, segments)
    assert none.shards <= -(-750 // rows) + 1
    assert none.adjacent >= 1 - none.shards / 700
    assert none.rank_correlation == pytest.approx(1.0)
    assert whole(ids[::-1].copy(), stored, segments).rank_correlation == pytest.approx(-1.0)
    # Whole shards in another order: no better, but for the ranks.
    blocks = np.random.default_rng(seed).permutation(ids.reshape(shards, rows)).ravel()
    blockwise = whole(blocks, stored, segments)
    assert blockwise.shards <= -(-750 // rows) + 1
    assert blockwise.adjacent >= 1 - none.shards / 350


def test_rows_of_several_sources_count_by_their_share() -> None:
    starts = [np.array([0, 1000, 2000], np.int64), np.array([0, 6000], np.int64)]
    stored = Stored(starts, [1000, 3000], 4000)
    # Half of each source is read: shards of 500, 500 and 3,000 rows.
    assert (stored.rows, stored.window) == (4000, 4000)
    assert stored.distinct == pytest.approx(3.0)
    assert stored.adjacent == pytest.approx((2 * 500 * 499 + 3000 * 2999) / (4000 * 3999))
    ids = np.array([5, 1 << SOURCE_SHIFT, 1999, 1 << SOURCE_SHIFT | 7], np.uint64)
    assert stored.places(ids).tolist() == [5, 2000, 1999, 2007]


@pytest.mark.parametrize("start", ["ramp", "full"])
def test_the_pool_scores_as_the_simulation_of_the_design_says(start: Start) -> None:
    """10 M rows in 100 shards, pool 2 M refilled at 1.5 M: 60 and more of 100 distinct shards in 4,096 rows."""
    plan = resolve(PoolWish(start=start), PoolDefaults(), 10_000_000, 300.0)
    starts = [np.arange(0, 10_000_001, 100_000, dtype=np.int64)]
    pool = MixingPool(Epochs([10_000_000], [1], plan), plan, starts, 7)
    stored = Stored(starts, [10_000_000], plan.drain)
    full = range(16, 22) if start == "ramp" else range(10, 16)
    steady = stored.conclude(0, {g: stored.measure(g, pool.segment_rows(0, g)) for g in full}, pool.segments(0))
    assert (steady.window, round(steady.shards_ideal, 3)) == (4096, 100.0)
    assert 60 <= steady.shards < 90
    assert 0.01 < steady.adjacent < 0.05
    assert 15 <= steady.windows <= 30  # a sample: of 732 windows
    assert not steady.complete


@given(st.integers(1, 400), st.integers(50, 5_000), st.integers(0, 2**32))
def test_what_is_measured_of_an_epoch_is_bounded(segments: int, rows: int, seed: int) -> None:
    stored = Stored([np.array([0, segments * rows], np.int64)], [segments * rows], rows)
    ids = np.arange(rows, dtype=np.uint64)
    parts = [stored.measure(number, ids) for number in range(segments)]
    assert all(part.windows <= 16 for part in parts)
    if segments * rows > 1 << 18:
        assert sum(part.windows for part in parts) * stored.window <= segments * rows / 16 + 16 * stored.window * 4
    assert sum(len(part.stored) for part in parts) <= 2.5 * (1 << 14)


def test_a_meter_tells_of_each_epoch_once_and_forgets_old_ones() -> None:
    plan = PlanConstants(2_000, 500, 16, "ramp")
    starts = [np.arange(0, 20_001, 500, dtype=np.int64)]
    pool = MixingPool(Epochs([20_000], [1], plan), plan, starts, 1)
    meter = Meter(Stored(starts, [20_000], plan.drain), pool.segments)
    assert (meter.last_finished(), meter.qualities()) == (None, [])
    for epoch in range(6):
        told = [meter.add(epoch, g, pool.segment_rows(epoch, g)) for g in range(pool.segments(0))]
        assert [quality is None for quality in told] == [True] * (pool.segments(0) - 1) + [False]
        assert meter.last_finished() == told[-1]
        assert told[-1] is not None
        assert (told[-1].complete, told[-1].epoch) == (True, epoch)
        assert 0.3 < told[-1].shards / told[-1].shards_ideal < 0.5  # a pool of four shards, of forty
        # A segment that is planned again is not counted again.
        assert meter.add(epoch, 3, pool.segment_rows(epoch, 3)) is None
        assert meter.last_finished() == told[-1]
    assert [quality.epoch for quality in meter.qualities()] == [2, 3, 4, 5]
    # Segments may be planned in another order than they are read.
    last = pool.segments(0) - 1
    order = [*range(last - 1), last, last - 1]
    told = [meter.add(6, g, pool.segment_rows(6, g)) for g in order]
    assert [quality is None for quality in told] == [True] * last + [False]
    # An epoch that began in the middle says so.
    meter.add(9, pool.segments(0) - 2, pool.segment_rows(9, pool.segments(0) - 2))
    assert [quality.epoch for quality in meter.qualities()] == [4, 5, 6, 9]
    part = meter.add(9, pool.segments(0) - 1, pool.segment_rows(9, pool.segments(0) - 1))
    assert part is not None
    assert (part.segments, part.of_segments, part.complete) == (2, pool.segments(0), False)
