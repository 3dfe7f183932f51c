"""Which rows of which source enter the pool with which chunk set: a closed form, nothing is stored per row or chunk.

All arithmetic is on Python integers. A source's rows are addressed by their number in the source's reading order,
counted over all its passes; `mix.passes` says which stored rows those are.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from penstock_service.core.errors import InvalidRequest
from penstock_service.core.plan import PlanConstants, Until

_RAMP = 6  # the first set is 1/2**6 of a full one, each next one twice as large


class Take(NamedTuple):
    """Rows `start` up to `stop` of a source, in its reading order over all passes."""

    source: int
    start: int
    stop: int


@dataclass(frozen=True)
class _Phase:
    """A stretch of the epoch over which the shares of the sources do not change."""

    begins: int  # rows of the epoch before it
    base: tuple[int, ...]  # of each source
    weights: tuple[int, ...]  # 0: this source has run out
    total: int


def integer_weights(weights: Sequence[float]) -> tuple[int, ...]:
    """Integers in the same proportions as `weights`, each read as the decimal number it prints as."""
    for i, weight in enumerate(weights):
        if not 0 <= weight < float("inf"):
            raise InvalidRequest(f"weight {weight} of source {i}: must be a finite number >= 0")
    exact = [Fraction(repr(w)) if isinstance(w, float) else Fraction(w) for w in weights]
    if not any(exact):
        raise InvalidRequest(f"all {len(weights)} weights are 0: at least one source must have a share")
    scale = 1
    for f in exact:
        scale = scale * f.denominator // gcd(scale, f.denominator)
    whole = [int(f * scale) for f in exact]
    divisor = gcd(*whole)
    return tuple(w // divisor for w in whole)


class Schedule:
    """The chunk sets of one epoch.

    Args:
        rows: rows of each source.
        weights: integer share of each source; a source with weight 0 or without rows gives none.
        until: what happens when a source runs out: `all`: the others go on, every row comes once; `first`: the epoch
            ends; `repeat`: the source is read again.
        epoch_rows: the most rows the epoch has; under `repeat` exactly that many (default: the rows of all sources).
    """

    def __init__(
        self,
        rows: Sequence[int],
        weights: Sequence[int],
        plan: PlanConstants,
        until: Until = "all",
        epoch_rows: int | None = None,
    ) -> None:
        self._rows = tuple(rows)
        self._plan = plan
        live = tuple(w if n else 0 for w, n in zip(weights, rows, strict=True))
        if not any(live):
            raise InvalidRequest("the sources have no rows: nothing can be streamed")
        self._phases, end = _phases(self._rows, live, until)
        self.rows_by_source, self.rows = self._ending(end, live, until, epoch_rows)
        self.unread = sum(max(0, n - q) for n, q, w in zip(rows, self.rows_by_source, live, strict=True) if w)
        self.sets = self._count_sets()
        self.segments = self.sets + plan.cycles - 1

    def _ending(
        self, end: int | None, live: tuple[int, ...], until: Until, epoch_rows: int | None
    ) -> tuple[tuple[int, ...], int]:
        """Rows of each source by the end of the epoch, and of all."""
        if until == "repeat":
            wanted = (
                epoch_rows if epoch_rows is not None else sum(n for n, w in zip(self._rows, live, strict=True) if w)
            )
            self._end = wanted
        else:
            assert end is not None  # noqa: S101 - only `repeat` has no end of its own
            self._end = end if epoch_rows is None else min(end, epoch_rows)
        quota = list(self._quota(self._end))
        if until == "repeat" or self._end != end:
            # Floors lose less than one row per source: the largest remainders get them, ties by source.
            phase = self._phase(self._end)
            missing = self._end - sum(quota)
            order = sorted(
                (i for i, w in enumerate(phase.weights) if w),
                key=lambda i: (-(phase.weights[i] * (self._end - phase.begins) % phase.total), i),
            )
            for i in order[:missing]:
                quota[i] += 1
        return tuple(quota), sum(quota)

    def takes(self, number: int) -> list[Take]:
        """What set `number` takes of each source, in the order of the sources; nothing of some."""
        before, after = self._by(number), self._by(number + 1)
        return [Take(i, a, b) for i, (a, b) in enumerate(zip(before, after, strict=True)) if b > a]

    def source_rows(self, source: int) -> int:
        return self._rows[source]

    def _by(self, number: int) -> tuple[int, ...]:
        at = self._boundary(number)
        return self._quota(at) if at < self._end else self.rows_by_source

    def _boundary(self, number: int) -> int:
        """Rows of the epoch that the sets before `number` hold, if no rounding were done."""
        plan = self._plan
        if plan.cycles == 1:
            return number * plan.drain
        if plan.start == "full":
            return 0 if number == 0 else plan.pool_rows + (number - 1) * plan.drain
        ramp = min(number, _RAMP + 1)
        return plan.drain * ((1 << ramp) - 1) // (1 << _RAMP) + (number - ramp) * plan.drain

    def _count_sets(self) -> int:
        low, high = 0, 1
        while self._boundary(high) < self._end:
            low, high = high, high * 2
        while low < high:
            middle = (low + high) // 2
            if self._boundary(middle) < self._end:
                low = middle + 1
            else:
                high = middle
        return max(1, low)

    def _phase(self, at: int) -> _Phase:
        return self._phases[bisect_right(self._phases, at, key=lambda p: p.begins) - 1]

    def _quota(self, at: int) -> tuple[int, ...]:
        phase = self._phase(at)
        into = at - phase.begins
        return tuple(b + w * into // phase.total for b, w in zip(phase.base, phase.weights, strict=True))


def _phases(rows: tuple[int, ...], weights: tuple[int, ...], until: Until) -> tuple[list[_Phase], int | None]:
    """The phases, and the rows of the epoch at its end (None: it has none of its own).

    A phase ends as soon as one of its sources has run out; the others then share what it leaves.
    """
    base, live, begins = (0,) * len(rows), weights, 0
    phases: list[_Phase] = []
    while True:
        total = sum(live)
        if total == 0:
            return phases, begins
        phases.append(_Phase(begins, base, live, total))
        if until == "repeat":
            return phases, None
        length = min(-(-(n - b) * total // w) for n, b, w in zip(rows, base, live, strict=True) if w)
        base = tuple(min(n, b + w * length // total) if w else b for n, b, w in zip(rows, base, live, strict=True))
        begins += length
        live = tuple(w if b < n else 0 for n, b, w in zip(rows, base, live, strict=True))
        if until == "first":
            return phases, begins
