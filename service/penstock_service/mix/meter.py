"""Measures each segment of a stream that is planned, and says what became of each epoch."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

from penstock_service.core.hashing import U64
from penstock_service.core.quality import Quality
from penstock_service.mix.quality import Measured, Stored

_EPOCHS: Final = 4  # that are remembered


class Meter:
    """May be used from several threads."""

    def __init__(self, stored: Stored, segments: Callable[[int], int]) -> None:
        """`segments`: of an epoch, by its number."""
        self._stored = stored
        self._segments = segments
        self._measured: OrderedDict[int, dict[int, Measured]] = OrderedDict()
        self._finished: dict[int, Quality] = {}
        self._lock = Lock()

    def add(self, epoch: int, number: int, ids: U64) -> Quality | None:
        """Measure a segment. Gives the quality of its epoch if that has come to its end by it."""
        measured = self._stored.measure(number, ids)
        with self._lock:
            parts = self._measured.setdefault(epoch, {})
            if number in parts:
                return None  # planned again
            parts[number] = measured
            if len(self._measured) > _EPOCHS:
                self._finished.pop(self._measured.popitem(last=False)[0], None)
            # Segments may be planned out of order: the epoch ends when all from the first measured one on are here.
            last = self._segments(epoch)
            if last - 1 not in parts or len(parts) < last - min(parts):
                return None
            found = self._stored.conclude(epoch, parts, last)
            self._finished[epoch] = found
            return found

    def qualities(self) -> list[Quality]:
        """Of the last few epochs, also of those that are still being mixed."""
        with self._lock:
            return [
                self._finished.get(epoch) or self._stored.conclude(epoch, parts, self._segments(epoch))
                for epoch, parts in sorted(self._measured.items())
            ]

    def last_finished(self) -> Quality | None:
        with self._lock:
            return self._finished[max(self._finished)] if self._finished else None
