"""How long to wait before trying again: exponential back-off with full jitter, within a deadline.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """One row of attempts. `pause` is called after each failure; a success makes a new Backoff."""

    deadline: float  # seconds for all attempts together
    base: float = 0.1
    cap: float = 2.0
    attempts: int = 0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    # Jitter keeps a thousand trainers from coming back in the same millisecond. Never from the generator that the
    # module `random` shares: the trainer's own random numbers must not change because a connection broke.
    uniform: Callable[[float, float], float] = random.SystemRandom().uniform
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.now()

    def pause(self, at_least: float = 0.0) -> bool:
        """Sleep before the next attempt; False (at once) when the deadline is over.

        Args:
            at_least: seconds that the other side asked for.
        """
        self.attempts += 1
        left = self.deadline - self.seconds
        if left <= 0:
            return False
        wait = self.uniform(0, min(self.cap, self.base * 2 ** min(self.attempts, 16)))
        self.sleep(min(left, at_least + wait))
        return True

    def leave_out(self, seconds: float) -> None:
        """So many were no waiting: the other side was there."""
        self._began += seconds

    @property
    def seconds(self) -> float:
        return self.now() - self._began
