"""What becomes of rows that are errors: a policy, applied to a segment as it was built.

The policy belongs to a session. It is a mask over the segment, which all sessions share: no other row moves, and the
digest of the segment stays, so that another policy may follow any cursor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_proto.v1.cursor import Cursor
from penstock_service.batch.nearest import Neighbours
from penstock_service.core.errors import DataError, InvalidRequest, OrderChanged
from penstock_service.core.segment import BadUnits, ChunkSource, Cut, Fault, Segment, SegmentSource

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


Cuts = Callable[[int, int, int | None], Sequence[Cut]]
"""What the journal (its first entries, so many) leaves out of the tail of a segment: epoch, segment, entries."""


class Applied:
    """One policy at work for one feed."""

    def __init__(
        self,
        policy: Policy,
        segments: SegmentSource,
        chunks: ChunkSource,
        listener: Listener | None = None,
        cuts: Cuts = lambda epoch, segment, entries: (),
        others: Callable[[], Sequence[str]] = lambda: ("filters",),
    ) -> None:
        """`others`: what leaves rows out besides the policy, in words."""
        self.others: Final = others
        self.on_error: Final = policy.on_error
        self._policy = policy
        self._segments = segments
        self._chunks = chunks
        self._listener = listener
        self._cuts = cuts

    async def apply(self, epoch: int, built: Segment) -> Segment:
        """`built` as the policy wants it. Made once for all sessions that want the same."""
        cuts = self._cuts(epoch, built.number, None)
        if not len(built.bad) and not cuts:
            return built
        cut, chunks = self._cut(built, cuts)
        base = without(built, cut) if len(cut) else built
        if self._listener is not None and len(base.bad):
            await self._listener.heard(epoch, base)
        kind = self.on_error if self._policy.placeholder is None else "placeholder"
        kind = "skip" if kind == "quarantine" else kind
        made = built.kin.get(kind)
        if made is None:
            # Of what was lost while it was read, the rows before the cut were delivered: they are no policy's.
            which = np.flatnonzero(~np.isin(base.bad.chunk, chunks))
            made = await self._made(kind, base, which) if len(which) else base
            if kind == "skip" and len(which):
                made = replace(made, left_out=_with(cut, as_built(made.left_out, cut)))
            built.kin[kind] = made
        return made

    def counts_all(self, epoch: int, segment: int) -> bool:
        """Are bad rows units too, so that a segment has as many as it was planned with?"""
        return not self._policy.leaves_out and not self._cuts(epoch, segment, None)

    def unit_of(self, cursor: Cursor, built: Segment) -> int:
        """Where in the segment as it was built a cursor stands, which counted under a policy of its own.

        Raises OrderChanged if it is not the segment that the cursor was taken in.
        """
        cut, chunks = self._cut(built, self._cuts(cursor.epoch, built.number, int(cursor.run.get("n", 0))))
        if leaves_out(cursor.on_error):
            cut = _with(cut, built.bad.unit[~np.isin(built.bad.chunk, chunks)])
        return unit_of(cursor, built, cut)

    def _cut(self, built: Segment, cuts: Sequence[Cut]) -> tuple[I64, I64]:
        """Units that the journal leaves out of the segment's tail, and chunks they are of; both ascending."""
        units, chunks = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for part in self._segments.by_source(np.unique(built.chunk).astype(np.int64)) if cuts else ():
            start = part.dataset.manifest.chunk_start[part.own]
            for cut in cuts:
                for first, behind in cut.ranges if cut.source == part.source else ():
                    chunks.append(part.first + part.own[(start >= first) & (start < behind)])
                    found = np.flatnonzero(np.isin(built.chunk, chunks[-1]))
                    units.append(found[found >= cut.unit])
        return np.unique(np.concatenate(units)), np.unique(np.concatenate(chunks))

    async def _made(self, kind: str, base: Segment, which: I64) -> Segment:
        """What becomes of the bad units `which`, by their numbers among these."""
        if kind == "fail":
            return base
        if kind == "skip":
            return without(base, base.bad.unit[which])
        chunk, row = np.full(len(base.bad), -1, np.int64), np.full(len(base.bad), -1, np.int64)
        faults = dict(base.bad.faults)
        if kind == "placeholder":
            chunk[which], row[which] = PLACEHOLDER, 0
        else:
            await self._find_nearest(base.bad, which, chunk, row, faults)
        return substituted(base, chunk, row, faults)

    async def _find_nearest(self, bad: BadUnits, which: I64, chunk: I64, row: I64, faults: dict[int, Fault]) -> None:
        """Fill in `chunk` and `row` [bad] where there is a row, else tell it in `faults`."""
        order = which[np.argsort(bad.chunk[which], kind="stable")]
        chunks, firsts = np.unique(bad.chunk[order], return_index=True)
        units_of = dict(zip(chunks.tolist(), np.split(order, firsts[1:]), strict=True))
        for part in self._segments.by_source(chunks):
            finder = Neighbours(self._chunks, part, bad.faults)
            for own in part.own.tolist():
                here = units_of[part.first + own]
                found, row[here] = await finder.find(own, bad.stored[here])
                chunk[here] = np.where(found >= 0, found + part.first, -1)
                if (found < 0).any():
                    faults[part.first + own] = self._nothing_good(bad.take(here[found < 0][:1]))

    def _nothing_good(self, one: BadUnits) -> DataError:
        ((where, reason),) = one.reasons(self._segments.by_source)
        return DataError(
            f"no row of its shard is good, so that none can stand for it ({where}: {reason.removesuffix('.')}). "
            "Declare a placeholder, on_error={'substitute': {column: value, ...}}, or leave bad rows out with "
            "on_error='skip' or 'quarantine'"
        )


def _with(units: I64, others: I64) -> I64:
    """Both, of which none are the same, ascending. `union1d` took half a second of a million."""
    return np.sort(np.concatenate([units, others]))


def without(segment: Segment, units: I64) -> Segment:
    """The segment without `units`; no other moves."""
    kept = np.ones(segment.units, np.bool_)
    kept[units] = False
    bad = segment.bad.take(np.flatnonzero(kept[segment.bad.unit]))
    bad = replace(bad, unit=bad.unit - np.searchsorted(units, bad.unit))
    return replace(segment, chunk=segment.chunk[kept], row=segment.row[kept], bad=bad, left_out=units, kin={})


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


def unit_of(cursor: Cursor, built: Segment, left_out: I64) -> int:
    """Where in `built` a cursor stands that did not count the units `left_out`.

    Raises OrderChanged if it is not the segment that the cursor was taken in.
    """
    if cursor.digest == 0:  # the position was forced: as far into this segment as there is of it
        return raw_units(min(cursor.taken, built.units - len(left_out)), left_out)
    if built.digest != cursor.digest or cursor.taken > built.units - len(left_out):
        raise OrderChanged(
            f"segment {built.number} of epoch {cursor.epoch} is not the one this cursor was taken in: its rows have "
            f"digest {built.digest:016x} over {built.units - len(left_out)} units, the cursor says "
            f"{cursor.digest:016x} after {cursor.taken}; the data or the code that orders it changed since, or a "
            "filter cannot be asked because files are unreadable. Begin the epoch anew, or restore what was changed"
        )
    return raw_units(cursor.taken, left_out)


def as_built(units: I64, left_out: I64) -> I64:
    """Numbers in a segment as it was built, of units that are numbered without those `left_out`."""
    before = left_out - np.arange(len(left_out))  # units left, before each that is not
    return units + np.searchsorted(before, units, side="right")


def raw_units(taken: int, left_out: I64) -> int:
    """Units of a segment as it was built, up to the last of the first `taken` units that are left of it."""
    return int(as_built(np.array([taken - 1]), left_out)[0]) + 1 if taken else 0


def units_left(raw: int, left_out: I64) -> int:
    """How many of the first `raw` units of a segment as it was built are left."""
    return raw - int(np.searchsorted(left_out, raw))
