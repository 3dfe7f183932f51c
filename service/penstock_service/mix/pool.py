"""The mixing pool: which rows a segment holds and in which order, as a pure function of (plan, seed, epoch, segment).

A row enters with its chunk set, waits as many cycles as its delay hash says, and leaves in the order of its place hash.
Both hashes know nothing but (seed, epoch, pass, row id); ties of the place hash go by row id. What is remembered here
(rows that wait, split by the segment they leave in) is only a memo.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from penstock_service.core.hashing import U64, hash_rows, key_of, rehash
from penstock_service.core.plan import PlanConstants
from penstock_service.mix.delay import delays, first_fill_thresholds, thresholds
from penstock_service.mix.epochs import Epochs
from penstock_service.mix.passes import PassOrder

SOURCE_SHIFT: Final = 48
"""A row id is source << 48 | stored position."""
POSITION_MASK: Final = (1 << SOURCE_SHIFT) - 1

_PLACE: Final = 0x504C_4143_45  # which hash this is; part of what the golden vectors pin
_DELAY: Final = 0xD31A_5C0F_FEE5_EED5

_POOLS_REMEMBERED: Final = 3
_TOGETHER: Final = 1 << 20  # rows to be let in from which threads are worth it
_THREADS: Final = 4  # each takes memory for its set
_BLOCK: Final = 1 << 17  # rows hashed and sorted out at a time

_Waiting = tuple[U64, U64]  # row ids and place hashes
_Sorted = tuple[U64, U64, npt.NDArray[np.uint8]]  # and the cycles they wait
_NOTHING: Final[_Sorted] = (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, np.uint8))


class Entering(NamedTuple):
    """Rows of one source that enter the pool with a chunk set, and the shards they lie in (ascending)."""

    source: int
    rows: int
    shards: list[int]


class Order(Protocol):
    """The one global order of a stream's rows, segment by segment."""

    def sets(self, epoch: int) -> int:
        """Chunk sets of the epoch; each enters with the segment of its number."""
        ...

    def segments(self, epoch: int) -> int: ...

    def rows(self, epoch: int) -> int: ...

    def unread(self, epoch: int) -> int: ...

    def segment_rows(self, epoch: int, segment: int) -> U64:
        """Row ids of a segment in their order."""
        ...

    def segment_units(self, epoch: int, segment: int) -> int:
        """How many row ids those are; asking for them next costs little more."""
        ...

    def entering(self, epoch: int, segment: int) -> list["Entering"]:
        """What comes into the pool just before the segment leaves it."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        ...

    def forget(self) -> None:
        """Drop what is remembered; it can be made again."""
        ...

    def save(self, on: bool) -> None:
        """Whether nothing is remembered from now on, at the price of hashing each set again for every segment."""
        ...


class MixingPool:
    """The order made by mixing. May be asked from several threads; one at a time computes."""

    def __init__(
        self,
        epochs: Epochs,
        plan: PlanConstants,
        shard_starts: Sequence[npt.NDArray[np.int64]],
        seed: int,
        reshuffle: bool = True,
    ) -> None:
        self._epochs = epochs
        self._plan = plan
        self._seed = seed
        self._reshuffle = reshuffle
        self._passes = [PassOrder(i, start, seed) for i, start in enumerate(shard_starts)]
        self._waiting: dict[tuple[int, int, int], _Waiting] = {}  # by (epoch, set, cycles waited)
        self._counted: tuple[int, int, list[_Waiting]] | None = None  # the segment that was counted last
        self._lock = Lock()
        self._saving = False
        shape = (plan.pool_rows, plan.drain, plan.cycles)
        self._limits = thresholds(*shape)
        self._first_limits = first_fill_thresholds(*shape) if plan.start == "full" else self._limits

    def sets(self, epoch: int) -> int:
        return self._epochs.of(epoch).sets

    def segments(self, epoch: int) -> int:
        return self._epochs.of(epoch).segments

    def rows(self, epoch: int) -> int:
        return self._epochs.of(epoch).rows

    def unread(self, epoch: int) -> int:
        return self._epochs.of(epoch).unread

    def entering(self, epoch: int, segment: int) -> list[Entering]:
        schedule, shuffled = self._epochs.of(epoch), self._shuffled(epoch)
        if segment >= schedule.sets:
            return []
        return [
            Entering(
                take.source, take.stop - take.start, self._passes[take.source].shards(shuffled, take.start, take.stop)
            )
            for take in schedule.takes(segment)
        ]

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        counted = self._counted[2] if self._counted is not None else []
        return sum(ids.nbytes + place.nbytes for ids, place in [*list(self._waiting.values()), *counted])

    def segment_rows(self, epoch: int, segment: int) -> U64:
        with self._lock:
            parts = self._parts(epoch, segment)
            self._counted = None
        if not parts:
            return np.empty(0, np.uint64)
        ids = np.concatenate([p[0] for p in parts])
        place = np.concatenate([p[1] for p in parts])
        del parts  # of a large pool it is as much again
        return in_place_order(ids, place)

    def segment_units(self, epoch: int, segment: int) -> int:
        with self._lock:
            parts = self._parts(epoch, segment)
            self._counted = (epoch, segment, parts)
        return sum(len(ids) for ids, _ in parts)

    def forget(self) -> None:
        with self._lock:
            self._waiting.clear()
            self._counted = None

    def save(self, on: bool) -> None:
        self._saving = on

    def _parts(self, epoch: int, segment: int) -> list[_Waiting]:
        """Rows of each set that leave with `segment`."""
        if self._counted is not None and self._counted[:2] == (epoch, segment):
            return self._counted[2]
        first = max(0, segment - self._plan.cycles + 1)
        sets = range(first, min(segment, self._epochs.of(epoch).sets - 1) + 1)
        self._admit_together(epoch, sets, segment)
        parts = [self._leaving(epoch, number, segment) for number in sets]
        self._forget()
        return parts

    def _admit_together(self, epoch: int, sets: range, segment: int) -> None:
        """After a seek most sets are wanted at once: they share nothing, and NumPy lets go of the GIL."""
        missing = [number for number in sets if (epoch, number, segment - number) not in self._waiting]
        if self._saving or len(missing) < 2 or len(missing) * self._plan.drain < _TOGETHER:
            return
        with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1, _THREADS), "seek") as threads:
            for done in [threads.submit(self._admit, epoch, number, segment - number) for number in missing]:
                done.result()

    def _shuffled(self, epoch: int) -> int:
        """The epoch that the hashes know."""
        return epoch if self._reshuffle else 0

    def _leaving(self, epoch: int, number: int, segment: int) -> _Waiting:
        """Rows of set `number` that leave with `segment`; they are handed out once, then made again."""
        found = self._waiting.pop((epoch, number, segment - number), None)
        if found is None:
            self._admit(epoch, number, from_cycle=segment - number)
            found = self._waiting.pop((epoch, number, segment - number))
        if self._saving:
            self._waiting.clear()
        return found

    def _admit(self, epoch: int, number: int, from_cycle: int) -> None:
        """Let set `number` in: split its rows by the cycle they leave in, from `from_cycle` on."""
        limits = self._first_limits if number == 0 else self._limits
        gone, limits = limits[:from_cycle], limits[from_cycle:]
        parts: list[_Sorted] = []
        for ids, place in self._entering_rows(epoch, number):
            late = rehash(place, _DELAY)
            if gone:  # after a seek most rows have left already: only the others are sorted out
                still = np.flatnonzero(late >= np.uint64(gone[-1]))  # thrice as quick as by truth
                ids, place, late = ids[still], place[still], late[still]
            parts.append((ids, place, delays(late, limits)))
        ids, place, wait = (np.concatenate(column) for column in zip(*(parts or [_NOTHING]), strict=True))
        by_wait = np.argsort(wait, kind="stable")  # uint8: a radix sort
        edges = np.searchsorted(wait[by_wait], np.arange(self._plan.cycles - from_cycle + 1))
        for cycle in range(from_cycle, self._plan.cycles):
            chosen = by_wait[edges[cycle - from_cycle] : edges[cycle - from_cycle + 1]]
            self._waiting[epoch, number, cycle] = (ids[chosen], place[chosen])

    def _entering_rows(self, epoch: int, number: int) -> Iterator[_Waiting]:
        """All rows of set `number`, so many at a time that what is made of them stays in the second-level cache."""
        shuffled = self._shuffled(epoch)
        gathered: defaultdict[int, list[U64]] = defaultdict(list)  # of each pass: small sources are hashed together
        rows: Counter[int] = Counter()
        for take in self._epochs.of(epoch).takes(number):
            tag = np.int64(take.source << SOURCE_SHIFT)
            for start in range(take.start, take.stop, _BLOCK):
                stop = min(start + _BLOCK, take.stop)
                for pass_number, positions in self._passes[take.source].positions(shuffled, start, stop):
                    positions |= tag
                    gathered[pass_number].append(positions.view(np.uint64))
                    rows[pass_number] += len(positions)
                    if rows[pass_number] >= _BLOCK:
                        yield self._placed(shuffled, pass_number, gathered.pop(pass_number))
                        rows[pass_number] = 0
        for pass_number, parts in gathered.items():
            yield self._placed(shuffled, pass_number, parts)

    def _placed(self, shuffled: int, pass_number: int, parts: list[U64]) -> _Waiting:
        ids = np.concatenate(parts) if len(parts) > 1 else parts[0]
        return ids, hash_rows(key_of(_PLACE, self._seed, shuffled, pass_number), ids)

    def _forget(self) -> None:
        """Keep what a few readers at different places need: oldest first goes what is beyond three pools."""
        rows = sum(len(ids) for ids, _ in self._waiting.values())
        for key in list(self._waiting):
            if rows <= _POOLS_REMEMBERED * self._plan.pool_rows:
                return
            rows -= len(self._waiting.pop(key)[0])


class InOrder:
    """The order without mixing: source after source as stored, in blocks of `drain` rows. Remembers nothing."""

    nbytes = 0

    def forget(self) -> None:
        pass

    def save(self, on: bool) -> None:
        pass

    def __init__(self, rows: Sequence[int], drain: int, epoch_rows: int | None = None) -> None:
        self._edges = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.array(rows, np.int64), out=self._edges[1:])
        self._drain = drain
        stored = int(self._edges[-1])
        self._stored = stored
        self._rows = stored if epoch_rows is None else min(stored, epoch_rows)

    def sets(self, epoch: int) -> int:
        return max(1, -(-self._rows // self._drain))

    def segments(self, epoch: int) -> int:
        return self.sets(epoch)

    def rows(self, epoch: int) -> int:
        return self._rows

    def unread(self, epoch: int) -> int:
        return self._stored - self._rows

    def segment_rows(self, epoch: int, segment: int) -> U64:
        first, last = min(segment * self._drain, self._rows), min((segment + 1) * self._drain, self._rows)
        at = np.arange(first, last, dtype=np.int64)
        source = np.searchsorted(self._edges, at, side="right") - 1
        return (at - self._edges[source]).astype(np.uint64) | (source.astype(np.uint64) << np.uint64(SOURCE_SHIFT))

    def segment_units(self, epoch: int, segment: int) -> int:
        return max(0, min((segment + 1) * self._drain, self._rows) - min(segment * self._drain, self._rows))

    def entering(self, epoch: int, segment: int) -> list[Entering]:  # nothing enters a pool that is by-passed
        return []


def in_place_order(ids: U64, place: U64) -> U64:
    """`ids` [n] by their `place` hashes [n], equal ones by id.

    Numbers are sorted three times as quickly as numbers of numbers: the place of a row takes the low bits of its hash,
    and what only those bits had told apart is sorted afterwards. Of a million rows that is one pair in 30 segments.
    """
    n = len(ids)
    bits = np.uint64(max(1, (n - 1).bit_length()))
    low = (np.uint64(1) << bits) - np.uint64(1)
    packed = (place & ~low) | np.arange(n, dtype=np.uint64)
    packed.sort()
    order = (packed & low).view(np.int64)
    np.right_shift(packed, bits, out=packed)
    tied = np.flatnonzero(packed[1:] == packed[:-1])
    if len(tied):
        at = np.union1d(tied, tied + 1)
        some = order[at]
        order[at] = some[np.lexsort((ids[some], place[some]))]
    return ids[order]
