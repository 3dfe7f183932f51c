"""Shard ranges: `PATH#0-99,120-` picks shards of a path by the number in their names."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from penstock_service.core.errors import InvalidRequest

_RANGE = re.compile(r"\s*(\d{1,18})\s*(?:(-)\s*(\d{1,18})?)?\s*", re.ASCII)
_LIKE_RANGES = re.compile(r"[\d\s,-]+", re.ASCII)
_NUMBERS = re.compile(r"\d{1,18}", re.ASCII)
_ALLOWED = "ranges are numbers like 0-99,120- (from 0 to 99 and from 120 on) or 7"


class Range(NamedTuple):
    """Numbers from `first` to `last`, both included; to the end where there is no `last`."""

    text: str
    first: int
    last: int | None


class Picked(NamedTuple):
    """Indices of the shards picked, ascending, and what there is to say about it."""

    indices: list[int]
    notes: list[str]


def split_ranges(path: str) -> tuple[str, str | None]:
    """`path` without the ranges behind its last "#", and the ranges; None where there are none.

    A path that exists as it is written has none: names may hold a "#".
    """
    before, mark, ranges = path.rpartition("#")
    if "://" in path and not _LIKE_RANGES.fullmatch(ranges):  # what it names cannot be looked for here
        return path, None
    if not mark or not before or "/" in ranges or os.path.lexists(os.path.expanduser(path)):  # noqa: PTH111
        return path, None
    return before, ranges


def parse_ranges(text: str) -> list[Range]:
    """Raises InvalidRequest where `text` is no list of ranges."""
    ranges = []
    for part in text.split(","):
        found = _RANGE.fullmatch(part)
        if found is None:
            what = "is empty" if not part.strip() else f"holds {part.strip()!r}, which is no range"
            raise InvalidRequest(f"shards {text!r} {what}: {_ALLOWED}")
        first = int(found[1])
        last = (int(found[3]) if found[3] else None) if found[2] else first
        if last is not None and last < first:
            raise InvalidRequest(f"shards {text!r} holds {part.strip()!r}, which ends before it begins: {_ALLOWED}")
        ranges.append(Range(part.strip(), first, last))
    return ranges


def pick(path: str, text: str, names: Sequence[str]) -> Picked:
    """The shards of `path` that the ranges in `text` name; each once. `names`: relative paths.

    Raises InvalidRequest where a range is malformed, holds no shard or goes beyond the last one.
    """
    numbers, by_name = shard_numbers(names)
    how = "by the numbers in their names" if by_name else "by position in natural order"
    highest = max(numbers)
    there = f"{path} has {len(names)} shards, {how} {min(numbers)} to {highest}"
    counts: Counter[int] = Counter()
    for one in parse_ranges(text):
        if one.first > highest or (one.last is not None and one.last > highest):
            raise InvalidRequest(f"shards {text!r}: {one.text!r} goes beyond the last shard: {there}")
        inside = [i for i, n in enumerate(numbers) if n >= one.first and (one.last is None or n <= one.last)]
        if not inside:
            raise InvalidRequest(f"shards {text!r}: {one.text!r} holds no shard: {there}")
        counts.update(inside)
    indices = sorted(counts)
    notes = [f"{path}: {len(indices)} of {len(names)} shards are taken, {how} ({text})"]
    twice = [names[i] for i in indices if counts[i] > 1]
    if twice:
        notes.append(
            f"the ranges {text!r} overlap: {len(twice)} shards are named twice and read once, {twice[0]} first"
        )
    return Picked(indices, notes)


def shard_numbers(names: Sequence[str]) -> tuple[list[int], bool]:
    """A number for each shard, and whether it stands in its name.

    Of the numbers in file names it is the first that differs between all of them: 3 in `v2-00003-of-00100.parquet`.
    Where there is none, it is the position, from 0, in natural order (`s2` before `s10`).
    """
    found = [[int(n) for n in _NUMBERS.findall(name.rpartition("/")[2])] for name in names]
    for column in zip(*found, strict=False):
        if len(set(column)) == len(names):
            return list(column), True
    ordered = sorted(range(len(names)), key=lambda i: _natural(names[i]))
    positions = [0] * len(names)
    for position, i in enumerate(ordered):
        positions[i] = position
    return positions, False


def _natural(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d{1,18})", name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]
