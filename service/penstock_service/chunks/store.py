"""The chunk store: chunks as files, on disk or in memory. Its policy is in `shelf.py`, its bookkeeping in `rack.py`.

Whatever touches files says "Blocking" and is called off the event loop.
"""

import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from penstock_service.chunks.file import BadFile, Place, open_file
from penstock_service.chunks.folder import Folder, make_memory_folder, memory_parents, remove, sweep_memory
from penstock_service.chunks.keys import Owner
from penstock_service.chunks.rack import Rack
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.sync import Syncer
from penstock_service.core.channel import Bound
from penstock_service.core.errors import ResourceExhausted, Unavailable

logger = logging.getLogger(__name__)

Want = Literal["demand", "hint", "warm", "preload"]
"""Why a chunk is made: somebody waits for it; it will be wanted soon; an operator asked for it; there is free room."""

_REST_SECONDS: Final = 30.0  # how long the disk is left alone after it refused a file
_LOOK_SHARE: Final = 32  # the folder is looked through again when 1/32 of the cap was written: others may use it


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
        if store_bytes < 0 or memory_bytes < 0:
            raise ValueError(f"store_bytes is {store_bytes} and memory_bytes {memory_bytes}; neither may be negative")
        self.rack: Final = Rack(store_bytes, memory_bytes, max_open)
        self._folder = Folder(folder, durable=True) if folder and store_bytes > 0 else None
        self._memory_parents = list(memory_folders) if memory_folders is not None else memory_parents()
        self._memory_folder: Folder | None = None
        self._making_folder = threading.Lock()
        self._written = 0
        self._trouble = ""
        self._rests_until = 0.0
        self._bad_files = 0
        self._syncer = Syncer(self._not_synced)

    @property
    def folder(self) -> Path | None:
        return self._folder.path if self._folder is not None else None

    @property
    def durable(self) -> bool:
        """Is there a folder that takes files, or may do so again?"""
        return self._folder is not None and (not self._trouble or time.monotonic() >= self._rests_until)

    def start(self) -> None:
        """Blocking. Sweeps what dead processes left and finds what is there."""
        sweep_memory(self._memory_parents)
        if self._folder is None:
            return
        self._syncer.start()
        try:
            self._folder.make()
            self._folder.sweep()
            found = self._folder.scan()
        except OSError as error:
            self._refused(f"{error.strerror} ({self._folder.path})")
        else:
            self._unlink(self.rack.found((f.key, f.size) for f in found))

    def stop(self) -> None:
        """Blocking. Lets go of every mapping; what is leased stays readable for whoever still refers to it."""
        self._syncer.stop()
        self.rack.close_all()
        folder, self._memory_folder = self._memory_folder, None
        if folder:
            for path in folder.path.iterdir():
                remove(path)
            folder.path.rmdir()

    def throttle(self) -> None:
        """Blocking while the disk is far behind; a worker waits here before it makes more."""
        self._syncer.throttle()

    def flush(self) -> None:
        """Blocking. Until what was written so far is on disk under its last name."""
        self._syncer.flush()

    def numbers(self) -> StoreNumbers:
        disk, memory = self.rack.disk, self.rack.memory
        chunks = len(disk.entries) + len(memory.entries)
        return StoreNumbers(
            disk.bound, memory.bound, chunks, self.rack.open, disk.evicted, self._bad_files, self._trouble
        )

    def room(self, memory: bool = True) -> str:
        """Words for a message that says why a chunk has no place; without `memory`, on disk."""
        disk, other = self.rack.disk.bound, self.rack.memory.bound
        if self._folder is None:
            where = "there is no chunk store on disk"
        elif self._trouble:
            where = f"the chunk store cannot be written: {self._trouble}"
        else:
            where = f"the chunk store {self._folder.path} holds {_used(disk)}"
        return f"{where}; memory holds {_used(other)}" if memory else where

    # -- finding -------------------------------------------------------------------------------------------------

    def find(self, owner: Owner, keys: Sequence[str]) -> list[Entry | None]:
        """Blocking. The chunks that are there, open and pinned; None where a chunk must be made."""
        return [self._find(owner, key) for key in keys]

    def _find(self, owner: Owner, key: str) -> Entry | None:
        entry, worth_opening = self.rack.seek(owner, key)
        if self._folder is None or not worth_opening:
            return entry
        path = self._folder.file(key)
        try:
            file = open_file(path, key)
        except (BadFile, OSError) as error:
            if isinstance(error, BadFile):
                logger.warning("made again: %s", error)
                self._bad_files += 1
                remove(path)
            elif not isinstance(error, FileNotFoundError):
                logger.warning("cannot open %s: %s", path, error)
            if entry:
                self.rack.lost(entry)
            return None
        entry, used_anew = self.rack.opened(entry, key, owner, file)
        if used_anew:
            with suppress(OSError):  # the time stamp only helps the next start to know what was used last
                os.utime(path)
        return entry

    # -- making --------------------------------------------------------------------------------------------------

    def place(self, key: str, size: int, owner: Owner, want: Want | None, *, disk: bool = True) -> Place | None:
        """Blocking. Room for a file of `size` bytes, reserved until `settle` or `abandon`; None if there is none."""
        if disk and self._folder and time.monotonic() >= self._rests_until:
            for version, keys in self.rack.unclaimed(size, owner):
                self.rack.claim(version, keys())
            self._look_again(size)
            if self._trouble:
                with suppress(OSError):  # it may have been deleted; the write that follows says what is wrong
                    self._folder.make()
            victims = self.rack.reserve(size, owner, free=want == "preload")
            if victims is not None:
                self._unlink(victims)
                return self._folder.place(key, size)
        if want not in ("demand", "hint") or not self.rack.reserve_memory(size, demanded=want == "demand"):
            return None
        try:
            with self._making_folder:
                self._memory_folder = self._memory_folder or make_memory_folder(self._memory_parents)
        except OSError as error:
            self.rack.unreserve(size, durable=False)
            raise ResourceExhausted(f"chunks can be handed over neither on disk nor in memory: {error}") from error
        return self._memory_folder.place(key, size)

    def settle(self, place: Place, owner: Owner, *, ahead: bool = False) -> Entry:
        """Blocking. The file was written to `place`: it is a chunk of the store now, open, and pinned once.

        It becomes durable later. `ahead`: it was made for no use at all.
        """
        try:
            file = open_file(place.temp, place.key)
        except (BadFile, OSError) as error:
            self.abandon(place)
            raise Unavailable(f"a chunk file that was just written cannot be opened: {error}") from error
        entry = self.rack.settled(place, owner, file, ahead=ahead)
        if entry.temp == place.temp:
            if time.monotonic() >= self._rests_until:  # else another file was refused while this one was written
                self._trouble = ""
            self._written += place.size
            self._syncer.add(entry, place)
        else:
            remove(Path(place.temp))  # of memory only the mapping holds it now: nothing is left over, whoever is killed
        return entry

    def abandon(self, place: Place, trouble: str = "") -> None:
        """Blocking. Nothing was written to `place`, or not to its end; `trouble` says what the system answered."""
        remove(Path(place.temp))
        self.rack.unreserve(place.size, durable=place.durable)
        if trouble and place.durable:
            self._refused(trouble)

    def discard(self, key: str) -> None:
        """Blocking. This chunk is not what it should be: the next request makes it again."""
        entry = self.rack.discard(key)
        if entry:
            self._unlink([entry])

    def _look_again(self, size: int) -> None:
        """Another server may write to the folder and evict from it."""
        if self._folder is None or self._written + size <= self.rack.disk.bound.limit // _LOOK_SHARE:
            return
        self._written = 0
        before = self.rack.look()
        with suppress(OSError):  # the write that follows says what is wrong
            self.rack.looked(before, {f.key: f.size for f in self._folder.scan()})

    def _unlink(self, victims: Iterable[Entry]) -> None:
        for victim in victims:
            gone = self._folder is None or self._syncer.remove(victim, self._folder.file(victim.key))
            self.rack.unlinked(victim, gone=gone)

    def _not_synced(self, entry: Entry, place: Place, error: OSError) -> None:
        """What is mapped of it may not be what is on disk: it is made again."""
        self.rack.lose(entry)
        self._syncer.remove(entry, Path(place.final))
        self._refused(f"{error.strerror or error} ({place.final})")

    def _refused(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.warning("chunks are handed over in memory, the store cannot take them: %s", trouble)
        self._trouble = trouble
        self._rests_until = time.monotonic() + _REST_SECONDS


def _used(bound: Bound) -> str:
    return f"{bound.used:,} of {bound.limit:,} bytes{', all in use' if bound.used else ''}"
