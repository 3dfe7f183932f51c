"""How many cycles a row waits in the pool: a truncated geometric law, by integer thresholds on the row's hash.

P(d) is proportional to q^d for d = 0 .. W-1, with q such that the mean wait is pool/D - 1 cycles: then the pool holds
`pool_rows` rows before every segment. q and the thresholds are found in exact integer arithmetic, so that every machine
finds the same ones.
"""

from functools import lru_cache
from typing import Final

import numpy as np

from penstock_service.core.hashing import U64

_ONE: Final = 1 << 32  # q in fixed point
_Q_MAX: Final = 64 * _ONE
_COMPARED: Final = 40  # up to so many limits comparing with each is quicker than searching: 3 times for the usual 15
_BLOCK: Final = 1 << 15  # hashes at a time: they stay in the second-level cache


@lru_cache(maxsize=64)
def thresholds(pool: int, drain: int, cycles: int) -> tuple[int, ...]:
    """`cycles - 1` ascending 64-bit thresholds: a hash waits as many cycles as thresholds are <= it."""
    return _cumulative(_weights(pool, drain, cycles))


@lru_cache(maxsize=64)
def first_fill_thresholds(pool: int, drain: int, cycles: int) -> tuple[int, ...]:
    """The same for the rows that fill the pool before the first segment: P(d) proportional to P(wait >= d).

    That is how long a row that is met in a full pool still has to wait, so that every segment has about D rows.
    """
    weights = _weights(pool, drain, cycles)
    return _cumulative([sum(weights[d:]) for d in range(cycles)])


def delays(hashes: U64, limits: tuple[int, ...]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """Cycles each row waits, uint8 [n], from its delay hash."""
    if len(limits) > _COMPARED:
        return np.searchsorted(np.array(limits, np.uint64), hashes, side="right").astype(np.uint8)
    found = np.zeros(len(hashes), np.uint8)
    for at in range(0, len(hashes), _BLOCK):
        part, out = hashes[at : at + _BLOCK], found[at : at + _BLOCK]
        for limit in limits:
            out += part >= np.uint64(limit)
    return found


def _weights(pool: int, drain: int, cycles: int) -> list[int]:
    """Integers proportional to q^d, d < cycles, for the largest fixed-point q whose mean is <= pool/drain - 1."""
    lo, hi = 0, _Q_MAX
    while lo < hi:
        q = (lo + hi + 1) // 2
        # mean(q) <= (pool - drain) / drain, multiplied out
        excess = sum((d * drain - (pool - drain)) * w for d, w in enumerate(_powers(q, cycles)))
        if excess <= 0:
            lo = q
        else:
            hi = q - 1
    return _powers(lo, cycles)


def _powers(q: int, cycles: int) -> list[int]:
    return [q**d * _ONE ** (cycles - 1 - d) for d in range(cycles)]


def _cumulative(weights: list[int]) -> tuple[int, ...]:
    total, below, out = sum(weights), 0, []
    for weight in weights[:-1]:
        below += weight
        out.append(min((below << 64) // total, (1 << 64) - 1))
    return tuple(out)
