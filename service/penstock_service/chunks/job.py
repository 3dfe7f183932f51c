"""One unit in the making: between the worker's thread, the store and the event loop."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from penstock_service.chunks.agenda import Unit
from penstock_service.chunks.file import Place
from penstock_service.chunks.keys import VersionKeys
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.store import Store, Want
from penstock_service.chunks.worker import Verdict, Work
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import ResourceExhausted, ServiceError


class Made(NamedTuple):
    """The chunk is there. The entry is pinned once, for whoever gets this."""

    chunk: int
    entry: Entry
    found: bool = False  # it was there before
    ahead: bool = False  # nobody wanted it yet


class Skipped(NamedTuple):
    """Nobody wanted it, and there was no room for it."""

    chunk: int


class Ended(NamedTuple):
    """The worker is free again. Nothing follows."""

    error: ServiceError | None
    seconds: float


Event = Made | Skipped | Ended


class UnitJob:
    """Its methods run in a worker's thread; `tell` takes what happened to the loop. Implements `executor.Job`."""

    def __init__(
        self,
        version: VersionKeys,
        unit: Unit,
        store: Store,
        tell: Callable[["UnitJob", Event], None],
        pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        """`pressed`: does somebody wait for the worker, while nobody waits for what it makes?"""
        self.version = version
        self.unit = unit
        self.stopping = False
        self.ticket = 0  # of the place's circuit breaker
        self.reads = False  # did it go to the source?
        self.heard = 0.0  # when the loop last heard of a chunk of it
        self.twin: UnitJob | None = None  # does the same on another worker: who ends first is right
        self.superseded = False  # the twin has ended well
        self.last = False  # the twin has failed: how this one ends counts, and it gets no other
        self.again = 0  # in the bound, for the second of two
        self._store = store
        self._tell = tell
        self._pressed = pressed
        self._spare = bool(unit.spared) and not (unit.demanded or unit.hinted)
        self._to_come: list[int] = []
        self._placed: Place | None = None
        self._began = 0.0

    @property
    def runs_python(self) -> bool:
        chain = self.version.dataset.chain
        return chain is not None and chain.runs_python

    @property
    def may_have_twin(self) -> bool:
        """May another worker begin it too, if it is late?"""
        return self.twin is None and not self.last and bool(self.unit.demanded) and not self.stopping

    @property
    def silent_since(self) -> float | None:
        """When it began, or gave its last chunk; None while no worker has begun with it."""
        return max(self._began, self.heard) if self._began else None

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
        self.reads = True
        return Work(version.task(missing), tuple(version.keys(missing)), dataset.reference)

    def _find(self, chunks: Sequence[tuple[int, str]]) -> list[int]:
        """What is not there. Another server, or another version with the same chunks, may have made some meanwhile."""
        missing = []
        for chunk, key in chunks:
            if self._want(chunk) is None:
                if not self._store.rack.has(key):
                    missing.append(chunk)
            elif entry := self._store.find(self.version.owner, [key])[0]:
                self._tell(self, Made(chunk, entry, found=True))
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
        if self._spare and not (self.unit.demanded or self.unit.hinted):
            if self._pressed() or not self.unit.spared:
                return Verdict.STOP  # what is still wanted is made later
            want = want or "preload"
        place = None
        if self.twin is not None and self._store.rack.has(self.version.key(chunk)):
            return self._pass_over(chunk)
        if not failed or failed.durable:
            key, owner = self.version.key(chunk), self.version.owner
            place = self._store.place(key, size, owner, want, disk=failed is None)
        if place is None and want == "demand":
            raise ResourceExhausted(
                f"there is no room for {self.version.describe(chunk)}, {size:,} bytes:"
                f" {self._store.room()}{f' ({trouble})' if trouble else ''};"
                " raise store_bytes or memory_bytes, or read fewer datasets at once"
            )
        self._placed = place
        return place or self._pass_over(chunk)

    def _pass_over(self, chunk: int) -> Verdict:
        self._to_come.remove(chunk)
        self._tell(self, Skipped(chunk))
        return Verdict.SKIP if any(self._want(c) for c in self._to_come) else Verdict.STOP

    def made(self, chunk: int, place: Place, info: ChunkInfo) -> None:
        self._placed = None
        ahead = self._want(chunk) in ("warm", "preload")
        entry = self._store.settle(place, self.version.owner, ahead=ahead)
        self._to_come.remove(chunk)
        self._tell(self, Made(chunk, entry, ahead=ahead))
        self._store.throttle()

    def abandon(self) -> None:
        placed, self._placed = self._placed, None
        if placed:
            self._store.abandon(placed)

    def ended(self, error: ServiceError | None) -> None:
        self._tell(self, Ended(error, time.monotonic() - self._began if self._began else 0.0))

    def _want(self, chunk: int) -> Want | None:
        """Asked anew for each chunk: who wants what changes while the unit is being made."""
        if chunk in self.unit.demanded:
            return "demand"
        if chunk in self.unit.hinted:
            return "hint"
        return self.unit.why if chunk in self.unit.spared else None
