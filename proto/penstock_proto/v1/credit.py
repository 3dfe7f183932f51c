"""Credits: how far the trainer has opened the gate. Pure bookkeeping of both ends; time and I/O are elsewhere.

A credit is one step and its bytes (of the Arrow body, before any compression). "Taken" is not "done": the trainer's end
gives a credit back when the user has moved on. Credits die with the stream.
"""

from dataclasses import dataclass


@dataclass
class Ledger:
    """The sending end: what may still be sent."""

    steps: int = 0
    bytes: int = 0
    outstanding_steps: int = 0
    outstanding_bytes: int = 0

    def grant(self, steps: int, size: int) -> None:
        """Credits came (the first window, or some that came back)."""
        self.steps += steps
        self.bytes += size
        self.outstanding_steps = max(0, self.outstanding_steps - steps)
        self.outstanding_bytes = max(0, self.outstanding_bytes - size)

    def open_window(self, steps: int, size: int) -> None:
        """The window that Open states: nothing is outstanding yet."""
        self.steps, self.bytes = steps, size
        self.outstanding_steps = self.outstanding_bytes = 0

    def allows(self, size: int) -> bool:
        """May a bundle of `size` bytes go? One always fits an empty window, so that no size deadlocks."""
        return self.steps > 0 and (size <= self.bytes or self.outstanding_steps == 0)

    def spend(self, steps: int, size: int) -> None:
        if steps > self.steps:
            raise ValueError(f"{steps} steps are more than the {self.steps} credits left")
        self.steps -= steps
        self.bytes -= size
        self.outstanding_steps += steps
        self.outstanding_bytes += size


@dataclass
class Window:
    """The receiving end: collects what the user is done with and returns it half a window at a time."""

    steps: int
    bytes: int
    done_steps: int = 0
    done_bytes: int = 0

    def done(self, steps: int, size: int) -> tuple[int, int] | None:
        """The user is done with `steps` steps and `size` bytes; returns the credits to send now, if any."""
        self.done_steps += steps
        self.done_bytes += size
        if 2 * self.done_steps >= self.steps or 2 * self.done_bytes >= self.bytes:
            return self.flush()
        return None

    def flush(self) -> tuple[int, int] | None:
        """All that is owed, for when the user waits."""
        if not self.done_steps and not self.done_bytes:
            return None
        owed = (self.done_steps, self.done_bytes)
        self.done_steps = self.done_bytes = 0
        return owed
