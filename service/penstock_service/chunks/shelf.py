"""The policy of the store: what fits, what goes. No files, no threads, no clock.

Within the versions in use what is there stays, and more is admitted while there is room: least-recently-used thrashes
on a scan that is larger than the cap. Between versions the least recently used one gives way first. Nothing that is
leased ever goes.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa

from penstock_service.chunks.keys import Owner
from penstock_service.core.channel import Bound
from penstock_service.core.chunk import ChunkInfo


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


@dataclass(slots=True)
class _Version:
    holds: int = 0
    entries: dict[str, Entry] = field(default_factory=dict)
    keys: Callable[[], Iterable[str]] | None = None  # of all its chunks
    claimed: bool = False  # all that lies in the folder and is its own


class DiskShelf:
    """What lies in the store folder, and which version it belongs to."""

    def __init__(self, limit: int) -> None:
        self.bound = Bound("store", limit)
        self.entries: dict[str, Entry] = {}
        self.evicted = 0
        self._versions: OrderedDict[Owner | None, _Version] = OrderedDict({None: _Version()})

    def know(self, owner: Owner, keys: Callable[[], Iterable[str]]) -> None:
        self._version(owner).keys = keys

    def hold(self, owner: Owner) -> None:
        self._version(owner).holds += 1
        self._versions.move_to_end(owner)

    def unhold(self, owner: Owner) -> None:
        self._version(owner).holds -= 1

    def add(self, entry: Entry) -> None:
        """Room for it was reserved by `admit`."""
        self.entries[entry.key] = entry
        self._version(entry.owner).entries[entry.key] = entry

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
            self._version(owner).entries[entry.key] = entry

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
        others = (v.entries.values() for o, v in self._versions.items() if o not in (None, asking) and not v.holds)
        return (entry for entry in chain(unclaimed, *others) if not entry.pins)

    def _version(self, owner: Owner | None) -> _Version:
        version = self._versions.get(owner)
        if version is None:
            version = self._versions[owner] = _Version()
        return version


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
