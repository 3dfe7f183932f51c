"""One unit in the making: between the worker's thread, the store and the event loop."""

import time
from collections.abc import Callable, Sequence

from penstock_service.chunks.agenda import Unit
from penstock_service.chunks.file import Place
from penstock_service.chunks.keys import VersionKeys
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.store import Store, Want
from penstock_service.chunks.worker import Verdict, Work
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import ResourceExhausted, ServiceError


class UnitJob:
    """Its methods run in a worker's thread; `tell` takes what happened to the loop. Implements `executor.Job`."""

    def __init__(
        self,
        version: VersionKeys,
        unit: Unit,
        store: Store,
        tell: Callable[["UnitJob", "Event"], None],
    ) -> None:
        self.version = version
        self.unit = unit
        self.seconds = 0.0
        self.stopping = False
        self._store = store
        self._tell = tell
        self._to_come: list[int] = []
        self._placed: Place | None = None
        self._began = 0.0

    def prepare(self) -> Work | None:
        self._began = time.monotonic()
        version = self.version
        chunks = version.read_with(self.unit.id[1])
        keys = version.keys(chunks)
        missing = self._find([(c, k) for c, k in zip(chunks, keys, strict=True)])
        self._to_come = missing
        if not missing or self.stopping:
            return None
        dataset = version.dataset
        return Work(version.task(missing), tuple(version.keys(missing)), f"{dataset.name}@{dataset.version}")

    def _find(self, chunks: Sequence[tuple[int, str]]) -> list[int]:
        """What is not there. Another server, or another version with the same chunks, may have made some meanwhile."""
        missing = []
        for chunk, key in chunks:
            if self._want(chunk) is None:
                if not self._store.has(key):
                    missing.append(chunk)
            elif entry := self._store.find(self.version.owner, [key])[0]:
                self._tell(self, Event(chunk, entry, found=True))
            else:
                missing.append(chunk)
        return missing

    def place(self, chunk: int, size: int, trouble: str) -> Place | Verdict:
        if self.stopping:
            return Verdict.STOP
        failed, self._placed = self._placed, None
        if failed:
            self._store.abandon(failed, trouble)
        want = self._want(chunk)
        place = None
        if not failed or failed.durable:
            place = self._store.place(self.version.key(chunk), size, self.version.owner, want)
        if place is None and want == "demand":
            raise ResourceExhausted(
                f"there is no room for {self.version.describe(chunk)}, {size:,} bytes:"
                f" {self._store.room()}{f' ({trouble})' if trouble else ''};"
                " raise store_bytes or memory_bytes, or read fewer datasets at once"
            )
        self._placed = place
        if place:
            return place
        self._to_come.remove(chunk)
        self._tell(self, Event(chunk, None))
        return Verdict.SKIP if any(self._want(c) for c in self._to_come) else Verdict.STOP

    def made(self, chunk: int, place: Place, info: ChunkInfo) -> None:
        self._placed = None
        wanted = self._want(chunk) is not None
        entry = self._store.settle(place, info, self.version.owner, opened=wanted)
        self._to_come.remove(chunk)
        self._tell(self, Event(chunk, entry))

    def abandon(self) -> None:
        placed, self._placed = self._placed, None
        if placed:
            self._store.abandon(placed)

    def ended(self, error: ServiceError | None) -> None:
        self.seconds = time.monotonic() - self._began
        self._tell(self, Event(-1, None, ended=True, error=error))

    def _want(self, chunk: int) -> Want | None:
        """Asked anew for each chunk: who wants what changes while the unit is being made."""
        if chunk in self.unit.demanded:
            return "demand"
        return "hint" if chunk in self.unit.hinted else None


class Event:
    """What a worker tells the loop: a chunk is there (`entry`, pinned once), was skipped (no entry), or the job ended."""

    __slots__ = ("chunk", "ended", "entry", "error", "found")

    def __init__(
        self,
        chunk: int,
        entry: Entry | None,
        *,
        found: bool = False,
        ended: bool = False,
        error: ServiceError | None = None,
    ) -> None:
        self.chunk = chunk
        self.entry = entry
        self.found = found
        self.ended = ended
        self.error = error
