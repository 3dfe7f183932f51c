"""Steps that are passed over: what both ends must count alike. Ranges are (epoch, begin, end), `end` not in it."""

import json
from collections.abc import Iterable
from typing import Final

Skips = tuple[tuple[int, int, int], ...]

MAX_BYTES: Final = 1024
"""Of the ranges in a cursor, as JSON: they share its 4 KiB with the journal."""


def joined(ranges: Iterable[tuple[int, int, int]]) -> Skips:
    """The same steps in as few ranges as possible, ascending."""
    found: list[tuple[int, int, int]] = []
    for epoch, begin, end in sorted(ranges):
        if begin >= end:
            continue
        if found and found[-1][0] == epoch and begin <= found[-1][2]:
            found[-1] = (epoch, found[-1][1], max(end, found[-1][2]))
        else:
            found.append((epoch, begin, end))
    return tuple(found)


def too_many(skips: Skips) -> str | None:
    """Why a cursor cannot hold them; None: it can."""
    size = len(json.dumps(skips, separators=(",", ":")))
    if size <= MAX_BYTES:
        return None
    return (
        f"{len(skips)} ranges of skipped steps need {size} bytes, and a cursor has room for {MAX_BYTES}; skip fewer "
        "and longer ranges"
    )


def skipped_from(skips: Skips, epoch: int, step: int) -> int:
    """How many steps from `step` on are skipped. `skips` as `joined` gives them."""
    return next((end - step for e, begin, end in skips if e == epoch and begin <= step < end), 0)


def until_next(skips: Skips, epoch: int, step: int) -> int | None:
    """How many steps come before the next one that is skipped; None: no skipped one follows."""
    return min((begin - step for e, begin, _ in skips if e == epoch and begin >= step), default=None)


def skipped_below(skips: Skips, epoch: int, steps: int) -> int:
    """How many of the first `steps` steps of an epoch are skipped."""
    return sum(max(0, min(end, steps) - begin) for e, begin, end in skips if e == epoch)


def named(skips: Skips) -> str:
    """For people: "steps 5 to 8 of epoch 0"; the last step named is skipped too."""
    words = [
        f"step {begin} of epoch {epoch}" if end == begin + 1 else f"steps {begin} to {end - 1} of epoch {epoch}"
        for epoch, begin, end in skips
    ]
    return ", ".join(words) or "no step"
