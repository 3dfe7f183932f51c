"""The chunk store: where chunks lie, what is open, what goes. Files here, policy in `shelf`.

Every method that touches files says so ("blocking") and is called off the event loop; the others take a lock that is
never held over file work, and are short.
"""

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from penstock_service.chunks.file import BadFile, Place, open_file
from penstock_service.chunks.folder import Folder, make_memory_folder, memory_parents, remove, sweep_memory
from penstock_service.chunks.keys import Owner
from penstock_service.chunks.shelf import DiskShelf, Entry, MemoryShelf
from penstock_service.core.channel import Bound
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import Unavailable

logger = logging.getLogger(__name__)

Want = Literal["demand", "hint"]

_REST_SECONDS: Final = 30.0  # how long the disk is left alone after it refused a file
_SCAN_SHARE: Final = (
    32  # the folder is looked through again when 1/32 of the cap was written: another server may use it
)
_TRIM_LOOKS: Final = 64


@dataclass(frozen=True)
class StoreNumbers:
    """`store` and `memory` are bounds in bytes. `trouble` is why chunks are not written to disk now, or empty."""

    store: Bound
    memory: Bound
    chunks: int
    open: int
    evicted: int
    bad_files: int
    trouble: str


class Store:
    """Chunks on disk below `store_bytes`, and in memory below `memory_bytes` where the disk cannot take them.

    Without a folder, or with `store_bytes=0`, everything is handed over through memory.
    """

    def __init__(
        self,
        folder: Path | None,
        store_bytes: int,
        memory_bytes: int = 512 << 20,
        *,
        max_open: int = 4096,  # mappings; the kernel's limit on them is 65,530
        memory_folders: Sequence[Path] | None = None,
    ) -> None:
        self._disk = DiskShelf(store_bytes)
        self._memory = MemoryShelf(memory_bytes)
        self._folder = Folder(folder, durable=True) if folder and store_bytes > 0 else None
        self._memory_parents = list(memory_folders) if memory_folders is not None else memory_parents()
        self._memory_folder: Folder | None = None
        self._max_open = max_open
        self._open: OrderedDict[str | None, Entry] = OrderedDict()  # least recently used first
        self._doomed: set[str] = set()  # being unlinked
        self._gone: set[str] = set()  # unlinked since the folder was last looked through
        self._lock = threading.Lock()
        self._written = 0
        self._trouble = ""
        self._rests_until = 0.0
        self._bad_files = 0

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Blocking. Sweeps what dead processes left and finds what is there."""
        sweep_memory(self._memory_parents)
        if self._folder is None:
            return
        try:
            self._folder.make()
            self._folder.sweep()
            found = self._folder.scan()
        except OSError as error:
            self._disk_refused(f"{error.strerror} ({self._folder.path})")
            return
        with self._lock:
            for key, size, _ in found:
                if key not in self._disk.entries:
                    self._disk.found(Entry(key, size, None))
            victims = self._disk.shrink()
        self._unlink(victims)

    def stop(self) -> None:
        """Blocking. Lets go of every mapping; what is leased stays readable for whoever still refers to it."""
        with self._lock:
            for entry in self._open.values():
                entry.rows = None
            self._open.clear()
            for entry in list(self._memory.entries.values()):
                self._memory.remove(entry)
            folder, self._memory_folder = self._memory_folder, None
        if folder:
            for path in folder.path.iterdir():
                remove(path)
            folder.path.rmdir()

    # -- what the event loop calls -------------------------------------------------------------------------------

    def know(self, owner: Owner, keys: Callable[[], Iterable[str]]) -> None:
        """`keys` gives the keys of all chunks of `owner`; it is called at most once, off the loop."""
        with self._lock:
            self._disk.know(owner, keys)

    def hold(self, owner: Owner) -> None:
        """`owner` is in use: nothing of it goes to make room for another version."""
        with self._lock:
            self._disk.hold(owner)

    def unhold(self, owner: Owner) -> None:
        with self._lock:
            self._disk.unhold(owner)

    def take(self, owner: Owner, keys: Collection[str | None]) -> list[Entry] | None:
        """The chunks, pinned, and `owner` held; or None (and nothing pinned) if one is not open, or has no key yet."""
        with self._lock:
            get, touch = self._open.get, self._open.move_to_end
            found = [entry for key in keys if (entry := get(key)) is not None]
            if len(found) != len(keys):
                return None
            for entry in found:
                entry.pins += 1
                touch(entry.key)
            self._disk.hold(owner)
            return found

    def pin(self, entry: Entry) -> None:
        with self._lock:
            entry.pins += 1

    def release(self, entries: Iterable[Entry]) -> None:
        with self._lock:
            for entry in entries:
                entry.pins -= 1

    def give_back(self, owner: Owner, entries: Iterable[Entry]) -> None:
        """What `take` gave."""
        with self._lock:
            for entry in entries:
                entry.pins -= 1
            self._disk.unhold(owner)

    def drop_memory(self, owner: Owner) -> None:
        """Nobody uses `owner` any more: what of it lies in memory goes."""
        with self._lock:
            victims = [e for e in self._memory.entries.values() if e.owner == owner and not e.pins]
            for victim in victims:
                self._memory.remove(victim)
                self._close(victim)

    def has(self, key: str) -> bool:
        return key in self._open or key in self._disk.entries

    def numbers(self) -> StoreNumbers:
        disk, memory = self._disk, self._memory
        chunks = len(disk.entries) + len(memory.entries)
        return StoreNumbers(
            disk.bound, memory.bound, chunks, len(self._open), disk.evicted, self._bad_files, self._trouble
        )

    def room(self) -> str:
        """Words for a message that says why a chunk has no place."""
        disk, memory = self._disk.bound, self._memory.bound
        if self._folder is None:
            where = "there is no chunk store on disk"
        elif self._trouble:
            where = f"the chunk store cannot be written: {self._trouble}"
        else:
            where = f"the chunk store {self._folder.path} holds {disk.used:,} of {disk.limit:,} bytes, all in use"
        return f"{where}; memory holds {memory.used:,} of {memory.limit:,} bytes, all in use"

    # -- finding -------------------------------------------------------------------------------------------------

    def find(self, owner: Owner, keys: Sequence[str]) -> list[Entry | None]:
        """Blocking. The chunks that are there, open and pinned; None where a chunk must be made."""
        return [self._find(owner, key) for key in keys]

    def _find(self, owner: Owner, key: str) -> Entry | None:
        with self._lock:
            entry = self._open.get(key) or self._disk.entries.get(key)
            if entry:
                entry.pins += 1
                if entry.rows is not None:
                    self._opened(entry, owner)
                    return entry
            if self._folder is None or key in self._doomed:
                return None
        path = self._folder.file(key)
        try:
            info, rows, size = open_file(path, key)
        except (BadFile, OSError) as error:
            self._lost(path, entry, error)
            return None
        with self._lock:
            entry = entry or self._disk.entries.get(key)
            if entry is None:  # another server made it
                entry = Entry(key, size, owner, pins=1)
                self._disk.found(entry)
            if entry.rows is None:
                entry.info, entry.rows = info, rows
            used_anew = entry.owner != owner
            self._opened(entry, owner)
        if used_anew:
            with suppress(OSError):  # the time stamp only helps the next start to know what was used last
                os.utime(path)
        return entry

    def _lost(self, path: Path, entry: Entry | None, error: Exception) -> None:
        if isinstance(error, BadFile):
            logger.warning("made again: %s", error)
            self._bad_files += 1
            remove(path)
        elif not isinstance(error, FileNotFoundError):
            logger.warning("cannot open %s: %s", path, error)
        if entry:
            with self._lock:
                entry.pins -= 1
                if not entry.pins and entry.rows is None and self._disk.entries.get(entry.key) is entry:
                    self._disk.remove(entry)

    # -- making --------------------------------------------------------------------------------------------------

    def place(self, key: str, size: int, owner: Owner, want: Want | None) -> Place | None:
        """Blocking. Room for a file of `size` bytes, reserved until `settle` or `abandon`; None if there is none."""
        if self._folder and time.monotonic() >= self._rests_until:
            self._claim(size, owner)
            self._look_again(size)
            with self._lock:
                victims = self._disk.admit(size, owner)
                for victim in victims or ():
                    self._doomed.add(victim.key)
                    self._close(victim)
            if victims is not None:
                self._unlink(victims)
                return self._folder.place(key, size)
        if want is None:
            return None
        with self._lock:
            victims = self._memory.admit(size, want == "demand")
            for victim in victims or ():
                self._close(victim)
            if victims is None:
                return None
            try:
                self._memory_folder = self._memory_folder or make_memory_folder(self._memory_parents)
            except OSError:
                self._memory.bound.leave(size)
                raise
        return self._memory_folder.place(key, size)

    def settle(self, place: Place, info: ChunkInfo, owner: Owner) -> Entry:
        """Blocking. The file was written to `place`: it is a chunk of the store now, open, and pinned once."""
        try:
            _, rows, _ = open_file(place.final, place.key)
        except (BadFile, OSError) as error:
            self.abandon(place)
            raise Unavailable(f"a chunk file that was just written cannot be opened: {error}") from error
        if place.durable:
            self._trouble = ""
        else:
            remove(Path(place.final))  # only the mapping holds it now: nothing is left over, whoever is killed
        with self._lock:
            self._written += place.size if place.durable else 0
            shelf = self._disk if place.durable else self._memory
            entry = shelf.entries.get(place.key)
            if entry:  # made twice, by two versions that share it
                shelf.bound.leave(place.size)
            else:
                entry = Entry(place.key, place.size, owner, memory=not place.durable)
                shelf.add(entry)
            entry.pins += 1
            if entry.rows is None:
                entry.info, entry.rows = info, rows
            self._opened(entry, owner)
        return entry

    def abandon(self, place: Place, trouble: str = "") -> None:
        """Blocking. Nothing was written to `place`, or not to its end; `trouble` says what the system answered."""
        remove(Path(place.temp))
        if not place.durable:
            remove(Path(place.final))
        with self._lock:
            (self._disk if place.durable else self._memory).bound.leave(place.size)
        if trouble and place.durable:
            self._disk_refused(trouble)

    def discard(self, key: str) -> None:
        """Blocking. This chunk is not what it should be: the next request makes it again."""
        with self._lock:
            entry = self._open.pop(key, None) or self._disk.entries.get(key)
            if entry is None:
                return
            shelf = self._memory if entry.memory else self._disk
            if shelf.entries.get(key) is entry:
                shelf.remove(entry)
            self._doomed.add(key)
        self._unlink([] if entry.memory else [entry])
        self._doomed.discard(key)

    def _claim(self, size: int, owner: Owner) -> None:
        """Before anything is evicted, the versions in use say which of the chunks found at start are theirs."""
        with self._lock:
            asked = [] if self._disk.fits(size) else self._disk.unclaimed(owner)
        for version, keys in asked:
            theirs = [entry for key in keys() if (entry := self._disk.entries.get(key))]
            with self._lock:
                for entry in theirs:
                    if self._disk.entries.get(entry.key) is entry:
                        self._disk.give(entry, version)

    def _look_again(self, size: int) -> None:
        """Another server may write to the folder and evict from it."""
        with self._lock:
            if self._written + size <= self._disk.bound.limit // _SCAN_SHARE or self._folder is None:
                return
            self._written = 0
            self._gone.clear()
            before = list(self._disk.entries.values())
        try:
            found = {f.key: f.size for f in self._folder.scan()}
        except OSError:
            return  # the write that follows says what is wrong
        with self._lock:
            for entry in before:
                if entry.key not in found and not entry.pins and self._disk.entries.get(entry.key) is entry:
                    self._disk.remove(entry)
                    self._close(entry)
            for key, size_found in found.items():
                if key not in self._disk.entries and key not in self._gone:
                    self._disk.found(Entry(key, size_found, None))

    def _unlink(self, victims: Iterable[Entry]) -> None:
        for victim in victims:
            assert self._folder is not None  # noqa: S101 - victims come from it
            gone = remove(self._folder.file(victim.key))
            with self._lock:
                self._doomed.discard(victim.key)
                self._gone.add(victim.key)
                if not gone and victim.key not in self._disk.entries:
                    victim.owner = None
                    self._disk.found(victim)

    def _disk_refused(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("chunks are handed over in memory, the store cannot take them: %s", trouble)
        self._trouble = trouble
        self._rests_until = time.monotonic() + _REST_SECONDS

    # -- with the lock held --------------------------------------------------------------------------------------

    def _opened(self, entry: Entry, owner: Owner) -> None:
        self._open[entry.key] = entry
        self._open.move_to_end(entry.key)
        if entry.memory:
            self._memory.entries.move_to_end(entry.key)
        elif self._disk.entries.get(entry.key) is entry:
            self._disk.give(entry, owner)
        for _ in range(_TRIM_LOOKS):
            if len(self._open) <= self._max_open:
                break
            oldest = next(iter(self._open.values()))
            if oldest.pins or oldest.memory:
                self._open.move_to_end(oldest.key)
            else:
                self._close(oldest)

    def _close(self, entry: Entry) -> None:
        if self._open.get(entry.key) is entry:
            del self._open[entry.key]
        entry.rows = None
