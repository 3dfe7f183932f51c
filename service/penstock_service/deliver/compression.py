"""Whether to compress what a session sends, and how: by the speed of its link. Pure: times are passed in.

Compressing and writing overlap, so a byte of payload takes 1 / link as it is, and with a codec the longer of 1 / rate
and 1 / (link * ratio). What is least is taken, if it is a fifth less in two measurements in a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

NONE: Final = "none"

_ROUND_BYTES: Final = 4 << 20  # a link is measured over so much,
_ROUND_SECONDS: Final = 0.5  # or so long
_FAST: Final = 500e6  # bytes/s; faster links than this gain nothing by any codec, and nothing is tried
_STALE: Final = 60.0  # seconds until a codec is tried again: other data may be packed better
_DOUBLING: Final = 30.0  # seconds; see `_note_link`
_GAIN: Final = 0.8
_SMOOTH: Final = 0.5


class Decision(NamedTuple):
    """How frames are compressed from here on, and why."""

    codec: str
    reason: str


@dataclass
class _Measured:
    rate: float  # bytes/s, before compression
    ratio: float  # bytes before to bytes after
    at: float


class Chooser:
    """Chooses for one session among the codecs that its client can undo."""

    def __init__(self, codecs: Sequence[str]) -> None:
        self.codec = NONE
        self._codecs = tuple(codecs)
        self._known: dict[str, _Measured] = {}
        self._link: float | None = None  # bytes/s
        self._link_at = 0.0
        self._bytes = 0
        self._seconds = 0.0
        self._trying: str | None = None
        self._wish, self._votes = NONE, 0

    def next(self) -> str:
        """What to compress the next frame with."""
        trying, self._trying = self._trying, None
        return trying or self.codec

    def packed(self, codec: str, before: int, after: int, seconds: float, now: float) -> None:
        """A frame was compressed."""
        rate, ratio = before / max(seconds, 1e-9), before / max(1, after)
        if (known := self._known.get(codec)) is not None and now - known.at < _STALE:
            rate = _SMOOTH * rate + (1 - _SMOOTH) * known.rate
            ratio = _SMOOTH * ratio + (1 - _SMOOTH) * known.ratio
        self._known[codec] = _Measured(rate, ratio, now)

    def written(self, size: int, seconds: float, now: float) -> Decision | None:
        """`size` bytes were written, which took so long; the decision where it changes."""
        self._bytes += size
        self._seconds += seconds
        if self._bytes < _ROUND_BYTES and self._seconds < _ROUND_SECONDS:
            return None
        self._note_link(self._bytes / max(self._seconds, 1e-9), now)
        self._bytes, self._seconds = 0, 0.0
        return self._decide(now)

    def _note_link(self, measured: float, now: float) -> None:
        """What is slower is believed at once. While we compress, a link that is not full looks fast: what is faster is
        then believed bit by bit, or we would stop compressing, fill it, and begin again."""
        if self._link is None or self.codec == NONE or measured < self._link:
            self._link = measured
        else:
            self._link = min(measured, self._link * 2.0 ** min(10.0, (now - self._link_at) / _DOUBLING))
        self._link_at = now

    def _decide(self, now: float) -> Decision | None:
        if self._cost(NONE) > 1 / _FAST:
            for codec in self._codecs:
                if codec not in self._known or now - self._known[codec].at >= _STALE:
                    self._trying = codec
                    return None
        best = min((NONE, *self._known), key=self._cost)
        if best == self.codec or self._cost(best) > _GAIN * self._cost(self.codec):
            self._votes = 0
            return None
        self._votes = self._votes + 1 if best == self._wish else 1
        self._wish = best
        if self._votes < 2:
            return None
        self.codec, self._votes = best, 0
        return Decision(best, self._reason())

    def _cost(self, codec: str) -> float:
        """Seconds for each byte of payload."""
        assert self._link is not None  # noqa: S101 - asked only after a measurement
        if codec == NONE:
            return 1 / self._link
        known = self._known[codec]
        return max(1 / known.rate, 1 / (self._link * known.ratio))

    def _reason(self) -> str:
        assert self._link is not None  # noqa: S101 - only after a measurement
        link = f"the link carries {self._link / 1e6:,.0f} MB/s"
        if self.codec == NONE:
            return f"{link}: compressing would be slower"
        known = self._known[self.codec]
        return f"{link}, {self.codec} packs {known.ratio:.1f} to 1 at {known.rate / 1e6:,.0f} MB/s"
