"""How many workers, and how far ahead: decided from what was measured. Pure: measurements and times in, decisions out.

A rule acts when it has held for some seconds. More workers than CPUs help only where reads wait for something else, so
they are a trial: without more chunks in the same time it is taken back, and the next one comes later each time.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, Literal

What = Literal["workers", "read-ahead"]

HUNGRY: Final = 0.2  # share of the time that somebody waited for a chunk
SATED: Final = 0.05
BUSY: Final = 0.8  # share of the workers
IDLE: Final = 0.5
FREE_CPUS: Final = 0.5
WORTH: Final = 1.1  # chunks per second of a trial against those before it
FULL: Final = 0.75  # of memory: nothing grows
PRESSED: Final = 0.9
PATIENCE: Final = 300.0  # seconds of idleness before workers go; and between trials after one that failed
MOST_PATIENCE: Final = 3600.0
_HOLD: Final = 2.0  # seconds that a wish holds before it is met
_TRIAL: Final = (5.0, 16, 30.0)  # seconds and chunks that a comparison needs; seconds that do in any case
_PRESS_EVERY: Final = 5.0
_PRESS_RESTS: Final = 60.0


@dataclass(frozen=True)
class Limits:
    """What may be decided. A pinned number is never changed."""

    cpus: int
    most_workers: int
    least_read_ahead: int
    most_read_ahead: int
    workers_pinned: bool = False
    read_ahead_pinned: bool = False

    @property
    def least_workers(self) -> int:
        """More are quickly there again, but not at once."""
        return max(1, self.cpus // 4)


@dataclass(frozen=True)
class Measured:
    """Over the last `seconds`. Shares are from 0 to 1."""

    seconds: float
    starved: float  # share of the time that somebody waited for a chunk
    busy: float  # workers, mean
    made: int  # chunks
    forgotten: int  # hints that found no room
    held_back: float  # share of the time that the look-ahead kept a free worker waiting
    free_cpus: float
    memory: float  # share of what the server may hold


@dataclass(frozen=True)
class Decision:
    at: float
    what: What
    before: int
    after: int
    reason: str


@dataclass
class _Trial:
    """More workers than CPUs, against fewer."""

    before: int
    rate: float  # chunks per second


@dataclass
class _Held:
    """For how long something has been so without a break, and what was made meanwhile."""

    seconds: float = 0.0
    made: int = 0
    most_busy: float = 0.0

    def so(self, true: bool, measured: Measured) -> bool:
        if true:
            self.seconds += measured.seconds
            self.made += measured.made
            self.most_busy = max(self.most_busy, measured.busy)
        else:
            self.again()
        return true

    def again(self) -> None:
        self.seconds, self.made, self.most_busy = 0.0, 0, 0.0

    @property
    def comparable(self) -> bool:
        seconds, chunks, anyhow = _TRIAL
        return (self.seconds >= seconds and self.made >= chunks) or self.seconds >= anyhow

    @property
    def rate(self) -> float:
        return self.made / self.seconds


class Tuning:
    """Workers and bytes of look-ahead as they are to be. `observe` is called about once a second."""

    def __init__(self, limits: Limits, workers: int, read_ahead: int) -> None:
        self.limits = limits
        self.workers = workers
        self.read_ahead = read_ahead
        self._short, self._idle, self._held, self._fed = _Held(), _Held(), _Held(), _Held()
        self._trial: _Trial | None = None
        self._patience = self._trial_patience = PATIENCE
        self._shrunk_at = self._no_trial_before = self._no_growth_before = self._no_press_before = float("-inf")

    def observe(self, now: float, measured: Measured) -> list[Decision]:
        """What is decided now; `workers` and `read_ahead` say it too."""
        before = self.workers, self.read_ahead
        reason = self._press(now, measured) if measured.memory >= PRESSED else self._tune(now, measured)
        whats: tuple[What, What] = ("workers", "read-ahead")
        after = self.workers, self.read_ahead
        return [Decision(now, w, b, a, reason) for w, b, a in zip(whats, before, after, strict=True) if a != b]

    def refused(self, now: float, workers: int) -> None:
        """There are only so many: others could not begin."""
        self.workers, self._trial = workers, None
        self._no_growth_before = now + _PRESS_RESTS
        self._settle()

    # -- inside --------------------------------------------------------------------------------------------------

    def _press(self, now: float, m: Measured) -> str:
        """Look-ahead goes first, workers next."""
        self._trial = None
        self._no_growth_before = now + _PRESS_RESTS
        self._settle()
        if now < self._no_press_before:
            return ""
        self._no_press_before = now + _PRESS_EVERY
        if not self.limits.read_ahead_pinned and self.read_ahead > self.limits.least_read_ahead:
            self.read_ahead = max(self.limits.least_read_ahead, self.read_ahead // 2)
        elif not self.limits.workers_pinned:
            self.workers = max(1, self.workers // 2)
        return f"the server holds {m.memory:.0%} of the memory it may"

    def _tune(self, now: float, m: Measured) -> str:
        n = self.workers
        hungry, all_busy = m.starved >= HUNGRY, m.busy >= BUSY * n
        self._short.so(hungry and all_busy and (n < self.limits.cpus or m.free_cpus >= FREE_CPUS), m)
        self._held.so(hungry and not all_busy and (m.forgotten > 0 or m.held_back >= SATED), m)
        self._idle.so(m.starved < SATED and m.busy < IDLE * n, m)
        self._fed.so(not hungry, m)
        if self._trial is not None:
            return self._judge(now, self._trial)
        may_grow = m.memory < FULL and now >= self._no_growth_before
        if may_grow and self._held.seconds >= _HOLD and not self.limits.read_ahead_pinned:
            return self._further(m)
        if self.limits.workers_pinned:
            return ""
        if self._idle.seconds >= self._patience and n > self.limits.least_workers:
            return self._shrink(now)
        if not may_grow or n >= self.limits.most_workers:
            return ""
        if n < self.limits.cpus:
            return self._grow(now, min(2 * n, self.limits.cpus), m) if self._short.seconds >= _HOLD else ""
        if now >= self._no_trial_before and self._short.comparable:
            self._trial = _Trial(n, self._short.rate)
            return self._grow(now, min(max(n + 1, n * 3 // 2), self.limits.most_workers), m)
        return ""

    def _grow(self, now: float, workers: int, m: Measured) -> str:
        if now - self._shrunk_at < 2 * self._patience:  # that was too early
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        n, self.workers = self.workers, workers
        self._settle()
        free = f", and {m.free_cpus:.1f} CPUs were free" if self._trial is not None else ""
        return f"{_waited(m)} while {_busy(m, n)}{free}"

    def _judge(self, now: float, trial: _Trial) -> str:
        """Were more workers than CPUs of use?"""
        if self._fed.seconds >= _TRIAL[0]:  # nobody waits any more
            self._trial = None
        elif self._short.comparable:
            self._trial = None
            if self._short.rate < WORTH * trial.rate:
                more, made = self.workers, self._short.rate
                self.workers = trial.before
                self._no_trial_before = now + self._trial_patience
                self._trial_patience = min(2 * self._trial_patience, MOST_PATIENCE)
                self._settle()
                rates = f"{more} workers made {made:.1f} chunks a second, {trial.before} made {trial.rate:.1f}"
                return f"{rates}: more of them do not help"
            self._trial_patience = PATIENCE
            self._settle()
        elif self._short.seconds == 0 and self._fed.seconds == 0:
            # Somebody waits, but workers are idle or the CPUs are all in use: nothing to compare. It stays as it is.
            self._trial = None
        return ""

    def _shrink(self, now: float) -> str:
        n, most = self.workers, self._idle.most_busy
        workers = max(self.limits.least_workers, ceil(1.5 * most))
        reason = f"for {self._idle.seconds:.0f} s nobody waited, and at most {most:.1f} of {n} workers were busy"
        self._settle()
        if workers >= n:
            return ""
        self.workers, self._shrunk_at = workers, now
        return reason

    def _further(self, m: Measured) -> str:
        self.read_ahead = min(2 * self.read_ahead, self.limits.most_read_ahead)
        self._settle()
        return f"{_waited(m)} while {_busy(m, self.workers)}: the look-ahead had no room for more chunks"

    def _settle(self) -> None:
        """What was seen before a change says nothing about what follows."""
        for held in (self._short, self._idle, self._held, self._fed):
            held.again()


def _waited(m: Measured) -> str:
    return f"sessions waited for chunks {m.starved:.0%} of the time"


def _busy(m: Measured, workers: int) -> str:
    return f"{m.busy:.1f} of {workers} workers were busy"
