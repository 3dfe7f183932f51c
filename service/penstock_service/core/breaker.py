"""A circuit breaker: a place that fails again and again rests, and is then tried by one at a time.

closed      all may go; `failures` in a row open it
open        nobody goes for `pause_seconds`
half-open   one goes (the probe); if that succeeds it closes, else it opens again

Pure: time is passed in, in seconds of any clock that does not go back.
"""

from dataclasses import dataclass, field
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True)
class Limits:
    """Settings. `failures=8`: the eighth failure in a row opens it."""

    failures: int = 8
    pause_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError(f"failures is {self.failures}; it must be 1 or more")
        if self.pause_seconds <= 0:
            raise ValueError(f"pause_seconds is {self.pause_seconds}; it must be more than 0")


@dataclass
class Breaker:
    """Of one place. `admit` gives a ticket for each attempt; it ends with one of `succeeded`, `failed`, `unknown`."""

    limits: Limits = field(default_factory=Limits)
    failures: int = 0  # in a row
    error: str = ""  # the last one
    broken_since: float | None = None  # when it opened and has not closed since
    _until: float = 0.0  # while broken: nobody goes before
    _probe: int | None = None  # ticket of the one under way
    _tickets: int = 0

    def state(self, now: float) -> State:
        if self.broken_since is None:
            return "closed"
        return "half-open" if self._probe is not None or now >= self._until else "open"

    def admit(self, now: float) -> int | None:
        """A ticket, or None: not now. In half-open the first who asks is the probe; others wait for what it finds."""
        if self.broken_since is not None and (self._probe is not None or now < self._until):
            return None
        self._tickets += 1
        if self.broken_since is not None:
            self._probe = self._tickets
        return self._tickets

    def wait(self, now: float) -> float:
        """Seconds after which it is worth asking again."""
        if self.broken_since is None:
            return 0.0
        return self.limits.pause_seconds if self._probe is not None else max(0.0, self._until - now)

    def succeeded(self) -> None:
        """Whoever it was: the place answers."""
        self.failures, self.error, self.broken_since, self._probe = 0, "", None, None

    def failed(self, ticket: int, now: float, error: str = "") -> None:
        """Attempts that began before it opened say the same as the probe, but are none."""
        self.failures += 1
        self.error = error
        self.unknown(ticket)
        if self.failures >= self.limits.failures:
            self._until = now + self.limits.pause_seconds
            if self.broken_since is None:
                self.broken_since = now

    def unknown(self, ticket: int) -> None:
        """The attempt ended and says nothing about the place: another may be the probe."""
        if ticket == self._probe:
            self._probe = None
