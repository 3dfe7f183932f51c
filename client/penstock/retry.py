"""How long to wait before trying again: exponential back-off with full jitter, within a deadline.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

import random
import time
from dataclasses import dataclass, field


@dataclass
class Backoff:
    """One row of attempts. `pause` is called after each failure; a success makes a new Backoff."""

    deadline: float  # seconds for all attempts together
    base: float = 0.1
    cap: float = 2.0
    attempts: int = 0
    _began: float = field(default_factory=time.monotonic)

    def pause(self, at_least: float = 0.0) -> bool:
        """Sleep before the next attempt; False (at once) when the deadline is over.

        Args:
            at_least: seconds that the other side asked for.
        """
        self.attempts += 1
        left = self.deadline - (time.monotonic() - self._began)
        if left <= 0:
            return False
        # Not for secrets: jitter keeps a thousand trainers from coming back in the same millisecond.
        wait = random.uniform(0, min(self.cap, self.base * 2 ** min(self.attempts, 16)))  # noqa: S311
        time.sleep(min(left, at_least + wait))
        return True

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began
