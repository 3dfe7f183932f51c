"""Laws of the one global order: every row once, a pure function, whoever asked for what before."""

from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.core.hashing import digest_ids
from penstock_service.core.plan import PlanConstants, PoolDefaults, PoolWish, Start, Until, resolve
from penstock_service.mix import pool as mixing
from penstock_service.mix.epochs import Epochs
from penstock_service.mix.pool import POSITION_MASK, SOURCE_SHIFT, InOrder, MixingPool, in_place_order

Starts = list[npt.NDArray[np.int64]]


def starts(shards: list[list[int]]) -> Starts:
    return [np.concatenate([[0], np.cumsum(rows)]).astype(np.int64) for rows in shards]


def make(
    shards: list[list[int]],
    plan: PlanConstants,
    seed: int = 0,
    until: Until = "all",
    epoch_rows: int | None = None,
    weights: list[int] | None = None,
) -> MixingPool:
    rows = [sum(s) for s in shards]
    epochs = Epochs(rows, weights or rows, plan, until, epoch_rows)
    return MixingPool(epochs, plan, starts(shards), seed)


def epoch_ids(pool: MixingPool, epoch: int) -> list[int]:
    return [int(i) for g in range(pool.segments(epoch)) for i in pool.segment_rows(epoch, g)]


@st.composite
def plans(draw: st.DrawFn) -> PlanConstants:
    drain = draw(st.integers(1, 60))
    pool = draw(st.integers(drain, 4 * drain))
    return PlanConstants(
        pool, drain, draw(st.integers(2, 17)) if pool > drain else 1, draw(st.sampled_from(["ramp", "full"]))
    )


@given(st.lists(st.one_of(st.integers(0, 40), st.integers(2**64 - 9, 2**64 - 1), st.integers(0, 2**64 - 1))))
def test_rows_leave_by_their_place_and_equal_ones_by_id(place: list[int]) -> None:
    """Also those whose hashes differ in the lowest bits only, or not at all."""
    hashes, ids = np.array(place, np.uint64), np.arange(len(place), dtype=np.uint64)[::-1].copy()
    expected = [i for _, i in sorted(zip(place, ids.tolist(), strict=True))]
    assert in_place_order(ids, hashes).tolist() == expected


datasets = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=8), min_size=1, max_size=3).filter(
    lambda found: any(sum(s) for s in found)
)


@given(datasets, plans(), st.integers(0, 2**64 - 1), st.integers(0, 5))
def test_every_row_comes_once(shards: list[list[int]], plan: PlanConstants, seed: int, epoch: int) -> None:
    expected = sorted(source << SOURCE_SHIFT | row for source, s in enumerate(shards) for row in range(sum(s)))
    assert sorted(epoch_ids(make(shards, plan, seed), epoch)) == expected


@given(datasets, plans(), st.integers(0, 99), st.data())
def test_a_segment_is_the_same_whatever_was_asked_for_before(
    shards: list[list[int]], plan: PlanConstants, seed: int, data: st.DataObject
) -> None:
    reference = make(shards, plan, seed)
    expected = {(e, g): reference.segment_rows(e, g).tolist() for e in range(2) for g in range(reference.segments(0))}
    pool = make(shards, plan, seed)
    for _ in range(6):
        key = data.draw(st.sampled_from(sorted(expected)))
        assert pool.segment_rows(*key).tolist() == expected[key]


@settings(max_examples=40)
@given(datasets, plans(), st.integers(0, 99), st.integers(0, 1000))
def test_sets_that_are_let_in_together_after_a_seek_give_the_same_segments(
    shards: list[list[int]], plan: PlanConstants, seed: int, place: int
) -> None:
    reference = make(shards, plan, seed)
    segments = reference.segments(0)
    expected = [reference.segment_rows(0, number).tolist() for number in range(segments)]
    sought = make(shards, plan, seed)
    with patch.object(mixing, "_TOGETHER", 0), patch.object(mixing, "_THREADS", 3):
        for number in range(place % segments, segments):
            assert sought.segment_rows(0, number).tolist() == expected[number]


@given(datasets, plans(), st.integers(0, 99), st.lists(st.tuples(st.integers(0, 1000), st.booleans()), max_size=8))
def test_a_pool_that_saves_memory_gives_the_same_segments_and_remembers_nothing(
    shards: list[list[int]], plan: PlanConstants, seed: int, asked: list[tuple[int, bool]]
) -> None:
    reference, pool = make(shards, plan, seed), make(shards, plan, seed)
    expected = {(e, g): reference.segment_rows(e, g).tolist() for e in range(2) for g in range(reference.segments(0))}
    for at, saving in asked:
        epoch, segment = sorted(expected)[at % len(expected)]
        pool.save(saving)
        assert pool.segment_units(epoch, segment) == len(expected[epoch, segment])
        assert pool.segment_rows(epoch, segment).tolist() == expected[epoch, segment]
        if saving:
            assert pool.nbytes == 0


@given(datasets, plans(), st.integers(1, 400))
def test_a_repeated_source_gives_each_row_floor_or_ceil_of_its_quota(
    shards: list[list[int]], plan: PlanConstants, epoch_rows: int
) -> None:
    pool = make(shards, plan, 3, "repeat", epoch_rows, [1] * len(shards))
    ids = epoch_ids(pool, 0)
    assert len(ids) == epoch_rows
    for source, s in enumerate(shards):
        mine = [i & POSITION_MASK for i in ids if i >> SOURCE_SHIFT == source]
        counts = np.bincount(np.array(mine, np.int64), minlength=sum(s))
        assert counts.max(initial=0) - counts.min(initial=counts.max(initial=0)) <= 1


def test_epochs_and_seeds_give_other_orders() -> None:
    plan = PlanConstants(1000, 1000, 1, "ramp")
    pool = make([[500, 500]], plan, 1)
    first, second = epoch_ids(pool, 0), epoch_ids(pool, 1)
    other = epoch_ids(make([[500, 500]], plan, 2), 0)
    assert sorted(first) == sorted(second) == sorted(other)
    assert first != second
    assert first != other


def test_the_pool_is_full_before_and_drained_after_every_segment() -> None:
    plan = PlanConstants(20_000, 5_000, 16, "ramp")
    pool = make([[1000] * 200], plan, 5)
    sizes = [len(pool.segment_rows(0, g)) for g in range(pool.segments(0))]
    # 200,000 rows: after the ramp (7 sets) and one tail of waiting, each segment has D rows within the noise of the law
    steady = sizes[25:38]
    assert all(abs(n - 5_000) < 250 for n in steady)


@pytest.mark.parametrize("start", ["ramp", "full"])
def test_mixing_reaches_the_distinct_shards_of_the_design(start: Start) -> None:
    """The simulation of the design: 10 M rows in 100 shards in stored order, pool 2 M, refilled at 1.5 M."""
    plan = resolve(PoolWish(start=start), PoolDefaults(), 10_000_000, 300.0)
    assert (plan.pool_rows, plan.drain, plan.cycles) == (2_000_000, 500_000, 16)
    pool = make([[100_000] * 100], plan, 7)
    distinct = []
    for g in range(16, 22) if start == "ramp" else range(10, 16):  # the pool is full and is being refilled
        shard = (pool.segment_rows(0, g) & np.uint64(POSITION_MASK)).astype(np.int64) // 100_000
        distinct += [len(np.unique(shard[at : at + 4096])) for at in range(0, len(shard) - 4095, 4096)]
    assert np.mean(distinct) >= 60


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(0, 2**32), st.sampled_from(["ramp", "full"]))
def test_over_ten_full_segments_every_source_has_its_share_within_two_points(
    weights: list[int], seed: int, start: Start
) -> None:
    plan = PlanConstants(40_000, 10_000, 16, start)
    # As many rows as its weight needs: no source runs out.
    shards = [[20_000 * w] * 10 for w in weights]
    pool = make(shards, plan, seed, "first", None, weights)
    first = 7 if start == "ramp" else 0
    counts = [
        np.bincount((pool.segment_rows(0, g) >> np.uint64(SOURCE_SHIFT)).astype(np.int64), minlength=len(weights))
        for g in range(first, first + 14)
    ]
    for at in range(5):
        ten = np.sum(counts[at : at + 10], axis=0)
        assert np.all(np.abs(ten / ten.sum() - np.array(weights) / sum(weights)) <= 0.02)


def test_golden_order() -> None:
    """Pinned: changing it means raising SEMANTICS in mix/stream.py, and every saved state is refused."""
    plan = PlanConstants(400, 100, 16, "ramp")
    pool = make([[100, 200, 50], [150]], plan, 42)
    ids = np.array(epoch_ids(pool, 3), np.uint64)
    assert ids[:4].tolist() == [3, 4, 13, 1]
    assert digest_ids(ids) == 11082808744934777318


@given(st.lists(st.integers(0, 50), min_size=1, max_size=4), st.integers(1, 20))
def test_without_mixing_sources_come_as_stored(rows: list[int], drain: int) -> None:
    order = InOrder(rows, drain)
    ids = [int(i) for g in range(order.segments(0)) for i in order.segment_rows(0, g)]
    assert ids == [source << SOURCE_SHIFT | row for source, n in enumerate(rows) for row in range(n)]


def test_what_enters_with_a_set_is_told_with_its_shards() -> None:
    pool = make([[100] * 5, [50]], PlanConstants(100, 50, 16, "ramp"), 3)
    seen: dict[int, set[int]] = {0: set(), 1: set()}
    rows = 0
    for segment in range(pool.segments(0)):
        for part in pool.entering(0, segment):
            assert part.shards == sorted(part.shards)
            seen[part.source].update(part.shards)
            rows += part.rows
    assert (seen, rows) == ({0: set(range(5)), 1: {0}}, 550)
    assert InOrder([5], 2).entering(0, 0) == []


def test_what_is_remembered_is_bounded_and_can_be_forgotten() -> None:
    pool = make([[2000]], PlanConstants(200, 50, 16, "ramp"), 3)
    expected = [pool.segment_rows(0, g).tolist() for g in range(pool.segments(0))]
    for g in (30, 3, 20, 11, 5, 25, 0):
        assert pool.segment_rows(1, g).size >= 0
        assert pool.nbytes <= 3 * 200 * 16
    pool.forget()
    assert pool.nbytes == 0
    assert [pool.segment_rows(0, g).tolist() for g in range(pool.segments(0))] == expected
    assert pool.rows(0) == 2000
    assert pool.unread(0) == 0
