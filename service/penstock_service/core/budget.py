"""The pressure ladder: from memory that is held to what is given up for it, in a fixed order. Pure; time is passed in.

Rungs are taken one at a time in both directions, so that each has a chance before the next. What is only reserved
presses too, but never stops: that is left to memory which was measured above the limit for longer than a grace.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

LOOKS: Final = 4  # above the limit, one after the other, before the stop
GRACE: Final = 2.0  # seconds that they take at least
CALM: Final = 2.0  # seconds that a rung is kept at least
SLACK: Final = 0.05  # of the limit below a rung's share before it is left
AHEAD_EVERY: Final = 1.0  # seconds between two changes of the look-ahead


class Rung(IntEnum):
    """What is given up; each rung keeps those below it."""

    OK = 0
    LESS_AHEAD = 1
    NO_SEGMENTS_AHEAD = 2
    REFUSE = 3
    STOP = 4

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS: Final = {
    Rung.OK: "ok",
    Rung.LESS_AHEAD: "less look-ahead",
    Rung.NO_SEGMENTS_AHEAD: "no segments ahead",
    Rung.REFUSE: "no new sessions",
    Rung.STOP: "stop",
}
SHARES: Final = {Rung.LESS_AHEAD: 0.7, Rung.NO_SEGMENTS_AHEAD: 0.8, Rung.REFUSE: 0.9}  # of the limit, where each begins


@dataclass
class Ladder:
    """Which rung holds, as of the last look."""

    limit: int
    rung: Rung = Rung.OK
    _since: float = float("-inf")  # when the rung was taken
    _above: int = 0  # looks above the limit, up to now
    _above_since: float = 0.0

    def __post_init__(self) -> None:
        if self.limit <= 0:
            raise ValueError(f"the limit is {self.limit} bytes; it must be more than 0")

    def begins(self, rung: Rung) -> int:
        """Bytes from which a rung below the stop is taken."""
        return int(self.limit * SHARES[rung])

    def look(self, measured: int, reserved: int, now: float) -> Rung:
        """`measured` is held for certain; `reserved` is what stages say they hold or may be about to."""
        if self.rung is Rung.STOP:
            return self.rung
        if measured <= self.limit:
            self._above = 0
        else:
            self._above_since = self._above_since if self._above else now
            self._above += 1
        pressed = max(measured, reserved)
        wanted = max((rung for rung in SHARES if pressed >= self.begins(rung)), default=Rung.OK)
        if wanted > self.rung:
            self._take(Rung(self.rung + 1), now)
        elif self.rung is Rung.REFUSE and self._above >= LOOKS and now - self._above_since >= GRACE:
            self._take(Rung.STOP, now)
        elif self._may_leave(pressed, now):
            self._take(Rung(self.rung - 1), now)
        return self.rung

    def _may_leave(self, pressed: int, now: float) -> bool:
        if self.rung is Rung.OK:
            return False
        return pressed < self.begins(self.rung) - SLACK * self.limit and now - self._since >= CALM

    def _take(self, rung: Rung, now: float) -> None:
        self.rung, self._since = rung, now


class LookAhead:
    """How many bytes may be made ahead of demand: halved step by step under pressure, and given back the same way."""

    def __init__(self, most: int, least: int) -> None:
        self.most, self.least = most, min(least, most)
        self.bytes = most
        self._changed = float("-inf")

    def look(self, rung: Rung, now: float) -> int:
        wanted = min(self.most, 2 * self.bytes) if rung is Rung.OK else max(self.least, self.bytes // 2)
        if wanted != self.bytes and now - self._changed >= AHEAD_EVERY:
            self.bytes, self._changed = wanted, now
        return self.bytes
