"""Back-off: bounded by its deadline, spread by jitter, and none of the trainer's business."""

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.retry import Backoff


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds + 1e-9  # time always moves


@given(st.floats(0, 30), st.floats(0, 1), st.floats(0, 5))
def test_attempts_end_at_the_deadline_however_long_each_takes(deadline: float, share: float, attempt: float) -> None:
    clock = Clock()
    backoff = Backoff(deadline, now=clock.now, sleep=clock.sleep, uniform=lambda low, high: max(0.05, share * high))
    while backoff.pause():
        clock.sleep(attempt)
    assert clock.seconds - 100 <= deadline + attempt + 1e-3
    assert clock.seconds - 100 >= deadline - 1e-6
    assert not backoff.pause()


def test_waits_grow_up_to_the_cap() -> None:
    waits: list[float] = []
    backoff = Backoff(1e6, sleep=waits.append, uniform=lambda low, high: high)
    for _ in range(8):
        backoff.pause()
    assert waits == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]


def test_waiting_leaves_the_random_numbers_of_the_trainer_alone() -> None:
    random.seed(7)
    expected = [random.random() for _ in range(3)]
    random.seed(7)
    backoff = Backoff(10, sleep=lambda seconds: None)
    found = []
    for _ in range(3):
        assert backoff.pause()
        found.append(random.random())
    assert found == expected
