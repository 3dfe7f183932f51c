"""What was written becomes durable behind the workers' backs: synced, then given its last name.

A chunk is used as soon as it is written, under its temporary name. Only a file whose bytes are on disk gets its last
name, so a power cut or kill -9 leaves whole files, and temporary ones that the next start sweeps.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Final

from penstock_service.chunks.file import Place
from penstock_service.chunks.folder import remove
from penstock_service.chunks.shelf import Entry

BEHIND: Final = 1 << 30
"""Bytes that may wait to be synced: beyond, workers wait, as a disk that is slower than they are must be waited for."""

STOP_SECONDS: Final = 5.0
"""How long `stop` goes on syncing. What is left then is removed, and made again when it is needed."""


class Syncer:
    """One thread. `start` and `stop` are a pair; `stop` may be called twice, or without `start`."""

    def __init__(self, failed: Callable[[Entry, Place, OSError], None], behind: int = BEHIND) -> None:
        """`failed` is called, from the thread, with what could not be synced."""
        self._failed = failed
        self._behind = behind
        self._waiting: deque[tuple[Entry, Place]] = deque()
        self._bytes = 0  # that wait, or are being synced
        self._changed = threading.Condition()
        self._naming = threading.Lock()  # a name is given, or taken, by one at a time
        self._stopping = False
        self._until = inf  # when it stops to sync
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping, self._until = False, inf
        self._thread = threading.Thread(target=self._run, name="chunk sync", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Blocking. Syncs what it can in so many seconds."""
        with self._changed:
            self._stopping, self._until = True, time.monotonic() + seconds
            self._changed.notify_all()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()

    def add(self, entry: Entry, place: Place) -> None:
        """`entry` lies at the temporary name of `place`."""
        with self._changed:
            self._bytes += place.size
            self._waiting.append((entry, place))
            self._changed.notify_all()

    def throttle(self) -> None:
        """Blocking while too much waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._bytes <= self._behind)

    def flush(self) -> None:
        """Blocking. Until all that was added so far is synced and named."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes)

    def remove(self, entry: Entry, file: Path) -> bool:
        """Unlink a chunk under whichever name it has now; `file` is its last one. Is it gone?"""
        with self._naming:
            path, entry.temp = Path(entry.temp) if entry.temp else file, ""
            return remove(path)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._waiting))
                if not self._waiting:
                    return
                entry, place = self._waiting.popleft()
            try:
                if time.monotonic() < self._until:
                    self._keep(entry, place)
                else:
                    self.remove(entry, Path(place.final))
            except OSError as error:
                if entry.temp:
                    self._failed(entry, place, error)
            finally:
                with self._changed:
                    self._bytes -= place.size
                    self._changed.notify_all()

    def _keep(self, entry: Entry, place: Place) -> None:
        if not entry.temp:  # it gave way before it was synced
            return
        descriptor = os.open(place.temp, os.O_RDONLY)
        try:
            sync(descriptor)
        finally:
            os.close(descriptor)
        with self._naming:
            if entry.temp:
                os.replace(place.temp, place.final)  # noqa: PTH105 - both are strings
                entry.temp = ""


def sync(descriptor: int) -> None:
    """macOS has no fdatasync."""
    getattr(os, "fdatasync", os.fsync)(descriptor)
