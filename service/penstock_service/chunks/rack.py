"""What is there, what is open, who uses it: the store's bookkeeping under one lock, which is never held over file work.

The event loop calls most of this for every bundle, so each method is short.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Final

from penstock_service.chunks.file import Opened, Place
from penstock_service.chunks.keys import Owner
from penstock_service.chunks.shelf import DiskShelf, Entry, MemoryShelf, Rule

_OWED: Final = 100_000
_TRIM_LOOKS: Final = 64  # entries looked at for one to close: most may be leased
Keys = Callable[[], Iterable[str]]


class Rack:
    """Thread-safe. Entries it returns from `take`, `seek`, `opened` and `settled` are pinned once for the caller."""

    def __init__(self, store_bytes: int, memory_bytes: int, max_open: int) -> None:
        self.disk: Final = DiskShelf(store_bytes)
        self.memory: Final = MemoryShelf(memory_bytes)
        self._max_open = max_open
        self._open: OrderedDict[str | None, Entry] = OrderedDict()  # least recently used first
        self._doomed: set[str] = set()  # being unlinked
        self._gone: set[str] = set()  # unlinked since the folder was last looked through
        self._owed: dict[str, None] = {}  # used while they were not there: made for that use
        self._lock = threading.Lock()

    # -- leases --------------------------------------------------------------------------------------------------

    def take(self, owner: Owner, keys: Collection[str | None]) -> list[Entry] | None:
        """The chunks, and `owner` held; or None (and nothing pinned) if one is not open, or has no key yet."""
        with self._lock:
            get, touch = self._open.get, self._open.move_to_end
            found = [entry for key in keys if (entry := get(key)) is not None]
            if len(found) != len(keys):
                return None
            for entry in found:
                entry.pins += 1
                touch(entry.key)
            self.disk.hold(owner)
            return found

    def give_back(self, owner: Owner, entries: Iterable[Entry]) -> None:
        """What `take` gave."""
        with self._lock:
            for entry in entries:
                entry.pins -= 1
            self.disk.unhold(owner)

    def pin(self, entry: Entry) -> None:
        with self._lock:
            entry.pins += 1

    def release(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            for entry in entries:
                entry.pins -= 1

    # -- versions ------------------------------------------------------------------------------------------------

    def know(self, owner: Owner, keys: Keys) -> None:
        """`keys` gives the keys of all chunks of `owner`; it is called at most once, off the loop."""
        with self._lock:
            self.disk.know(owner, keys)

    def hold(self, owner: Owner) -> None:
        """`owner` is in use: nothing of it goes to make room for another version."""
        with self._lock:
            self.disk.hold(owner)

    def unhold(self, owner: Owner) -> None:
        with self._lock:
            self.disk.unhold(owner)

    def drop_memory(self, owner: Owner) -> None:
        """Nobody uses `owner` any more: what of it lies in memory goes."""
        with self._lock:
            for entry in [e for e in self.memory.entries.values() if e.owner == owner and not e.pins]:
                self.memory.remove(entry)
                self._close(entry)

    def shed_memory(self, size: int) -> None:
        """Let go of `size` bytes of what lies in memory and nobody leases, or of as much as there is."""
        with self._lock:
            for entry in [e for e in self.memory.entries.values() if not e.pins]:
                if size <= 0:
                    return
                size -= entry.size
                self.memory.remove(entry)
                self._close(entry)

    def in_memory(self) -> dict[Owner | None, int]:
        """Bytes of what lies in memory."""
        found: dict[Owner | None, int] = {}
        with self._lock:
            for entry in self.memory.entries.values():
                found[entry.owner] = found.get(entry.owner, 0) + entry.size
        return found

    def unclaimed(self, size: int, owner: Owner) -> list[tuple[Owner, Keys]]:
        """Versions in use to be asked which chunks are theirs, before something is evicted to make room."""
        with self._lock:
            return [] if self.disk.fits(size) else self.disk.unclaimed(owner)

    def claim(self, owner: Owner, keys: Iterable[str]) -> None:
        theirs = [entry for key in keys if (entry := self.disk.entries.get(key))]
        with self._lock:
            for entry in theirs:
                if self._on_disk(entry):
                    self.disk.give(entry, owner)

    def stored(self) -> dict[Owner | None, tuple[int, int, bool]]:
        """Chunks and bytes on disk of each version, and whether it is held. None: not claimed yet."""
        with self._lock:
            return self.disk.stored()

    def keep_rule(self, rule: Rule) -> None:
        """Versions give way by `rule` from now on."""
        with self._lock:
            self.disk.rule = rule

    # -- what is there -------------------------------------------------------------------------------------------

    def use(self, owner: Owner, keys: Collection[str]) -> list[Entry]:
        """A segment, or a page, uses these chunks. Those that did not have to be made for it."""
        hits = []
        with self._lock:
            for key in keys:
                entry = self._open.get(key) or self.disk.entries.get(key)
                if entry is None:
                    self._owed[key] = None
                    if len(self._owed) > _OWED:
                        del self._owed[next(iter(self._owed))]
                elif entry.fresh:
                    entry.fresh = False
                else:
                    hits.append(entry)
            self.disk.use(owner, len(keys))
        return hits

    def has(self, key: str) -> bool:
        return key in self._open or key in self.disk.entries

    @property
    def open(self) -> int:
        return len(self._open)

    def found(self, files: Iterable[tuple[str, int]]) -> list[Entry]:
        """Files that lie in the folder at the start. What must be deleted of them because the cap is lower now."""
        with self._lock:
            for key, size in files:
                self.disk.found(Entry(key, size, None))
            return self.disk.shrink()

    def look(self) -> list[Entry]:
        """The folder is about to be looked through again: what was in it until now."""
        with self._lock:
            self._gone.clear()
            return [entry for entry in self.disk.entries.values() if not entry.temp]

    def looked(self, before: Iterable[Entry], files: dict[str, int]) -> None:
        """What another server wrote or deleted meanwhile is known from now on."""
        with self._lock:
            for entry in before:
                if entry.key not in files and not entry.pins and self._on_disk(entry):
                    self.disk.remove(entry)
                    self._close(entry)
            for key, size in files.items():
                if key not in self.disk.entries and key not in self._gone and key not in self._doomed:
                    self.disk.found(Entry(key, size, None))

    def seek(self, owner: Owner, key: str) -> tuple[Entry | None, bool]:
        """The chunk if it is known, and whether it is worth opening its file."""
        with self._lock:
            entry = self._open.get(key) or self.disk.entries.get(key)
            if entry:
                entry.pins += 1
                if entry.rows is not None:
                    self._opened(entry, owner)
            return entry, key not in self._doomed and (entry is None or entry.rows is None)

    def opened(self, entry: Entry | None, key: str, owner: Owner, file: Opened) -> tuple[Entry, bool]:
        """The file of what `seek` returned is mapped. Also tells whether `owner` uses it for the first time."""
        with self._lock:
            if entry is None:
                entry = self.disk.entries.get(key)
                if entry is None:  # another server made it
                    entry = Entry(key, file.size, owner)
                    self.disk.found(entry)
                entry.pins += 1
            if entry.rows is None:
                entry.info, entry.rows, entry.seconds = file.info, file.rows, file.seconds
            used_anew = entry.owner != owner
            self._opened(entry, owner)
            return entry, used_anew

    def lost(self, entry: Entry) -> None:
        """The file of what `seek` returned cannot be opened."""
        with self._lock:
            entry.pins -= 1
            if not entry.pins and entry.rows is None and self._on_disk(entry):
                self.disk.remove(entry)

    # -- room ----------------------------------------------------------------------------------------------------

    def reserve(self, size: int, owner: Owner, *, free: bool = False) -> list[Entry] | None:
        """On disk. What must be unlinked first, or None if there is no room; `free`: nothing may give way."""
        with self._lock:
            if free and not self.disk.fits(size):
                return None
            victims = self.disk.admit(size, owner)
            for victim in victims or ():
                self._doomed.add(victim.key)
                self._close(victim)
            return victims

    def unlinked(self, victim: Entry, *, gone: bool) -> None:
        with self._lock:
            self._doomed.discard(victim.key)
            self._gone.add(victim.key)
            if not gone and victim.key not in self.disk.entries:
                victim.owner = None
                self.disk.found(victim)

    def reserve_memory(self, size: int, *, demanded: bool) -> bool:
        with self._lock:
            victims = self.memory.admit(size, demanded)
            for victim in victims or ():
                self._close(victim)
            return victims is not None

    def unreserve(self, size: int, *, durable: bool) -> None:
        with self._lock:
            (self.disk if durable else self.memory).bound.leave(size)

    def settled(self, place: Place, owner: Owner, file: Opened, *, ahead: bool = False) -> Entry:
        """What was reserved is a chunk now. Its `temp` is that of `place`, or it was there already, made by another.

        `ahead`: it was made for no use at all.
        """
        shelf = self.disk if place.durable else self.memory
        with self._lock:
            entry = shelf.entries.get(place.key)
            owed = place.key in self._owed
            self._owed.pop(place.key, None)
            if entry:  # made twice, by two versions that share it
                shelf.bound.leave(place.size)
            else:
                entry = Entry(place.key, place.size, owner, memory=not place.durable, fresh=not owed and not ahead)
                entry.temp = place.temp if place.durable else ""
                shelf.add(entry)
            entry.pins += 1
            if entry.rows is None:
                entry.info, entry.rows, entry.seconds = file.info, file.rows, file.seconds
            self._opened(entry, owner)
            return entry

    def lose(self, entry: Entry) -> None:
        """Its file is no good, whoever leases it."""
        with self._lock:
            if self._on_disk(entry):
                self.disk.remove(entry)
                self._close(entry)

    def discard(self, key: str) -> Entry | None:
        """Forget it, whoever leases it. What is to be unlinked."""
        with self._lock:
            entry = self._open.pop(key, None) or self.disk.entries.get(key)
            if entry is None:
                return None
            shelf = self.memory if entry.memory else self.disk
            if shelf.entries.get(key) is entry:
                shelf.remove(entry)
            if entry.memory:
                return None
            self._doomed.add(key)
            return entry

    def close_all(self) -> None:
        with self._lock:
            for entry in list(self.memory.entries.values()):
                self.memory.remove(entry)
            for entry in list(self._open.values()):
                self._close(entry)

    # -- with the lock held --------------------------------------------------------------------------------------

    def _on_disk(self, entry: Entry) -> bool:
        return self.disk.entries.get(entry.key) is entry

    def _opened(self, entry: Entry, owner: Owner) -> None:
        self._open[entry.key] = entry
        self._open.move_to_end(entry.key)
        if entry.memory:
            self.memory.entries.move_to_end(entry.key)
        elif self._on_disk(entry):
            self.disk.give(entry, owner)
        for _ in range(_TRIM_LOOKS):
            if len(self._open) <= self._max_open:
                break
            oldest = next(iter(self._open.values()))
            if oldest.pins or oldest.memory or oldest.temp:
                self._open.move_to_end(oldest.key)
            else:
                self._close(oldest)

    def _close(self, entry: Entry) -> None:
        if self._open.get(entry.key) is entry:
            del self._open[entry.key]
        entry.rows = None
