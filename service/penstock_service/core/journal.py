"""The journal of a run: what is no function of the data, as a chain of entries, each with the place it holds from.

Pure: no file, no clock. `app.journal` writes it down, a cursor carries it, `mix` obeys it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, Self, get_args

from penstock_service.core.errors import InvalidRequest, JournalConflict
from penstock_service.core.hashing import short_hash

Kind = Literal["mixture", "quarantine", "unreadable"]

EMPTY: Final = short_hash("penstock journal 1")
"""The head of a journal without entries."""
CARRIED_BYTES: Final = 2048
"""Entries travel in the cursor while they have at most so many bytes as JSON."""


class Place(NamedTuple):
    """A segment of an epoch, and the chunk set that enters with it."""

    epoch: int
    segment: int

    def __str__(self) -> str:
        return f"segment {self.segment} of epoch {self.epoch}"


@dataclass(frozen=True)
class Entry:
    """What holds from `place` on, in all later epochs too.

    `what` of a mixture: {"weights": {source: integer}}; of quarantined and of unreadable rows:
    {"rows": {source: [[first stored row, behind the last], ...]}, "reason": text}. Rows that became unreadable in the
    middle of a segment are left out of its tail too: "tail": [epoch, segment, first unit].
    """

    kind: Kind
    place: Place
    what: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "epoch": self.place.epoch, "segment": self.place.segment, **self.what}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """Raises ValueError with what is wrong."""
        if not isinstance(data, dict) or data.get("kind") not in get_args(Kind):
            raise ValueError(f"no entry of a journal: {data!r:.100}")
        place = Place(_number(data.get("epoch")), _number(data.get("segment")))
        if data["kind"] == "mixture":
            what = {"weights": {str(name): _number(w) for name, w in _object(data.get("weights")).items()}}
            return cls("mixture", place, what)
        rows = {str(name): _ranges(found) for name, found in _object(data.get("rows")).items()}
        tail = data.get("tail")
        tails = {} if tail is None else {"tail": [_number(tail[0]), _number(tail[1]), _number(tail[2])]}
        return cls(data["kind"], place, {"rows": rows, "reason": str(data.get("reason", "")), **tails})

    def text(self) -> str:
        """One spelling, for hashing and for the disk."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True)
class Carried:
    """A journal as a cursor holds it; `entries` is None where they were too long for it."""

    run: str
    n: int
    head: str
    entries: tuple[Entry, ...] | None

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> Self | None:
        """Read a cursor's `run`; None where the cursor is of no run.

        Raises:
            InvalidRequest: it is not whole.
        """
        if not run:
            return None
        try:
            n, found = _number(run["n"]), run.get("entries")
            entries = () if n == 0 else None if found is None else tuple(Entry.from_json(one) for one in found)
            carried = cls(str(run["id"]), n, str(run["head"]), entries)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the journal in the state is damaged: {error!r}") from error
        if not carried.run or (entries is not None and (len(entries) != n or _head(entries) != carried.head)):
            raise InvalidRequest(
                f"the journal in the state is damaged: {n} entries with head {carried.head} are not those in it"
            )
        return carried


@dataclass(frozen=True)
class Journal:
    """The entries of one run in the order they were written."""

    run: str
    entries: tuple[Entry, ...] = ()

    @property
    def head(self) -> str:
        """Stands for all entries and their order."""
        return _head(self.entries)

    def begins_with(self, carried: Carried) -> bool:
        return carried.n <= len(self.entries) and _head(self.entries[: carried.n]) == carried.head

    def first(self, n: int, run: str) -> Self:
        """Another run that begins with the first `n` entries."""
        return replace(self, run=run, entries=self.entries[:n])

    def append(self, entry: Entry) -> Self:
        """Raises InvalidRequest for a mixture while an entry lies ahead of it: that one would be overruled."""
        later = [old for old in self.entries if old.place > entry.place]
        if entry.kind == "mixture" and later:
            raise InvalidRequest(
                f"run {self.run} was rolled back: its journal has a {later[-1].kind} entry from {later[-1].place} on, "
                f"and the change would begin before that, in {entry.place}. To go another way from here, load the "
                "state with load_state_dict(state, branch=True): that begins a run of its own without later entries"
            )
        return replace(self, entries=(*self.entries, entry))

    def carried(self) -> dict[str, Any]:
        """What a cursor holds of it."""
        run: dict[str, Any] = {"id": self.run, "n": len(self.entries), "head": self.head}
        entries = [entry.to_json() for entry in self.entries]
        if entries and len(json.dumps(entries, separators=(",", ":"))) <= CARRIED_BYTES:
            run["entries"] = entries
        return run

    @property
    def masks(self) -> bool:
        """Does it leave rows out?"""
        return any(entry.kind != "mixture" for entry in self.entries)


def reconcile(carried: Carried, known: Journal | None, at: Place) -> Journal:
    """The journal that holds for a cursor: what the server knows of its run, or what the cursor tells of it.

    Args:
        at: the first segment of which the cursor's holder has had no row.

    Raises:
        JournalConflict: the two have parted, or what would be needed is in neither.
    """
    here = known or Journal(carried.run)
    if here.begins_with(carried):
        late = [entry for entry in here.entries[carried.n :] if entry.place < at]
        if late:
            raise JournalConflict(
                f"the state is before {at} of run {carried.run} with {carried.n} journal entries (head "
                f"{carried.head}), but here the run has {len(here.entries)} (head {here.head}), and a {late[0].kind} "
                f"entry that the state does not know holds from {late[0].place} on: the state is of an order that was "
                f"left. {_CURE}"
            )
        return here
    where = f"the state's journal of run {carried.run} has {carried.n} entries (head {carried.head}), "
    where += f"this server's has {len(here.entries)} (head {here.head})"
    if carried.n > len(here.entries):
        if carried.entries is None:
            raise JournalConflict(
                f"{where}; the entries are too long for the state, so the run can go on only where they were written: "
                "restore the state folder (--state-dir) of the server that this run was read from"
            )
        if _head(carried.entries[: len(here.entries)]) == here.head:
            return Journal(carried.run, carried.entries)
    raise JournalConflict(f"{where}, and neither begins with the other: the run was changed in two places. {_CURE}")


def branched(carried: Carried, known: Journal | None, run: str) -> Journal:
    """A new run that begins with the cursor's entries only.

    Raises:
        JournalConflict: the cursor's entries are neither in it nor here.
    """
    if carried.entries is not None:
        return Journal(run, carried.entries)
    if known is not None and known.begins_with(carried):
        return known.first(carried.n, run)
    raise JournalConflict(
        f"the state's journal of run {carried.run} has {carried.n} entries (head {carried.head}), too long for the "
        "state itself, and this server does not have them: restore the state folder (--state-dir) of the server that "
        "the run was read from"
    )


def mixtures(entries: Sequence[Entry]) -> list[tuple[Place, dict[str, int]]]:
    """Weights by source and from where they hold, ascending; of several at one place the last."""
    found = {entry.place: dict(entry.what["weights"]) for entry in entries if entry.kind == "mixture"}
    return sorted(found.items())


_CURE: Final = (
    "To go on from the state as it is, load it with load_state_dict(state, branch=True): that begins a run of its own, "
    "with the state's entries only"
)


def _head(entries: Sequence[Entry]) -> str:
    head = EMPTY
    for entry in entries:
        head = short_hash(head, entry.text())
    return head


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is no integer >= 0")
    return value


def _object(value: Any) -> dict[Any, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{value!r} is no object with names in it")
    return value


def _ranges(value: Any) -> list[list[int]]:
    found = [[_number(first), _number(behind)] for first, behind in value]
    if not found or any(first >= behind for first, behind in found):
        raise ValueError(f"{value!r:.100} are no ranges of rows")
    return found
