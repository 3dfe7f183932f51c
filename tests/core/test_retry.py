import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock_service.core.retry import Retry

DRAWS = st.floats(0, 1, exclude_max=True)


@given(attempt=st.integers(0, 3000), draw=DRAWS)
def test_a_delay_is_never_longer_than_the_cap(attempt: int, draw: float) -> None:
    delay = Retry(max_retries=5000).delay(attempt, draw)
    assert delay is not None
    assert 0 <= delay <= 5.0


def test_delays_double_from_the_base_to_the_cap() -> None:
    retry = Retry(max_retries=8, base_seconds=0.1, cap_seconds=2.0)
    assert [retry.delay(n, 0.5) for n in range(7)] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_it_gives_up_after_max_retries() -> None:
    assert [Retry(max_retries=2).delay(n, 0.5) is None for n in range(4)] == [False, False, True, True]
    assert Retry(max_retries=0).delay(0, 0.5) is None


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="max_retries is -1"):
        Retry(max_retries=-1)
    with pytest.raises(ValueError, match=r"base_seconds is 9.0 and cap_seconds 5.0"):
        Retry(base_seconds=9.0)


@given(attempt=st.integers(0, 20), draw=DRAWS, elapsed=st.floats(0, 100), deadline=st.floats(0.01, 100))
def test_no_retry_begins_after_the_deadline(attempt: int, draw: float, elapsed: float, deadline: float) -> None:
    retry = Retry(max_retries=10, deadline_seconds=deadline)
    delay, unbounded = retry.delay(attempt, draw, elapsed), Retry(max_retries=10).delay(attempt, draw)
    if unbounded is not None and elapsed + unbounded <= deadline:
        assert delay == unbounded
    else:
        assert delay is None


def test_a_deadline_that_makes_no_sense_is_named() -> None:
    with pytest.raises(ValueError, match="deadline_seconds is 0"):
        Retry(deadline_seconds=0)
