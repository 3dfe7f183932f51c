"""Slots: memory that a session shares with a client on the same host, so that bundles need not travel.

One file for one session, never for a second. Its name is removed as soon as the client has proven that it maps the very
file: from then on nothing can be left over, whoever is killed. What a killed server leaves before that is found by its
lock, which nobody holds any more, and swept away by the next one.

A slot is an address range; it gets memory when a bundle needs it. So many small bundles or a few large ones are with
the client at a time, in the same bytes.
"""

import contextlib
import fcntl
import logging
import mmap
import os
import secrets
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from penstock_service.core.feed import U8, ordinary
from penstock_service.deliver.far import map_far

HEAD: Final = 4096  # bytes before slot 0; the first 16 are the nonce
NONCE: Final = 16
SLACK: Final = 1.25  # of a slot, to the bundle it is made for: its size is an estimate where rows differ
_PREFIX: Final = "penstock-slots-"
_PAGE: Final = 4096
_GRAIN: Final = 1 << 20  # what a slot grows by, so that it seldom does
_COUNT: Final = 64

_log = logging.getLogger(__name__)


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
        if not self._owner.back(self.index, size):
            return ordinary(size)
        self.used = True
        return self._owner.view(self.index, size)


class Pages:
    """Memory that the slots of all sessions may take together, in bytes. For any thread."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = threading.Lock()

    @property
    def left(self) -> int:
        return self._left

    def take(self, size: int) -> bool:
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True

    def give(self, size: int) -> None:
        with self._lock:
            self._left += size


class Slots:
    """The slots of one session. Methods belong to the event loop, but for `Slot.memory` of one slot at a time."""

    def __init__(
        self, window_bytes: int, slot_bytes: int, folder: Path | None = None, pages: Pages | None = None
    ) -> None:
        """Slots of up to `slot_bytes`; together they take no more than a window of `window_bytes`, and two of them;
        those of all sessions no more than there are `pages`.

        Raises:
            NoSlots: there is no room, or no such folder.
        """
        self._pages = pages or Pages(1 << 62)
        self._folder = folder or shared_folder()
        self.slot_bytes = -(-slot_bytes // _PAGE) * _PAGE
        self.count = _COUNT
        self.nonce = secrets.token_bytes(NONCE)
        self.path = self._folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        self.proven = False
        self._named = True
        self._room = min(_COUNT, -(-window_bytes // self.slot_bytes) + 2) * self.slot_bytes
        self._backed = [0] * self.count  # bytes that have pages: a full tmpfs is an error now, not a SIGBUS later
        self._wanted = 0  # bytes of a bundle, as the last ones were
        self._growing = threading.Lock()  # else the number of a closed file may be another's
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NoSlots(f"{self._folder} cannot be written to: {error.strerror}") from error
        try:
            self._map, self._far = self._mapped()
        except BaseException:
            self.close()
            raise
        self._map[:NONCE] = self.nonce
        self._free = list(reversed(range(self.count)))  # the one given back last is taken first: it is in the caches
        self._away: set[int] = set()

    def prove(self, nonce: bytes) -> bool:
        """Did the client read the nonce from the file? Either way its name goes now."""
        self.proven = secrets.compare_digest(nonce, self.nonce)
        self._unlink()
        return self.proven

    def lease(self) -> Slot | None:
        """A slot nobody uses, with room for a bundle like the last; None while there is none: the client keeps them."""
        away = sum(self._backed[index] for index in self._away)
        room = min(self._room - away, sum(self._backed) - away + self._pages.left)
        if not self._free or room < self._wanted:
            return None
        index = self._free.pop()
        self._away.add(index)
        self._make_room(index)
        return Slot(self, index)

    def back(self, index: int, size: int) -> bool:
        """Give a leased slot memory for `size` bytes; False: more than a slot has, or there is no room."""
        wanted = min(-(-size // _GRAIN) * _GRAIN, self.slot_bytes)
        self._wanted = max(wanted, self._wanted - _GRAIN)
        lacking = wanted - self._backed[index]
        if size > self.slot_bytes or lacking <= 0:
            return size <= self.slot_bytes
        if sum(self._backed) + lacking > self._room:
            return False
        with self._growing:
            if self._file < 0 or not self._pages.take(lacking):  # below 0: the session has ended meanwhile
                return False
            try:
                _reserve(self._file, self._start(index) + self._backed[index], lacking)
            except OSError:
                self._pages.give(lacking)
                self._room = sum(self._backed)  # what is there must do
                _log.warning("bundles that find no room go over the network: %s", _no_room(self._folder, lacking))
                return False
            self._backed[index] = wanted
        return True

    def give_back(self, indices: Sequence[int]) -> None:
        """What the client no longer uses; numbers that it does not have are not believed."""
        for index in indices:
            if index in self._away:
                self._away.discard(index)
                self._free.append(index)

    def spare(self) -> None:
        """Memory is short: slots that nobody uses give theirs back."""
        for index in self._free:
            self._shrink(index, 0)

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
        return HEAD + sum(self._backed)

    def view(self, index: int, size: int) -> U8:
        start = self._start(index)
        return self._far[start : start + size]

    def close(self) -> None:
        """May be called twice. The memory goes when the last view of it does, at either end."""
        self._unlink()
        with self._growing:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1
                self._pages.give(sum(self._backed))
                self._backed = [0] * self.count

    def _start(self, index: int) -> int:
        return HEAD + index * self.slot_bytes

    def _mapped(self) -> tuple[mmap.mmap, U8]:
        """Twice: what is given back goes by Python's own, what is written by one that lies apart."""
        size = self._start(self.count)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._file, size)
            _reserve(self._file, 0, HEAD)
        except OSError as error:
            raise NoSlots(_no_room(self._folder, HEAD)) from error
        info = os.statvfs(self._folder)
        if info.f_bavail * info.f_frsize < 2 * self.slot_bytes:
            raise NoSlots(_no_room(self._folder, 2 * self.slot_bytes))
        try:
            return mmap.mmap(self._file, size), map_far(self._file, size)
        except OSError as error:
            raise NoSlots(f"{size >> 20} MiB of {self._folder} cannot be mapped: {error.strerror}") from error

    def _make_room(self, index: int) -> None:
        """Fit a leased slot to what is wanted; where it must grow, free ones shrink, the one used longest ago first."""
        if self._backed[index] > 2 * self._wanted:  # bundles have become smaller
            self._shrink(index, self._wanted)
        for other in self._free:
            lacking = self._wanted - self._backed[index]
            if sum(self._backed) + lacking <= self._room and lacking <= self._pages.left:
                return
            self._shrink(other, 0)

    def _shrink(self, index: int, size: int) -> None:
        if self._backed[index] <= size or not hasattr(mmap, "MADV_REMOVE"):  # not on macOS: they stay as they are
            return
        start, page = self._start(index), mmap.PAGESIZE  # larger than ours on some machines: what it shares stays
        first, last = -(-(start + size) // page) * page, (start + self._backed[index]) // page * page
        if first < last:
            self._map.madvise(mmap.MADV_REMOVE, first, last - first)
        self._pages.give(self._backed[index] - size)
        self._backed[index] = size

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


def _reserve(file: int, start: int, size: int) -> None:
    """Give a part of a file its pages. It must be new: it may be written to."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, start, size)
        return
    at, end = start, start + size  # macOS has no such call
    while at < end:
        at += os.pwrite(file, bytes(min(_GRAIN, end - at)), at)


def _no_room(folder: Path, wanted: int) -> str:
    info = os.statvfs(folder)
    return (
        f"{folder} has {info.f_bavail * info.f_frsize >> 20} MiB free of {info.f_blocks * info.f_frsize >> 20} MiB and "
        f"a session needs at least {max(1, wanted >> 20)} MiB; containers get 64 MiB unless told otherwise "
        "(docker run --shm-size=1g, or --ipc=host)"
    )
