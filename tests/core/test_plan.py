import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.plan import PlanConstants, PoolDefaults, PoolWish, resolve

DEFAULTS = PoolDefaults()


def test_the_default_pool_of_a_large_dataset() -> None:
    assert resolve(PoolWish(), DEFAULTS, 10**9, 300) == PlanConstants(2_000_000, 500_000, 16, "ramp")


def test_the_default_pool_adapts_to_its_bytes() -> None:
    assert resolve(PoolWish(), DEFAULTS, 10**9, 8192) == PlanConstants(131_072, 32_768, 16, "ramp")


def test_forty_million_rows_work_where_the_bytes_do() -> None:
    wish = PoolWish(pool_rows=40_000_000, pool_bytes=12_000_000_000)
    assert resolve(wish, DEFAULTS, 10**9, 300) == PlanConstants(40_000_000, 10_000_000, 16, "ramp")


def test_what_fits_is_one_segment() -> None:
    assert resolve(PoolWish(), DEFAULTS, 70_000, 300) == PlanConstants(70_000, 70_000, 1, "ramp")


def test_a_pool_that_was_asked_for_and_does_not_fit_is_refused_with_the_bytes_it_needs() -> None:
    with pytest.raises(InvalidRequest, match=r"pool_bytes=16384000001, but pool_bytes is 1073741824"):
        resolve(PoolWish(pool_rows=2_000_000), DEFAULTS, 10**9, 8192)


def test_refill_takes_a_share_or_a_number_of_rows() -> None:
    by_share = resolve(PoolWish(pool_rows=1000, refill_below=0.9), DEFAULTS, 10**6, 10)
    by_rows = resolve(PoolWish(pool_rows=1000, refill_below=900), DEFAULTS, 10**6, 10)
    assert by_share == by_rows == PlanConstants(1000, 100, 46, "ramp")


@pytest.mark.parametrize("refill", [-0.1, 0.99, 1.0, 1.5, float("nan")])
def test_a_refill_that_is_neither_is_refused(refill: float) -> None:
    with pytest.raises(InvalidRequest, match="refill_below"):
        resolve(PoolWish(pool_rows=1000, refill_below=refill), DEFAULTS, 10**6, 10)


@pytest.mark.parametrize("rows", [999, 990, 5000])
def test_a_refill_that_lets_hardly_anything_leave_is_refused(rows: int) -> None:
    with pytest.raises(InvalidRequest, match="at least a fiftieth must"):
        resolve(PoolWish(pool_rows=1000, refill_below=rows), DEFAULTS, 10**6, 10)


@given(st.integers(1, 10**7), st.integers(1, 10**9), st.floats(0, 0.98), st.integers(1, 10**9), st.floats(0.1, 10**6))
def test_any_wish_that_is_granted_is_a_pool_that_works(
    pool_rows: int, pool_bytes: int, refill: float, epoch_rows: int, row_bytes: float
) -> None:
    defaults = PoolDefaults(pool_rows, pool_bytes, refill)
    try:
        plan = resolve(PoolWish(), defaults, epoch_rows, row_bytes)
    except InvalidRequest as error:
        assert "fiftieth" in str(error)  # noqa: PT017 - tiny pools round their drain down to nothing
        return
    assert 1 <= plan.drain <= plan.pool_rows <= epoch_rows
    assert plan.cycles >= 1
    assert plan.pool_rows == 1 or plan.pool_rows * row_bytes <= pool_bytes
    assert PlanConstants.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        (PoolWish(start="slow"), "'ramp'"),  # type: ignore[arg-type]
        (PoolWish(pool_rows=0), "pool_rows=0: must be at least 1"),
        (PoolWish(pool_bytes=0), "pool_bytes=0: must be at least 1"),
    ],
)
def test_a_wish_out_of_its_range_is_named(wish: PoolWish, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        resolve(wish, DEFAULTS, 10**6, 10)


@pytest.mark.parametrize("numbers", [(0, 0, 1), (10, 11, 1), (10, 5, 0), (10, 5, 257)])
def test_a_pool_that_cannot_be_is_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidRequest, match="no such pool"):
        PlanConstants(*numbers, start="ramp")


def test_a_pool_of_which_all_leaves_has_no_cycles() -> None:
    assert resolve(PoolWish(pool_rows=100, refill_below=0), DEFAULTS, 1000, 1) == PlanConstants(100, 100, 1, "ramp")


def test_constants_of_a_damaged_cursor_are_refused() -> None:
    with pytest.raises(ValueError, match="slow"):
        PlanConstants.from_json({"pool_rows": 1, "drain": 1, "cycles": 1, "start": "slow"})
