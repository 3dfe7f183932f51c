"""The policy of the store: what fits, what goes. No files, no threads, no clock.

Within the versions in use what is there stays, and more is admitted while there is room: least-recently-used thrashes
on a scan that is larger than the cap. Between versions a rule says which gives way first. Nothing that is leased ever
goes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from math import inf, log2
from typing import Final, Literal, get_args

import pyarrow as pa

from penstock_service.chunks.keys import Owner
from penstock_service.core.channel import Bound
from penstock_service.core.chunk import ChunkInfo

Rule = Literal["lru", "lfu", "fifo"]
"""Of versions that nobody uses, this gives way first. lru: the one used longest ago; lfu: the one whose chunks were
used least often; fifo: the one that came first."""

RULES: Final[tuple[Rule, ...]] = get_args(Rule)


@dataclass(slots=True, eq=False)
class Entry:
    """A chunk that is there: on disk, or in memory (then only its mapping holds it)."""

    key: str
    size: int  # of its file
    owner: Owner | None  # the version that last opened it; None: found at start, not yet claimed
    memory: bool = False
    pins: int = 0  # leases, and calls that gather what they will lease
    info: ChunkInfo | None = None
    rows: pa.RecordBatch | None = None  # mapped
    seconds: float = 0.0  # that making it took; 0: not known
    fresh: bool = False  # made, and the use that it was made for is not counted yet
    temp: str = ""  # where it lies until it is synced


@dataclass(slots=True)
class _Version:
    holds: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    keys: Callable[[], Iterable[str]] | None = None  # of all its chunks
    claimed: bool = False  # all that lies in the folder and is its own
    used: int = 0  # when it was last used, and when it came, on the shelf's own clock
    came: int = 0
    uses: float = 0  # of its chunks
    most: float = 0  # chunks that it had at a time

    @property
    def frequency(self) -> float:
        """How often each of its chunks was used, in steps: about equally often is equally often."""
        return round(2 * log2(self.uses / self.most)) if self.uses and self.most else -inf


class DiskShelf:
    """What lies in the store folder, and which version it belongs to."""

    def __init__(self, limit: int, rule: Rule = "lru") -> None:
        self.bound = Bound("store", limit)
        self.entries: dict[str, Entry] = {}
        self.evicted = 0
        self.rule: Rule = rule
        self._clock = 0
        self._versions: dict[Owner | None, _Version] = {None: _Version()}

    def know(self, owner: Owner, keys: Callable[[], Iterable[str]]) -> None:
        self._version(owner).keys = keys

    def hold(self, owner: Owner) -> None:
        version = self._version(owner)
        version.holds += 1
        version.used = self._tick()

    def unhold(self, owner: Owner) -> None:
        self._version(owner).holds -= 1

    def use(self, owner: Owner, chunks: int = 1) -> None:
        """So many chunks of `owner` were used."""
        version = self._version(owner)
        version.uses += chunks
        version.used = self._tick()

    def thin(self, keys: Iterable[str], share: float) -> None:
        """Only a share of the chunks is followed from now on: `keys` go, and what was counted stands for fewer."""
        for key in keys:
            if entry := self.entries.get(key):
                self.remove(entry)
        for version in self._versions.values():
            version.uses *= share
            version.most *= share

    def stored(self) -> dict[Owner | None, tuple[int, int, bool]]:
        """Chunks and bytes of each version, and whether it is held. None: not claimed yet."""
        return {
            owner: (len(v.entries), sum(e.size for e in v.entries.values()), v.holds > 0)
            for owner, v in self._versions.items()
            if v.entries or v.holds
        }

    def add(self, entry: Entry) -> None:
        """Room for it was reserved by `admit`."""
        self.entries[entry.key] = entry
        self._own(entry)

    def found(self, entry: Entry) -> None:
        """A file that this process has not made."""
        self.bound.enter(entry.size)
        if entry.owner is None:
            for version in self._versions.values():
                version.claimed = False
        self.add(entry)

    def remove(self, entry: Entry) -> None:
        del self.entries[entry.key]
        del self._version(entry.owner).entries[entry.key]
        self.bound.leave(entry.size)

    def give(self, entry: Entry, owner: Owner) -> None:
        """`owner` uses it now."""
        if entry.owner != owner:
            del self._version(entry.owner).entries[entry.key]
            entry.owner = owner
            self._own(entry)

    def unclaimed(self, asking: Owner) -> list[tuple[Owner, Callable[[], Iterable[str]]]]:
        """Versions in use that have not said yet which of the chunks that were found are theirs."""
        if not self._version(None).entries:
            return []
        asked = []
        for owner, version in self._versions.items():
            if owner is not None and version.keys and not version.claimed and (version.holds or owner == asking):
                version.claimed = True
                asked.append((owner, version.keys))
        return asked

    def fits(self, size: int) -> bool:
        return self.bound.used + size <= self.bound.limit

    def admit(self, size: int, asking: Owner) -> list[Entry] | None:
        """Reserve `size` bytes. Returns what must be deleted first (forgotten here), or None if there is no room."""
        victims = _make_room(self.bound, size, self._candidates(asking))
        if victims is None:
            return None
        for victim in victims:
            self.remove(victim)
        self.evicted += len(victims)
        self.bound.enter(size)
        return victims

    def shrink(self) -> list[Entry]:
        """What must be deleted because the cap was lowered since the files were made: the oldest."""
        victims = []
        for entry in list(self.entries.values()):
            if self.bound.used <= self.bound.limit:
                break
            self.remove(entry)
            victims.append(entry)
        return victims

    def _candidates(self, asking: Owner) -> Iterator[Entry]:
        unclaimed = self._version(None).entries.values()
        others = sorted(
            (v for o, v in self._versions.items() if o not in (None, asking) and v.entries and not v.holds),
            key=self._rank,
        )
        return (entry for entry in chain(unclaimed, *(v.entries.values() for v in others)) if not entry.pins)

    def _rank(self, version: _Version) -> tuple[float, int]:
        """The least gives way first."""
        match self.rule:
            case "lru":
                return (0, version.used)
            case "lfu":
                return (version.frequency, version.used)
            case "fifo":
                return (0, version.came)

    def _own(self, entry: Entry) -> None:
        version = self._version(entry.owner)
        if not version.entries:
            version.came = self._tick()
        version.entries[entry.key] = entry
        version.most = max(version.most, len(version.entries))

    def _version(self, owner: Owner | None) -> _Version:
        version = self._versions.get(owner)
        if version is None:
            version = self._versions[owner] = _Version(used=self._tick())
        return version

    def _tick(self) -> int:
        self._clock += 1
        return self._clock


class MemoryShelf:
    """What was handed over through memory because the disk could not take it, least recently used first."""

    def __init__(self, limit: int) -> None:
        self.bound = Bound("chunk memory", limit)
        self.entries: OrderedDict[str, Entry] = OrderedDict()

    def add(self, entry: Entry) -> None:
        self.entries[entry.key] = entry

    def remove(self, entry: Entry) -> None:
        del self.entries[entry.key]
        self.bound.leave(entry.size)

    def admit(self, size: int, demanded: bool) -> list[Entry] | None:
        """Reserve `size` bytes. A demand displaces what is not leased; a hint takes free room only."""
        candidates = (e for e in self.entries.values() if not e.pins) if demanded else iter(())
        victims = _make_room(self.bound, size, candidates)
        if victims is None:
            return None
        for victim in victims:
            self.remove(victim)
        self.bound.enter(size)
        return victims


def _make_room(bound: Bound, size: int, candidates: Iterator[Entry]) -> list[Entry] | None:
    victims: list[Entry] = []
    free = bound.limit - bound.used
    if size > bound.limit:
        return None
    while free < size:
        victim = next(candidates, None)
        if victim is None:
            return None
        victims.append(victim)
        free += victim.size
    return victims
