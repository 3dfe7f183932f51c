"""Numbers that stages keep about themselves: plain dataclasses, read by the metrics at scrape time.

How to read them: `waits_full` grows when whoever makes is faster than whoever takes (a bound holds it back);
`waits_empty` grows when whoever takes is faster. The bound is the bottleneck's neighbour, never its cause.
"""

from dataclasses import dataclass, field


@dataclass
class Bound:
    """One named bound in bytes: who is inside, and how long others waited to enter."""

    name: str
    limit: int
    used: int = 0
    peak: int = 0
    entered: int = 0
    wait_seconds: float = 0.0

    def enter(self, amount: int) -> None:
        self.used += amount
        self.entered += 1
        self.peak = max(self.peak, self.used)

    def leave(self, amount: int) -> None:
        self.used -= amount

    def admits(self, amount: int) -> bool:
        """One thing always fits an empty bound, so that no size blocks for ever."""
        return self.used == 0 or self.used + amount <= self.limit


@dataclass
class Counters:
    """Named counters of one stage."""

    values: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, amount: float = 1) -> None:
        self.values[name] = self.values.get(name, 0) + amount


@dataclass
class Occupancy:
    """How many there are of something over time: its integral, and the seconds in which there was at least one."""

    count: int = 0
    integral: float = 0.0  # seconds, each counted once for each there is
    seconds: float = 0.0
    since: float | None = None  # the last change or look

    def change(self, now: float, count: int) -> None:
        """There are `count` from now on."""
        if self.since is not None and self.count:
            self.integral += self.count * (now - self.since)
            self.seconds += now - self.since
        self.count, self.since = count, now
