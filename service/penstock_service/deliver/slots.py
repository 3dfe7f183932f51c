"""Slots: memory that a session shares with a client on the same host, so that bundles need not travel.

One file for one session, never for a second. Its name is removed as soon as the client has proven that it maps the very
file: from then on nothing can be left over, whoever is killed. What a killed server leaves before that is found by its
lock, which nobody holds any more, and swept away by the next one.
"""

import contextlib
import fcntl
import mmap
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from penstock_service.core.feed import U8, ordinary

HEAD: Final = 4096  # bytes before slot 0; the first 16 are the nonce
NONCE: Final = 16
SLACK: Final = 1.25  # of a slot, to the bundle it is made for: its size is an estimate where rows differ
_PREFIX: Final = "penstock-slots-"
_PAGE: Final = 4096
_MOST: Final = 64


class NoSlots(Exception):
    """Shared memory cannot be had here; the text says why, and what would help."""


def shared_folder() -> Path:
    """Where memory is shared: /dev/shm, else the folder of temporary files."""
    folder = Path("/dev/shm")  # noqa: S108 - not a temporary file: names are random, removed at once
    return folder if folder.is_dir() and os.access(folder, os.W_OK) else Path(tempfile.gettempdir())


class Slot:
    """One slot, to be written once. `used` says whether it was: what is larger goes elsewhere."""

    def __init__(self, owner: "Slots", index: int) -> None:
        self.index = index
        self.used = False
        self._owner = owner

    def memory(self, size: int) -> U8:
        """See `core.feed.Memory`."""
        if size > self._owner.slot_bytes:
            return ordinary(size)
        self.used = True
        return self._owner.view(self.index, size)


class Slots:
    """The slots of one session. Methods belong to the event loop, but for `Slot.memory`."""

    def __init__(self, window_bytes: int, slot_bytes: int, folder: Path | None = None) -> None:
        """Enough slots of `slot_bytes` for a window of `window_bytes`, and two more.

        Raises:
            NoSlots: there is no room, or no such folder.
        """
        folder = folder or shared_folder()
        self.slot_bytes = -(-slot_bytes // _PAGE) * _PAGE
        self.count = min(_MOST, -(-window_bytes // self.slot_bytes)) + 2
        self.nonce = secrets.token_bytes(NONCE)
        self.path = folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self.proven = False
        self._named = True
        self._backed = 0  # slots that have pages: a full tmpfs is an error now, not a SIGBUS later
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NoSlots(f"{folder} cannot be written to: {error.strerror}") from error
        try:
            self._map = self._mapped(folder)
        except BaseException:
            self.close()
            raise
        self._map[:NONCE] = self.nonce
        self._free = list(range(self._backed))  # the one given back last is taken first: it is in the caches
        self._away: set[int] = set()

    def prove(self, nonce: bytes) -> bool:
        """Did the client read the nonce from the file? Either way its name goes now."""
        self.proven = secrets.compare_digest(nonce, self.nonce)
        self._unlink()
        return self.proven

    def lease(self) -> Slot | None:
        """A slot nobody uses; None while there is none: the client keeps what it has."""
        if not self._free and self._backed < self.count and self._back():
            self._free.append(self._backed - 1)
        if not self._free:
            return None
        index = self._free.pop()
        self._away.add(index)
        return Slot(self, index)

    def give_back(self, indices: Sequence[int]) -> None:
        """What the client no longer uses; numbers that it does not have are not believed."""
        for index in indices:
            if index in self._away:
                self._away.discard(index)
                self._free.append(index)

    @property
    def bundle_bytes(self) -> int:
        """What a bundle should aim at, so that it fits a slot."""
        return int(self.slot_bytes / SLACK)

    @property
    def in_use(self) -> int:
        return len(self._away)

    @property
    def nbytes(self) -> int:
        """Memory that the slots take."""
        return HEAD + self._backed * self.slot_bytes

    def view(self, index: int, size: int) -> U8:
        return np.frombuffer(self._map, np.uint8, count=size, offset=HEAD + index * self.slot_bytes)

    def close(self) -> None:
        """May be called twice. The memory goes when the last view of it does, at either end."""
        self._unlink()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _mapped(self, folder: Path) -> mmap.mmap:
        size = HEAD + self.count * self.slot_bytes
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, size)
            os.posix_fallocate(self._file, 0, HEAD)
        except OSError as error:
            raise NoSlots(_no_room(folder, HEAD)) from error
        if not (self._back() and self._back()):
            raise NoSlots(_no_room(folder, 2 * self.slot_bytes))
        return mmap.mmap(self._file, size)

    def _back(self) -> bool:
        """Give the next slot its pages; False: there is no room."""
        try:
            os.posix_fallocate(self._file, HEAD + self._backed * self.slot_bytes, self.slot_bytes)
        except OSError:
            self.count = self._backed  # what is there must do
            return False
        self._backed += 1
        return True

    def _unlink(self) -> None:
        if self._named:
            self._named = False
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()


def sweep(folder: Path | None = None) -> int:
    """Remove what servers of this user left that were killed before their client had proven itself; how many files."""
    swept = 0
    for path in (folder or shared_folder()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or gone meanwhile
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where its server lives
                path.unlink()
                swept += 1
            finally:
                os.close(file)
    return swept


def _no_room(folder: Path, wanted: int) -> str:
    info = os.statvfs(folder)
    return (
        f"{folder} has {info.f_bavail * info.f_frsize >> 20} MiB free of {info.f_blocks * info.f_frsize >> 20} MiB and "
        f"a session needs at least {max(1, wanted >> 20)} MiB; containers get 64 MiB unless told otherwise "
        "(docker run --shm-size=1g, or --ipc=host)"
    )
