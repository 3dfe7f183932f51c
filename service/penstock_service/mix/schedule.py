"""Which rows of which source enter the pool with which chunk set: a closed form, nothing is stored per row or chunk.

All arithmetic is on Python integers. A source's rows are addressed by their number in the source's reading order,
counted over all its passes; `mix.passes` says which stored rows those are.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
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
    shares: tuple[int, ...]  # the same, of sources that have run out too


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


class Change(NamedTuple):
    """From chunk set `number` (1 or more) of the epoch on, other integer weights by source."""

    number: int
    weights: tuple[int, ...]


class Schedule:
    """The chunk sets of one epoch.

    Args:
        rows: rows of each source.
        weights: integer share of each source; a source with weight 0 or without rows gives none.
        until: what happens when a source runs out: `all`: the others go on, every row comes once; `first`: the epoch
            ends; `repeat`: the source is read again.
        epoch_rows: the most rows the epoch has; under `repeat` exactly that many (default: the rows of all sources).
        changes: made to the mixture while the epoch was read, ascending. Sets before a change are those without it.
    """

    def __init__(
        self,
        rows: Sequence[int],
        weights: Sequence[int],
        plan: PlanConstants,
        until: Until = "all",
        epoch_rows: int | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self._rows = tuple(rows)
        self._plan = plan
        live = tuple(w if n else 0 for w, n in zip(weights, rows, strict=True))
        if not any(live):
            raise InvalidRequest("the sources have no rows: nothing can be streamed")
        turns = [(self._boundary(change.number), change.weights) for change in changes]
        self._phases, end = _phases(self._rows, live, until, turns)
        self.rows_by_source, self.rows = self._ending(end, live, until, epoch_rows)
        last = self._phase(self._end).shares
        meant = (max(w, v) for w, v in zip(live, last, strict=True))
        self.unread = sum(max(0, n - q) for n, q, w in zip(rows, self.rows_by_source, meant, strict=True) if w)
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
            whole = sum(self._quota(end))  # floors at the ends of phases make it less than `end`
            self._end = end if epoch_rows is None or whole <= epoch_rows else epoch_rows
        quota = list(self._quota(self._end))
        if until == "repeat" or self._end != end:
            # Floors lose less than one row per source and phase: the largest remainders get them, ties by source.
            phase = self._phase(self._end)
            missing = self._end - sum(quota)
            order = sorted(
                (i for i, w in enumerate(phase.weights) if w),
                key=lambda i: (-(phase.weights[i] * (self._end - phase.begins) % phase.total), i),
            )
            room = (i for i in cycle(order) if until == "repeat" or quota[i] < self._rows[i])
            for i in islice(room, missing):
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


def _phases(
    rows: tuple[int, ...], weights: tuple[int, ...], until: Until, turns: Sequence[tuple[int, tuple[int, ...]]] = ()
) -> tuple[list[_Phase], int | None]:
    """The phases, and the rows of the epoch at its end (None: it has none of its own).

    A phase ends as soon as one of its sources has run out, and the others then share what it leaves; or where the
    mixture was changed: `turns` says from how many rows of the epoch on, and to what.
    """
    base, shares, begins = (0,) * len(rows), weights, 0
    phases: list[_Phase] = []
    ahead = list(turns)
    while True:
        live = tuple(w if until == "repeat" or b < n else 0 for n, b, w in zip(rows, base, shares, strict=True))
        total = sum(live)
        if total == 0:
            return phases, begins
        phases.append(_Phase(begins, base, live, total, shares))
        length = _until_one_ends(rows, base, live, total) if until != "repeat" else None
        turning = bool(ahead) and (length is None or ahead[0][0] - begins < length)
        if turning:
            at, shares = ahead.pop(0)
            shares = tuple(w if n else 0 for n, w in zip(rows, shares, strict=True))
            length = at - begins
        if length is None:
            return phases, None
        base = _after(rows, base, live, total, length, until)
        begins += length
        if until == "first" and not turning:
            return phases, begins


def _until_one_ends(rows: tuple[int, ...], base: tuple[int, ...], live: tuple[int, ...], total: int) -> int:
    return min(-(-(n - b) * total // w) for n, b, w in zip(rows, base, live, strict=True) if w)


def _after(
    rows: tuple[int, ...], base: tuple[int, ...], live: tuple[int, ...], total: int, length: int, until: Until
) -> tuple[int, ...]:
    """Rows of each source after a phase of `length`."""
    ends = (b + w * length // total for b, w in zip(base, live, strict=True))
    return tuple(ends) if until == "repeat" else tuple(map(min, rows, ends))
