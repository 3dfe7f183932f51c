"""When a chunk is late: so much slower than the others that it is begun once more, on another worker.

A worker may be slow for reasons of its own: a CPU that somebody else uses, a read that hangs. A chunk is a pure
function of its bytes, so whichever worker ends first is right. Pure: time is passed in.
"""

from collections import deque
from statistics import median
from typing import Final

_REMEMBERED: Final = 64
_ENOUGH: Final = 8  # chunks, before it is known what is usual
_TIMES: Final = 4.0  # the usual time: one chunk may well be harder than another
_TIMES_IDLE: Final = 2.0  # while a worker has nothing else to do
_LEAST: Final = 0.5  # seconds: reading twice costs more than such a wait
_UNKNOWN: Final = 10.0  # seconds, while it is not known what is usual


class Pace:
    """How long the last chunks took, each from the one before it of the same task."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self.late_after = self.late_when_idle = _UNKNOWN  # seconds without a chunk

    def took(self, seconds: float) -> None:
        self._seconds.append(seconds)
        if len(self._seconds) >= _ENOUGH:
            usual = median(self._seconds)
            self.late_after, self.late_when_idle = max(_LEAST, _TIMES * usual), max(_LEAST, _TIMES_IDLE * usual)
