"""The circuit breaker against a model, on a clock that the test holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_service.core.breaker import Breaker, Limits

LIMITS = Limits(failures=3, pause_seconds=10.0)


class Attempts(RuleBasedStateMachine):
    """Any number of attempts at once, of which each may end in any way, at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(LIMITS)
        self.now = 0.0
        self.running: dict[int, bool] = {}  # ticket: was it a probe?
        self.in_a_row = 0
        self.last_failure = 0.0

    @rule(seconds=st.floats(0, 15))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def one_asks(self) -> None:
        state = self.breaker.state(self.now)
        ticket = self.breaker.admit(self.now)
        if state == "closed":
            assert ticket is not None
        if state == "open":
            assert ticket is None
            assert self.now - self.last_failure < LIMITS.pause_seconds
        if state == "half-open":  # one goes, and only one
            assert (ticket is None) == any(self.running.values())
        if ticket is not None:
            assert ticket not in self.running
            self.running[ticket] = state == "half-open"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_fails(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[ticket]
        self.breaker.failed(ticket, self.now, "no answer")
        self.in_a_row += 1
        self.last_failure = self.now
        assert (self.breaker.broken_since is not None) == (self.in_a_row >= LIMITS.failures)
        assert self.breaker.error == "no answer"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_succeeds(self, data: st.DataObject) -> None:
        del self.running[data.draw(st.sampled_from(sorted(self.running)))]
        self.breaker.succeeded()
        self.running = dict.fromkeys(self.running, False)  # it is closed: what still runs is no probe any more
        self.in_a_row = 0
        assert self.breaker.state(self.now) == "closed"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_ends_without_a_word(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(sorted(self.running)))
        self.breaker.unknown(ticket)
        del self.running[ticket]

    @invariant()
    def never_more_than_one_probe(self) -> None:
        assert sum(self.running.values()) <= 1

    @invariant()
    def whoever_waits_as_long_as_told_gets_in_or_a_probe_is_under_way(self) -> None:
        later = self.now + self.breaker.wait(self.now) + 1e-6
        assert self.breaker.state(later) in ("closed", "half-open")


TestAttempts = Attempts.TestCase


@given(st.integers(1, 20))
def test_so_many_failures_in_a_row_open_it_and_one_success_in_between_does_not(failures: int) -> None:
    breaker = Breaker(Limits(failures, 1.0))
    for n in range(2 * failures):
        if n == failures - 1:
            breaker.succeeded()
        breaker.failed(0, 0.0)
    assert breaker.state(0.0) == "open"
    breaker.succeeded()
    for _ in range(failures - 1):
        breaker.failed(0, 0.0)
    assert breaker.state(0.0) == "closed"


def test_a_probe_that_fails_opens_it_for_another_pause() -> None:
    breaker = Breaker(Limits(1, 5.0))
    breaker.failed(0, 0.0)
    assert (breaker.admit(4.9), breaker.wait(4.0)) == (None, 1.0)
    probe = breaker.admit(5.0)
    assert probe is not None
    assert breaker.admit(5.0) is None
    breaker.failed(probe, 6.0)
    assert breaker.state(10.9) == "open"
    assert breaker.broken_since == 0.0
    assert breaker.admit(11.0) is not None


def test_limits_that_make_no_sense_are_named() -> None:
    with pytest.raises(ValueError, match="failures is 0"):
        Limits(failures=0)
    with pytest.raises(ValueError, match=r"pause_seconds is 0\.0"):
        Limits(pause_seconds=0.0)
