"""Chunks for whoever mixes and gathers: found if they were made before, made if not, lent without a copy.

Everything here runs on the event loop and is short; files are opened in two threads of its own, chunks are made by the
executor's workers. Demand comes from callers that wait; hints only fill what the look-ahead bound leaves free.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from penstock_service.chunks.agenda import Agenda, Unit
from penstock_service.chunks.executor import Executor
from penstock_service.chunks.flights import Flights, Waiter
from penstock_service.chunks.job import Ended, Event, Made, Skipped, UnitJob
from penstock_service.chunks.keys import Owner, VersionKeys, owner_of
from penstock_service.chunks.lease import Hold, Lease
from penstock_service.chunks.remembered import Remembered
from penstock_service.chunks.retry import Retry
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.store import Store, StoreNumbers
from penstock_service.chunks.worker import Make
from penstock_service.core.channel import Bound, Counters
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ServiceError, Unavailable

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE: Final = 512  # chunks demanded before the loop gets its turn
_FAILURE_SECONDS: Final = 30.0  # how long a failure that says nothing new when tried again is remembered


@dataclass(frozen=True)
class ChunkNumbers:
    """Totals since start. `hits` counts chunks asked for that were there; `waiting` those that somebody waits for."""

    made: int
    hits: int
    failed: int
    retried: int
    making_seconds: float  # of workers
    hints_forgotten: int
    waiting: int
    workers: int
    workers_restarted: int
    read_ahead: Bound
    store: StoreNumbers

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return (self.read_ahead, self.store.store, self.store.memory)


class Chunks:
    """`make` reads a task; `semantics` is what each format's reader means, as a version: part of every chunk's name."""

    def __init__(
        self,
        make: Make,
        store: Store,
        executor: Executor,
        read_ahead: Bound,
        *,
        semantics: Mapping[str, int] | None = None,
        retry: Retry = Retry(),  # noqa: B008 - frozen
        max_remembered: int = 100_000,
        draw: Callable[[], float] = random.random,  # in [0, 1), for the jitter of retries
    ) -> None:
        self.counters = Counters()
        self._make = make
        self._store = store
        self._executor = executor
        self._semantics = dict(semantics or {})
        self._retry = retry
        self._draw = draw
        self._agenda = Agenda(read_ahead, executor.workers)
        self._flights = Flights()
        self._remembered = Remembered(max_remembered)
        self._versions: dict[Owner, VersionKeys] = {}
        self._holds: dict[Owner, int] = {}
        self._failures: dict[tuple[Any, int], tuple[ServiceError, float]] = {}
        self._jobs: set[UnitJob] = set()
        self._resting: dict[tuple[Any, int], asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._files: ThreadPoolExecutor | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        async with self._changing:
            if self._files is None:
                self._loop = asyncio.get_running_loop()
                self._files = ThreadPoolExecutor(2, "chunk files")
                await self._off_loop(self._store.start)
                await self._off_loop(self._executor.start, self._make)

    async def stop(self) -> None:
        """Whoever waits gets `Unavailable`. Leaves no thread, process, file or mapping of its own behind."""
        async with self._changing:
            files, loop = self._files, self._loop
            if files is None or loop is None:
                return
            self._files = None
            for job in self._jobs:
                job.stopping = True
            self._flights.fail_all(Unavailable("the server is stopping"))
            for handle in self._resting.values():
                handle.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await loop.run_in_executor(files, self._executor.stop)
            await asyncio.sleep(0)  # what the workers said last is heard first
            await loop.run_in_executor(files, self._store.stop)
            files.shutdown()

    # -- asking --------------------------------------------------------------------------------------------------

    async def info(self, dataset: DatasetVersion, chunk: int) -> ChunkInfo:
        return (await self.infos(dataset, [chunk]))[0]

    async def infos(self, dataset: DatasetVersion, chunks: Sequence[int]) -> list[ChunkInfo]:
        """What is known of each chunk; those never made are made. The first that fails is raised."""
        version = await self._version(dataset)
        keys = await self._keys(version, chunks)
        infos = {key: info for key in keys if (info := self._remembered.get(key))}
        missing = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in infos}

        def arrived(entry: Entry) -> None:
            assert entry.info is not None  # noqa: S101 - it is open
            infos[entry.key] = entry.info

        if missing:
            self._store.hold(version.owner)
            try:
                await self._collect(version, missing, arrived)
            finally:
                self._store.unhold(version.owner)
        return [infos[key] for key in keys]

    async def lease(self, dataset: DatasetVersion, chunks: Sequence[int]) -> Lease:
        """The rows of `chunks`, made if they must be. Does not wait if all are open."""
        lease = self.lease_now(dataset, chunks)
        if lease is not None:
            return lease
        version = await self._version(dataset)
        keys = await self._keys(version, chunks)
        entries: dict[str, Entry] = {}

        def arrived(entry: Entry) -> None:
            self._store.pin(entry)
            entries[entry.key] = entry

        self._store.hold(version.owner)
        try:
            await self._collect(version, dict(zip(keys, chunks, strict=True)), arrived)
        except BaseException:
            self._store.give_back(version.owner, entries.values())
            raise
        batches = {chunk: entries[key].rows for chunk, key in zip(chunks, keys, strict=True)}
        return Lease(self._store, version.owner, list(entries.values()), batches)

    def lease_now(self, dataset: DatasetVersion, chunks: Iterable[int]) -> Lease | None:
        """The lease if all chunks are open already, else None: about a microsecond for each chunk."""
        version = self._versions.get(owner_of(dataset))
        if version is None or self._files is None:
            return None
        get = version.known.get
        keys = {chunk: get(chunk) for chunk in chunks}
        found = self._store.take(version.owner, keys.values())
        if found is None:
            return None
        self.counters.add("hits", len(found))
        batches = {chunk: entry.rows for chunk, entry in zip(keys, found, strict=True)}
        return Lease(self._store, version.owner, found, batches)

    def prefetch(self, dataset: DatasetVersion, chunks: Sequence[int]) -> None:
        """These will be wanted soon, in this order. What the look-ahead has no room for is forgotten: say it again."""
        version = self._versions.get(owner_of(dataset))
        if version is None or any(chunk not in version.known for chunk in chunks):
            task = asyncio.get_running_loop().create_task(self._prefetch_later(dataset, chunks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif self._files is not None:
            self._hint(version, chunks)

    def forget(self, dataset: DatasetVersion) -> None:
        """Hints for this dataset version that no worker has begun with are dropped."""
        self._agenda.forget(owner_of(dataset))

    def hold(self, dataset: DatasetVersion) -> Hold:
        """While held, no chunk of this dataset version gives way to another version's. A session holds its datasets."""
        owner = owner_of(dataset)
        self._holds[owner] = self._holds.get(owner, 0) + 1
        self._store.hold(owner)

        def let_go() -> None:
            self._store.unhold(owner)
            self._holds[owner] -= 1
            if not self._holds[owner]:
                del self._holds[owner]
                self._agenda.forget(owner)
                self._store.drop_memory(owner)

        return Hold(let_go)

    def numbers(self) -> ChunkNumbers:
        values, executor = self.counters.values, self._executor
        return ChunkNumbers(
            made=int(values.get("made", 0)),
            hits=int(values.get("hits", 0)),
            failed=int(values.get("failed", 0)),
            retried=int(values.get("retried", 0)),
            making_seconds=values.get("making_seconds", 0.0),
            hints_forgotten=self._agenda.hints_forgotten,
            waiting=len(self._flights),
            workers=executor.workers,
            workers_restarted=executor.restarted,
            read_ahead=self._agenda.bound,
            store=self._store.numbers(),
        )

    # -- finding -------------------------------------------------------------------------------------------------

    async def _collect(self, version: VersionKeys, chunks: Mapping[str, int], arrived: Callable[[Entry], None]) -> None:
        """Hand each of `chunks` (by key) to `arrived`, which pins what it keeps: first what is there."""
        found = await self._find(version.owner, list(chunks))
        missing: dict[str, int] = {}
        try:
            for (key, chunk), entry in zip(chunks.items(), found, strict=True):
                if entry is None:
                    missing[key] = chunk
                else:
                    self._learn(version, chunk, entry)
                    arrived(entry)
        finally:
            self._store.release(entry for entry in found if entry)
        self.counters.add("hits", len(found) - len(missing))
        if missing:
            await self._wait_for(version, missing, Waiter(missing, arrived))

    async def _find(self, owner: Owner, keys: Sequence[str]) -> list[Entry | None]:
        found = self._running().run_in_executor(self._files, self._store.find, owner, keys)
        try:
            return await asyncio.shield(found)
        except asyncio.CancelledError:
            # The thread goes on, and what it finds is pinned.
            found.add_done_callback(lambda done: self._store.release(entry for entry in done.result() if entry))
            raise

    def _learn(self, version: VersionKeys, chunk: int, entry: Entry) -> None:
        """Raises OrderChanged if this is not what the chunk was before."""
        assert entry.info is not None  # noqa: S101 - it is open
        changed = self._remembered.learn(entry.key, entry.info, lambda: version.describe(chunk))
        if changed:
            self._running().run_in_executor(self._files, self._store.discard, entry.key)
            raise changed

    async def _version(self, dataset: DatasetVersion) -> VersionKeys:
        version = self._versions.get(owner_of(dataset))
        if version is None:
            made = await self._off_loop(VersionKeys, dataset, self._semantics)
            version = self._versions.setdefault(made.owner, made)
            self._store.know(version.owner, version.all_keys)
        return version

    async def _keys(self, version: VersionKeys, chunks: Sequence[int]) -> list[str]:
        try:
            return [version.known[chunk] for chunk in chunks]
        except KeyError:
            return await self._off_loop(version.keys, chunks)

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        return await self._running().run_in_executor(self._files, work, *args)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._files is None or self._loop is None:
            raise Unavailable("the server is stopping, or has not started yet")
        return self._loop

    # -- making --------------------------------------------------------------------------------------------------

    async def _wait_for(self, version: VersionKeys, chunks: Mapping[str, int], waiter: Waiter) -> None:
        try:
            for n, (key, chunk) in enumerate(chunks.items(), 1):
                self._demand(version, chunk, key, waiter)
                if n % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._dispatch()
            await waiter.done
        except BaseException:
            for flight in self._flights.leave(waiter):
                self._agenda.withdraw(_unit_id(flight.version, flight.chunk), flight.chunk)
            raise

    def _demand(self, version: VersionKeys, chunk: int, key: str, waiter: Waiter) -> None:
        loop, unit_id = self._running(), _unit_id(version, chunk)
        error, until = self._failures.get(unit_id, (None, 0.0))
        if error and loop.time() < until:
            waiter.failed(error)
        elif self._flights.join(version, chunk, key, waiter):
            self._agenda.demand(unit_id, chunk, int(version.bytes[chunk]))

    async def _prefetch_later(self, dataset: DatasetVersion, chunks: Sequence[int]) -> None:
        version = await self._version(dataset)
        await self._keys(version, chunks)
        self._hint(version, chunks)

    def _hint(self, version: VersionKeys, chunks: Sequence[int]) -> None:
        for chunk in chunks:
            unit_id = _unit_id(version, chunk)
            if not self._store.has(version.known[chunk]) and unit_id not in self._failures:
                self._agenda.hint(unit_id, chunk, int(version.bytes[chunk]))
        self._dispatch()

    def _dispatch(self) -> None:
        while unit := self._agenda.next(self._running().time()):
            owner: Any = unit.id[0]
            job = UnitJob(self._versions[owner], unit, self._store, self._tell)
            self._jobs.add(job)
            self._executor.submit(job)

    def _tell(self, job: UnitJob, event: Event) -> None:
        """Called by workers."""
        assert self._loop is not None  # noqa: S101 - jobs are submitted by it
        self._loop.call_soon_threadsafe(self._heard, job, event)

    def _heard(self, job: UnitJob, event: Event) -> None:
        match event:
            case Made():
                self._made(job, event)
            case Skipped():
                self._agenda.passed(job.unit, event.chunk, made=False)
            case Ended():
                self._ended(job, event)
        if self._files is not None:
            self._dispatch()

    def _made(self, job: UnitJob, event: Made) -> None:
        self._agenda.passed(job.unit, event.chunk, made=True)
        self.counters.add("hits" if event.found else "made")
        try:
            if self._files is not None:
                self._learn(job.version, event.chunk, event.entry)
                self._flights.landed(event.entry)
        except ServiceError as changed:
            self._flights.failed([event.entry.key], changed)
        finally:
            self._store.release([event.entry])

    def _ended(self, job: UnitJob, event: Ended) -> None:
        self._jobs.discard(job)
        self.counters.add("making_seconds", event.seconds)
        self._agenda.ended(job.unit)
        if event.error is None or self._files is None:
            return
        delay = self._retry.delay(job.unit.attempt, self._draw()) if event.error.retryable else None
        if delay is None:
            self._give_up(job, event.error)
        else:
            logger.warning("tried again in %.1f s: %s", delay, event.error)
            self.counters.add("retried")
            self._agenda.rest(job.unit)
            self._resting[job.unit.id] = self._running().call_later(delay, self._rested, job.unit)

    def _rested(self, unit: Unit) -> None:
        del self._resting[unit.id]
        self._agenda.wake(unit)
        self._dispatch()

    def _give_up(self, job: UnitJob, error: ServiceError) -> None:
        self.counters.add("failed")
        now = self._running().time()
        self._failures = {unit: kept for unit, kept in self._failures.items() if kept[1] > now}
        if not error.retryable:
            self._failures[job.unit.id] = (error, now + _FAILURE_SECONDS)
        self._flights.failed(job.version.keys(self._agenda.fail(job.unit)), error)


def _unit_id(version: VersionKeys, chunk: int) -> tuple[Owner, int]:
    return (version.owner, version.read_with(chunk).start)
