"""How well rows are mixed: pure measures of an order against the stored one. No Python per row.

Distinct shards among n rows drawn without replacement: Hurlbert, "The nonconcept of species diversity", Ecology 52
(1971), 577-586: the sum over shards of 1 - C(N - N_i, n) / C(N, n). Two neighbours of one shard: Simpson, "Measurement
of diversity", Nature 163 (1949), 688: the sum of N_i (N_i - 1) / (N (N - 1)). Rank correlation: Spearman, "The proof
and measurement of association between two things", Am. J. Psychol. 15 (1904), 72-101, with mean ranks for ties.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from penstock_service.core.hashing import U64, mix64
from penstock_service.core.quality import Quality
from penstock_service.mix.pool import POSITION_MASK, SOURCE_SHIFT

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

WINDOW: Final = 4096
_WINDOWS: Final = 64  # of an epoch, about
_APART: Final = 16  # at most every so many windows one is measured: this keeps the cost below 2 % of mixing,
_SMALL: Final = 1 << 18  # except for epochs of so few rows that it does not matter
_AT_ONCE: Final = 16  # windows of one segment
_SAMPLED: Final = 1 << 14  # rows of an epoch whose ranks are compared: the correlation is then true to about 0.01


@dataclass(frozen=True)
class Measured:
    """What is kept of one segment."""

    windows: int
    distinct: int  # over the windows
    adjacent: int
    stored: I64  # places in the stored order of some rows, in the order they were emitted


class Stored:
    """The stored order of a stream's sources, one after the other, and what a perfect shuffle of it would score."""

    def __init__(self, shard_starts: Sequence[I64], taken: Sequence[int], drain: int) -> None:
        """
        Args:
            shard_starts: by source: position of each shard's first row, and the total.
            taken: by source: its rows in an epoch.
            drain: rows of a segment; windows are not longer.
        """
        self._offset = np.concatenate([[0], np.cumsum([starts[-1] for starts in shard_starts])]).astype(np.int64)
        parts = [starts[:-1] + offset for starts, offset in zip(shard_starts, self._offset[:-1], strict=True)]
        self._starts = np.concatenate(parts)
        rows = [np.diff(starts) * (n / starts[-1]) for starts, n in zip(shard_starts, taken, strict=True) if starts[-1]]
        sizes = np.concatenate(rows)
        self.rows = sum(taken)
        # Segments vary by a little about `drain`: a window that half of them cannot fill would measure only the others.
        self.window = max(1, min(WINDOW, drain if drain >= self.rows else drain * 3 // 4))
        self._gap = self.window if self.rows <= _SMALL else max(_APART * self.window, self.rows // _WINDOWS)
        self._stride = max(1, self.rows // _SAMPLED)
        self.distinct = distinct_ideal(sizes, self.window)
        self.adjacent = adjacent_ideal(sizes)

    def places(self, ids: U64) -> I64:
        """Where rows lie in the stored order."""
        found: I64 = (ids & np.uint64(POSITION_MASK)).astype(np.int64)
        if len(self._offset) > 2:
            found += self._offset[(ids >> np.uint64(SOURCE_SHIFT)).astype(np.int64)]
        return found

    def measure(self, number: int, ids: U64) -> Measured:
        """A segment in its order: windows spread over it, and the places of some of its rows."""
        # By the segment's number it is decided where counting begins: small segments come into it as often as large
        # ones, row by row.
        count = min((len(ids) + mix64(number) % self._gap) // self._gap, len(ids) // self.window, _AT_ONCE)
        begins = np.linspace(0, len(ids) - self.window, count).astype(np.int64) if count else np.empty(0, np.int64)
        distinct = adjacent = 0
        for begin in begins.tolist():
            places = self.places(ids[begin : begin + self.window])
            order = np.argsort(places)  # a search for sorted places is several times as fast
            found = np.searchsorted(self._starts, places[order], side="right")
            distinct += 1 + int(np.count_nonzero(found[1:] != found[:-1]))
            shard = np.empty_like(found)
            shard[order] = found
            adjacent += int(np.count_nonzero(shard[1:] == shard[:-1]))
        return Measured(count, distinct, adjacent, self.places(ids[mix64(number) % self._stride :: self._stride]))

    def conclude(self, epoch: int, measured: Mapping[int, Measured], of_segments: int) -> Quality:
        """Of the segments of one epoch, by number."""
        windows = sum(part.windows for part in measured.values())
        pairs = windows * (self.window - 1)
        places = [measured[number].stored for number in sorted(measured)]
        return Quality(
            epoch=epoch,
            segments=len(measured),
            of_segments=of_segments,
            window=self.window,
            windows=windows,
            shards=sum(part.distinct for part in measured.values()) / max(1, windows),
            shards_ideal=self.distinct,
            adjacent=sum(part.adjacent for part in measured.values()) / max(1, pairs),
            adjacent_ideal=self.adjacent,
            rank_correlation=rank_correlation(np.concatenate(places)) if places else 0.0,
        )


def distinct_ideal(sizes: npt.ArrayLike, n: int) -> float:
    """Distinct shards expected among `n` rows of a perfect shuffle; `sizes` [shards]: rows of each."""
    rows = np.asarray(sizes, np.float64)
    total = float(rows.sum())
    n = min(n, int(total))
    some = rows[rows > 0]
    if n < total / 100:  # the product of 1 - N_i / (N - j) over j < n, by its middle factor: gammas would cancel
        return float(-np.sum(np.expm1(n * np.log1p(-np.minimum(some / (total - (n - 1) / 2), 1 - 1e-12)))))
    left = total - some
    none_drawn = np.zeros(len(some))  # where fewer rows are left than are drawn, one is of this shard
    may = left >= n
    none_drawn[may] = np.exp(_log_choose(left[may], n) - _log_choose(np.array([total]), n))
    return float(np.sum(1.0 - none_drawn))


def adjacent_ideal(sizes: npt.ArrayLike) -> float:
    """Share of neighbours from one shard that a perfect shuffle has."""
    rows = np.asarray(sizes, np.float64)
    total = float(rows.sum())
    return float(np.sum(rows * np.maximum(0.0, rows - 1)) / (total * (total - 1))) if total > 1 else 0.0


def rank_correlation(stored: I64) -> float:
    """Spearman's, of the order of the array against the order of its values [n]."""
    n = len(stored)
    if n < 2:
        return 0.0
    _, which, counts = np.unique(stored, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[which]
    emitted = np.arange(1.0, n + 1) - (n + 1) / 2
    ranks = ranks - (n + 1) / 2
    # Not np.dot: its threads wait for each other where the cores are busy.
    spread = float(np.sqrt(np.sum(emitted * emitted) * np.sum(ranks * ranks)))
    return float(np.sum(emitted * ranks)) / spread if spread else 0.0


def _log_choose(of: F64, n: int) -> F64:
    """Logarithm of the number of ways to choose `n` of each of `of`, less what does not depend on `of`."""
    return _log_gamma(of + 1) - _log_gamma(of - n + 1)


def _log_gamma(x: F64) -> F64:
    """Stirling's series, for x >= 1; NumPy has none."""
    product = x.copy()
    for i in range(1, 8):
        product *= x + i
    y = x + 8
    series = 1 / (12 * y) - 1 / (360 * y**3) + 1 / (1260 * y**5)
    found: F64 = (y - 0.5) * np.log(y) - y + 0.5 * np.log(2 * np.pi) + series - np.log(product)
    return found
