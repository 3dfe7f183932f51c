"""Which ranges of an object to ask for, and in which order: arithmetic, no I/O."""

from typing import NamedTuple

from penstock_service.source.place import Expected, Range

HOLE_BYTES = 64 << 10  # reading so much too much costs less than another request
BUFFER_BYTES = 1 << 20  # who reads ranges side by side takes so much of each at a time (Parquet: of each column)


class Part(NamedTuple):
    """One request. `needed` bytes of it will be read, the others lie between."""

    offset: int
    length: int
    needed: int

    @property
    def end(self) -> int:
        return self.offset + self.length


class Plan(NamedTuple):
    """Parts that do not overlap."""

    by_offset: tuple[Part, ...]
    in_turn: tuple[int, ...]  # places in `by_offset`, in the order in which they will be needed


def plan(expected: Expected, size: int, part_bytes: int, buffer_bytes: int = BUFFER_BYTES) -> Plan:
    """Small ranges that lie together become one part, large ones are cut; those of one group are read side by side, so
    that the n-th part of one is needed about when the n-th part of another is."""
    parts: dict[Part, tuple[int, float]] = {}
    covered = 0  # groups come in the order of the file: what lies before is planned
    for turn, group in enumerate(expected):
        ranges = [r for r in sorted(group) if r.length > 0 and r.offset >= covered and r.offset + r.length <= size]
        for joined, needed in _joined(ranges, part_bytes):
            count = -(-joined.length // part_bytes)
            for i in range(count):
                first, end = (joined.offset + joined.length * n // count for n in (i, i + 1))
                parts[Part(first, end - first, needed if count == 1 else end - first)] = (
                    turn,
                    _when(first, joined, buffer_bytes),
                )
            covered = max(covered, joined.offset + joined.length)
    by_offset = tuple(sorted(parts))
    turns = [parts[part] for part in by_offset]
    return Plan(by_offset, tuple(sorted(range(len(by_offset)), key=lambda i: (turns[i], i))))


def _when(first: int, of: Range, buffer_bytes: int) -> float:
    """When byte `first` of a range is read, as a share of the time that all takes."""
    return max(first - of.offset - buffer_bytes + 1, 0) / of.length


def _joined(ranges: list[Range], part_bytes: int) -> list[tuple[Range, int]]:
    """Neighbours put together as long as they make one part, each with the bytes needed of it."""
    joined: list[tuple[Range, int]] = []
    for r in ranges:
        if joined:
            last, needed = joined[-1]
            end = last.offset + last.length
            if r.offset < end:
                continue  # overlaps what is already planned
            if r.offset - end <= HOLE_BYTES and r.offset + r.length - last.offset <= part_bytes:
                joined[-1] = (Range(last.offset, r.offset + r.length - last.offset), needed + r.length)
                continue
        joined.append((r, r.length))
    return joined
