"""A run as it is told to those who ask, and what they are told when they change it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock_service.core.errors import InvalidRequest


@dataclass(frozen=True)
class RunStatus:
    """A run that has sessions here, or entries in the journal."""

    run: str
    job: str
    stream: str  # its name within the job
    datasets: tuple[str, ...]  # NAME@VERSION; empty while no session is open
    world_size: int  # 0 while no session is open
    ranks: tuple[int, ...]  # those with a session here, ascending
    epoch: int | None  # the first place of which no rank holds a row; None while no session is open
    segment: int | None
    head: str
    entries: tuple[dict[str, Any], ...]  # as in a cursor


@dataclass(frozen=True)
class Began:
    """An entry that was written: from where on it holds."""

    run: str
    n: int  # entries of the run's journal now
    head: str
    epoch: int
    segment: int
    step: int  # of that epoch: the first that may hold a row of that segment
    exact: bool  # False: `step` is an estimate
    complete_epoch: int  # from here on no row is left that entered before
    complete_segment: int
    complete_step: int  # about
    carried: str  # JSON, as in a cursor's `run`


def row_ranges(rows: Sequence[int | str], stored: int, dataset: str) -> list[list[int]]:
    """Ranges [first, behind the last] of rows given as numbers and as "FIRST-LAST", of a dataset of `stored` rows.

    Raises:
        InvalidRequest: none given, too many, one that is no row of it.
    """
    found: list[list[int]] = []
    for row in rows:
        first, dash, last = str(row).strip().partition("-")
        if not first.isdecimal() or not (last if dash else first).isdecimal():
            raise InvalidRequest(f"row {row!r} of {dataset}: give row numbers, or ranges such as 40-49")
        begin, behind = int(first), int(last if dash else first) + 1
        if begin >= behind or behind > stored:
            raise InvalidRequest(f"row {row!r} of {dataset}: it has rows 0 to {stored - 1}, as stored")
        found.append([begin, behind])
    if not found:
        raise InvalidRequest(f"no row of {dataset} was named: give row numbers, or ranges such as 40-49")
    joined: list[list[int]] = []
    for begin, behind in sorted(found):
        if joined and begin <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], behind)
        else:
            joined.append([begin, behind])
    if len(joined) > MOST_RANGES:
        raise InvalidRequest(
            f"{len(joined)} separate ranges of rows of {dataset}: at most {MOST_RANGES} at a time; a filter among the "
            "stream's row transforms (docs/transforms.md) can leave out any number"
        )
    return joined


MOST_RANGES = 10_000
