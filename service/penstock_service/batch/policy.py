"""What becomes of rows that are errors: a policy, applied to a segment as it was built.

The policy belongs to a session. It is a mask over the segment, which all sessions share: no other row moves, and the
digest of the segment stays, so that another policy may follow any cursor.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.nearest import Neighbours
from penstock_service.core.errors import DataError, InvalidRequest
from penstock_service.core.segment import BadUnits, ChunkSource, Fault, Segment, SegmentSource, no_units

I64 = npt.NDArray[np.int64]

OnError = Literal["fail", "skip", "substitute", "quarantine"]

PLACEHOLDER: Final = 0xFFFF_FFFF
"""The chunk of the one row that stands for bad ones; no chunk of a stream has this number."""


@dataclass(frozen=True)
class Policy:
    """What a session wants done about bad rows."""

    on_error: OnError = "fail"
    placeholder: pa.RecordBatch | None = None  # one row, with the columns that are delivered

    def __post_init__(self) -> None:
        if self.on_error not in get_args(OnError):
            raise InvalidRequest(
                f"on_error={self.on_error!r}: allowed are 'fail', 'skip', 'substitute' and 'quarantine'"
            )
        if self.placeholder is not None and self.on_error != "substitute":
            raise InvalidRequest(f"a placeholder is for on_error='substitute', not for {self.on_error!r}")

    @property
    def leaves_out(self) -> bool:
        """Are bad rows no units? Then nobody knows beforehand how many steps an epoch has."""
        return leaves_out(self.on_error)


def leaves_out(on_error: str) -> bool:
    return on_error in ("skip", "quarantine")


class Listener(Protocol):
    """Hears of bad rows before what is done about them takes effect."""

    async def heard(self, epoch: int, segment: Segment) -> None: ...


class Applied:
    """One policy at work for one feed."""

    def __init__(
        self, policy: Policy, segments: SegmentSource, chunks: ChunkSource, listener: Listener | None = None
    ) -> None:
        self.on_error: Final = policy.on_error
        self._policy = policy
        self._segments = segments
        self._chunks = chunks
        self._listener = listener

    async def apply(self, epoch: int, built: Segment) -> Segment:
        """`built` as the policy wants it. Made once for all sessions that want the same."""
        if not len(built.bad):
            return built
        if self._listener is not None:
            await self._listener.heard(epoch, built)
        if self.on_error == "fail":
            return built
        kind = self.on_error if self._policy.placeholder is None else "placeholder"
        kind = "skip" if kind == "quarantine" else kind
        made = built.kin.get(kind)
        if made is None:
            made = built.kin[kind] = await self._made(kind, built)
        return made

    async def _made(self, kind: str, built: Segment) -> Segment:
        if kind == "skip":
            return without(built, built.bad.unit)
        if kind == "placeholder":
            count = len(built.bad)
            return substituted(
                built, np.full(count, PLACEHOLDER, np.int64), np.zeros(count, np.int64), built.bad.faults
            )
        return await self._nearest(built)

    async def _nearest(self, built: Segment) -> Segment:
        bad = built.bad
        order = np.argsort(bad.chunk, kind="stable")
        chunks, firsts = np.unique(bad.chunk[order], return_index=True)
        units_of = dict(zip(chunks.tolist(), np.split(order, firsts[1:]), strict=True))
        chunk, row = np.full(len(bad), -1, np.int64), np.full(len(bad), -1, np.int64)
        faults = dict(bad.faults)
        for part in self._segments.by_source(chunks):
            finder = Neighbours(self._chunks, part, bad.faults)
            for own in part.own.tolist():
                here = units_of[part.first + own]
                found, row[here] = await finder.find(own, bad.stored[here])
                chunk[here] = np.where(found >= 0, found + part.first, -1)
                if (found < 0).any():
                    faults[part.first + own] = _nothing_good(bad.take(here[found < 0][:1]))
        return substituted(built, chunk, row, faults)


def without(segment: Segment, units: I64) -> Segment:
    """The segment without bad `units`; no other moves."""
    kept = np.ones(segment.units, np.bool_)
    kept[units] = False
    return replace(segment, chunk=segment.chunk[kept], row=segment.row[kept], bad=no_units(), left_out=units, kin={})


def substituted(segment: Segment, chunk: I64, row: I64, faults: Mapping[int, Fault]) -> Segment:
    """The segment with (chunk, row) [bad] in place of its bad units; those with chunk -1 stay bad."""
    found = np.flatnonzero(chunk >= 0)
    at = segment.bad.unit[found]
    chunks, rows = segment.chunk.copy(), segment.row.copy()
    chunks[at], rows[at] = chunk[found], row[found]
    left = segment.bad.take(np.flatnonzero(chunk < 0))
    return replace(
        segment,
        chunk=chunks,
        row=rows,
        bad=BadUnits(left.unit, left.chunk, left.stored, {c: faults[c] for c in left.faults}),
        stand_ins=segment.bad.take(found),
        kin={},
    )


def _nothing_good(one: BadUnits) -> DataError:
    ((where, reason),) = one.reasons()
    return DataError(
        f"{where}: {reason}; and no row of its shard is good, so that none can stand for it. Declare a placeholder, "
        "on_error={'substitute': {column: value, ...}}, or leave bad rows out with on_error='skip' or 'quarantine'"
    )


def raw_units(taken: int, left_out: I64) -> int:
    """Units of a segment as it was built, up to the last of the first `taken` units that are left of it."""
    if not taken:
        return 0
    before = left_out - np.arange(len(left_out))  # units left, before each that is not
    return taken + int(np.searchsorted(before, taken - 1, side="right"))


def units_left(raw: int, left_out: I64) -> int:
    """How many of the first `raw` units of a segment as it was built are left."""
    return raw - int(np.searchsorted(left_out, raw))
