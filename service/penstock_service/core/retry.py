"""How long to wait before trying again: exponential back-off with full jitter. Pure: the caller does the waiting."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Retry:
    """Settings. `max_retries=3` means that a thing is tried four times."""

    max_retries: int = 3
    base_seconds: float = 0.1
    cap_seconds: float = 5.0
    deadline_seconds: float = math.inf  # after the first failure; no retry begins later

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise ValueError(f"max_retries is {self.max_retries}; it must be 0 or more")
        if not 0 < self.base_seconds <= self.cap_seconds:
            raise ValueError(
                f"base_seconds is {self.base_seconds} and cap_seconds {self.cap_seconds}; 0 < base <= cap is needed"
            )
        if self.deadline_seconds <= 0:
            raise ValueError(f"deadline_seconds is {self.deadline_seconds}; it must be more than 0")

    def delay(self, attempt: int, draw: float, elapsed: float = 0.0) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 0), `draw` in [0, 1); None: give up.

        `elapsed`: seconds since the first attempt failed.
        """
        if attempt >= self.max_retries:
            return None
        delay = draw * min(self.cap_seconds, self.base_seconds * 2.0 ** min(attempt, 60))
        return delay if elapsed + delay <= self.deadline_seconds else None
