"""Plan constants: what the mixing pool of one stream is made of. Fixed when a run begins, carried by every cursor."""

from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any, Final, Literal, Self

from penstock_service.core.errors import InvalidRequest

Start = Literal["ramp", "full"]
Until = Literal["all", "first", "repeat"]

DEFAULT_CYCLES: Final = 16
MAX_CYCLES: Final = 256


@dataclass(frozen=True)
class PlanConstants:
    """The pool as it is, not as it was asked for."""

    pool_rows: int  # rows that wait before a segment leaves
    drain: int  # D: rows that leave, and enter, in one drain/refill cycle
    cycles: int  # W: the most cycles a row waits, plus one
    start: Start

    def __post_init__(self) -> None:
        if not 1 <= self.drain <= self.pool_rows or not 1 <= self.cycles <= MAX_CYCLES:
            raise InvalidRequest(
                f"no such pool: {self.pool_rows} rows of which {self.drain} leave in each of up to {self.cycles} "
                f"cycles; allowed are 1 <= drain <= pool_rows and 1 <= cycles <= {MAX_CYCLES}"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        plan = cls(int(data["pool_rows"]), int(data["drain"]), int(data["cycles"]), data["start"])
        if plan.start not in ("ramp", "full"):
            raise ValueError(f"start={plan.start!r}")
        return plan


@dataclass(frozen=True)
class PoolWish:
    """The pool as the user asked for it; None where nothing was said."""

    pool_rows: int | None = None
    pool_bytes: int | None = None
    refill_below: float | None = None
    start: Start = "ramp"


@dataclass(frozen=True)
class PoolDefaults:
    """What the server does where the user says nothing."""

    pool_rows: int = 2_000_000
    pool_bytes: int = 1 << 30
    refill_below: float = 0.75


def resolve(wish: PoolWish, defaults: PoolDefaults, epoch_rows: int, row_bytes: float) -> PlanConstants:
    """Plan constants for an epoch of `epoch_rows` rows of `row_bytes` bytes each (mean, processed).

    Raises:
        InvalidRequest: a wish out of its range, or a `pool_rows` that `pool_bytes` cannot hold.
    """
    if wish.start not in ("ramp", "full"):
        raise InvalidRequest(
            f"start={wish.start!r}: allowed are 'ramp' (first batch soon) and 'full' (pool filled first)"
        )
    rows = _positive("pool_rows", wish.pool_rows, defaults.pool_rows)
    room = _positive("pool_bytes", wish.pool_bytes, defaults.pool_bytes)
    refill_below = defaults.refill_below if wish.refill_below is None else wish.refill_below
    in_rows = refill_below > 1 and float(refill_below).is_integer()
    if not in_rows and not 0 <= refill_below <= 0.98:
        raise InvalidRequest(
            f"refill_below={refill_below}: allowed is a share of the pool from 0 to 0.98, or a whole number of "
            "rows above 1"
        )
    fits = max(1, int(room / row_bytes)) if row_bytes > 0 else rows
    rows = min(rows, epoch_rows)
    if fits < rows:
        if wish.pool_rows is not None:
            raise InvalidRequest(
                f"pool_rows={wish.pool_rows} does not fit: {rows} rows of {row_bytes:.0f} bytes need "
                f"pool_bytes={int(rows * row_bytes) + 1}, but pool_bytes is {room}; raise pool_bytes, "
                f"or leave pool_rows out to get the {fits} rows that fit"
            )
        rows = fits
    if rows >= epoch_rows:
        return PlanConstants(pool_rows=max(1, epoch_rows), drain=max(1, epoch_rows), cycles=1, start=wish.start)
    drain = max(1, rows - int(refill_below if in_rows else rows * Fraction(str(refill_below))))
    if drain * 50 < rows:
        raise InvalidRequest(
            f"refill_below={refill_below} of a pool of {rows} rows lets only {drain} leave at a time; "
            f"at least a fiftieth must: refill_below={rows - rows // 50} rows or less"
        )
    return PlanConstants(pool_rows=rows, drain=drain, cycles=_cycles(rows, drain), start=wish.start)


def _cycles(pool: int, drain: int) -> int:
    """Sixteen cycles for a mean wait of up to three; five times the mean beyond (the tail cut off stays below 1 %)."""
    if pool == drain:
        return 1
    return min(MAX_CYCLES, max(DEFAULT_CYCLES, -(-5 * (pool - drain) // drain) + 1))


def _positive(name: str, value: int | None, default: int) -> int:
    if value is None:
        return default
    if value < 1:
        raise InvalidRequest(f"{name}={value}: must be at least 1")
    return value
