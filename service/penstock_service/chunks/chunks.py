"""Chunks for whoever mixes and gathers: found if they were made before, made if not, lent without a copy.

Everything here runs on the event loop and is short; files are opened in two threads of its own, chunks are made by the
executor's workers. Demand comes from callers that wait; hints only fill what the look-ahead bound leaves free.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from penstock_service.chunks.agenda import SpareWant
from penstock_service.chunks.ahead import Plan
from penstock_service.chunks.executor import Executor
from penstock_service.chunks.holdings import holdings
from penstock_service.chunks.keys import Owner, VersionKeys, owner_of
from penstock_service.chunks.lease import Hold, Lease
from penstock_service.chunks.numbers import ChunkNumbers, chunk_numbers, store_status
from penstock_service.chunks.production import Production
from penstock_service.chunks.remembered import Remembered
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.store import Store
from penstock_service.chunks.usage import Usage
from penstock_service.chunks.worker import Make
from penstock_service.core.breaker import Limits
from penstock_service.core.channel import Bound, Counters
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import Unavailable
from penstock_service.core.holding import Holding
from penstock_service.core.retry import Retry
from penstock_service.core.status import PlaceStatus
from penstock_service.core.store import Policy, StoreStatus

P = ParamSpec("P")
T = TypeVar("T")


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
        breaker: Limits = Limits(),  # noqa: B008 - frozen
        policy: Policy = "lru",
        max_remembered: int = 100_000,
        draw: Callable[[], float] = random.random,  # in [0, 1), for the jitter of retries
    ) -> None:
        self.counters = Counters()
        self._make = make
        self._store = store
        self._rack = store.rack
        self._executor = executor
        self._semantics = dict(semantics or {})
        self._versions: dict[Owner, VersionKeys] = {}
        self._holds: dict[Owner, int] = {}
        self._remembered = Remembered(max_remembered, self._changed)
        self._usage = Usage(store.rack, store.rack.disk.bound.limit, policy)
        self._production = Production(
            *(store, executor, read_ahead, self.counters, self._remembered, self._usage),
            *(self._versions, retry, draw, breaker),
        )
        self.ahead_wanted = read_ahead.limit
        self._ahead_cap: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._files: ThreadPoolExecutor | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Starts the workers: processes are there before anything that must not be forked. Not to be started twice."""
        async with self._changing:
            self._files = ThreadPoolExecutor(2, "chunk files")
            self._production.start()
            try:
                await self._off_loop(self._store.start)
                await self._off_loop(self._executor.start, self._make)
            except BaseException:
                await self._off_loop(self._store.stop)
                self._files.shutdown()
                self._files = None
                self._executor.stop()
                raise

    async def stop(self) -> None:
        """Whoever waits gets `Unavailable`. Leaves no thread, process, file or mapping of its own behind."""
        async with self._changing:
            files, self._files = self._files, None
            if files is None:
                return
            loop = asyncio.get_running_loop()
            self._production.stop()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await loop.run_in_executor(files, self._executor.stop)
            await asyncio.sleep(0)  # what the workers said last is heard first
            await loop.run_in_executor(files, self._store.stop)
            files.shutdown()

    async def resize(self, workers: int) -> None:
        """So many workers from now on; those that end finish their task first.

        Raises:
            Internal: a worker cannot begin; there are as many as could.
        """
        async with self._changing:
            if self._files is None:
                return
            try:
                await self._off_loop(self._executor.resize, workers)
            finally:
                self._production.resize(self._executor.workers)

    def look_ahead(self, limit: int) -> None:
        """At most so many bytes of chunks are made ahead of demand from now on."""
        self.ahead_wanted = limit
        self._production.agenda.bound.limit = limit if self._ahead_cap is None else min(limit, self._ahead_cap)

    # -- asking --------------------------------------------------------------------------------------------------

    async def info(self, dataset: DatasetVersion, chunk: int) -> ChunkInfo:
        return (await self.infos(dataset, [chunk]))[0]

    async def infos(self, dataset: DatasetVersion, chunks: Sequence[int]) -> list[ChunkInfo]:
        """What is known of each chunk; those never made are made. The first that fails is raised."""
        self._running()
        version = await self._version(dataset)
        keys = await self._keys(version, chunks)
        infos = {key: info for key in keys if (info := self._remembered.sure(key))}
        missing = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in infos}

        def arrived(entry: Entry) -> None:
            assert entry.info is not None  # noqa: S101 - it is open
            infos[entry.key] = entry.info

        if missing:
            self._rack.hold(version.owner)
            try:
                await self._collect(version, missing, arrived)
            finally:
                self._rack.unhold(version.owner)
        self._usage.use(version, chunks, keys)
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
            self._rack.pin(entry)
            entries[entry.key] = entry

        self._rack.hold(version.owner)
        try:
            await self._collect(version, dict(zip(keys, chunks, strict=True)), arrived)
        except BaseException:
            self._rack.give_back(version.owner, entries.values())
            raise
        batches = {chunk: entries[key].rows for chunk, key in zip(chunks, keys, strict=True)}
        return Lease(self._rack, version.owner, list(entries.values()), batches)

    def lease_now(self, dataset: DatasetVersion, chunks: Iterable[int]) -> Lease | None:
        """The lease if all chunks are open already, else None: well below a microsecond for each chunk."""
        version = self._versions.get(owner_of(dataset))
        if version is None or self._files is None:
            return None
        get = version.known.get
        keys = {chunk: get(chunk) for chunk in chunks}
        found = self._rack.take(version.owner, keys.values())
        if found is None:
            return None
        batches = {chunk: entry.rows for chunk, entry in zip(keys, found, strict=True)}
        return Lease(self._rack, version.owner, found, batches)

    def prefetch(self, dataset: DatasetVersion, chunks: Sequence[int]) -> None:
        """These will be wanted soon, in this order. What the look-ahead has no room for is forgotten: say it again."""
        version = self._versions.get(owner_of(dataset))
        if self._files is None:
            return
        if version and all(chunk in version.known for chunk in chunks):
            self._production.hint(version, chunks)
        else:
            task = asyncio.get_running_loop().create_task(self._prefetch_later(dataset, chunks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def forget(self, dataset: DatasetVersion) -> None:
        """Hints for this dataset version that no worker has begun with are dropped."""
        self._production.agenda.forget(owner_of(dataset))

    def hold(self, dataset: DatasetVersion) -> Hold:
        """While held, no chunk of this dataset version gives way to another version's. A session holds its datasets."""
        owner = owner_of(dataset)
        self._holds[owner] = self._holds.get(owner, 0) + 1
        self._rack.hold(owner)
        self._usage.hold(owner)

        def let_go() -> None:
            self._rack.unhold(owner)
            self._usage.unhold(owner)
            self._holds[owner] -= 1
            if not self._holds[owner]:
                del self._holds[owner]
                self._production.agenda.forget(owner)
                self._production.ahead.drop(owner)
                self._rack.drop_memory(owner)

        return Hold(let_go)

    def places(self) -> list[PlaceStatus]:
        """Where chunks were read from, and whether each place answers."""
        return self._production.places.statuses(asyncio.get_running_loop().time())

    def numbers(self) -> ChunkNumbers:
        if self._files is not None:
            self._production.measure()
        return chunk_numbers(self._production, self._executor, self._usage, self._store, self.counters)

    # -- ahead of sessions ---------------------------------------------------------------------------------------

    async def make_ahead(self, dataset: DatasetVersion, want: SpareWant) -> Plan:
        """Make all chunks of a version that are not there, while nobody else wants the workers.

        Raises:
            ResourceExhausted: `warm`, and they do not fit, with the bytes.
        """
        version = await self._version(dataset)
        missing = await self._off_loop(self._missing, version)
        return self._production.ahead.add(version, want, missing)

    def stop_ahead(self, plan: Plan, reason: str) -> None:
        self._production.ahead.stop(plan, reason)

    def _missing(self, version: VersionKeys) -> list[int]:
        keys = version.keys(range(version.chunks))
        return [chunk for chunk, key in enumerate(keys) if not self._rack.has(key)]

    @property
    def store_limit(self) -> int:
        """Bytes that the store may hold on disk."""
        return self._rack.disk.bound.limit

    def warning(self, dataset: DatasetVersion) -> str:
        """What to say when a version is opened that the store cannot hold; empty: it can, or it was said before."""
        version = self._versions.get(owner_of(dataset))
        return self._usage.warning(version) if version is not None else ""

    def status(self) -> StoreStatus:
        return store_status(self._store, self._usage, self._production.ahead)

    # -- memory --------------------------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Ids of worker processes."""
        return self._executor.processes()

    def cap_look_ahead(self, size: int) -> None:
        """Whatever `look_ahead` says, no more than so many bytes from now on; one chunk always may."""
        self._ahead_cap = size
        self.look_ahead(self.ahead_wanted)

    def shed(self, size: int) -> None:
        """Let go of `size` bytes of chunks in memory that nobody leases. They are made again when they are wanted."""
        self._rack.shed_memory(size)

    def holdings(self) -> list[Holding]:
        making = self._production.making()
        return holdings(making, self._rack, self._versions, self._remembered, bool(self.processes()))

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
                    if self._remembered.get(key) is None:
                        self._usage.learn(version, chunk, entry)
                    self._remembered.learn(entry, partial(version.describe, chunk))
                    arrived(entry)
        finally:
            self._rack.release(entry for entry in found if entry)
        if missing:
            await self._production.wait_for(version, missing, arrived)

    async def _find(self, owner: Owner, keys: Sequence[str]) -> list[Entry | None]:
        found = asyncio.get_running_loop().run_in_executor(self._running(), self._store.find, owner, keys)
        try:
            return await asyncio.shield(found)
        except asyncio.CancelledError:
            # The thread goes on, and what it finds is pinned.
            found.add_done_callback(lambda done: self._rack.release(entry for entry in done.result() if entry))
            raise

    def _changed(self, key: str) -> None:
        if self._files is not None:  # else the next start finds out
            self._files.submit(self._store.discard, key)

    async def _version(self, dataset: DatasetVersion) -> VersionKeys:
        version = self._versions.get(owner_of(dataset))
        if version is None:
            made = await self._off_loop(VersionKeys, dataset, self._semantics)
            version = self._versions.setdefault(made.owner, made)
            self._rack.know(version.owner, version.all_keys)
        return version

    async def _keys(self, version: VersionKeys, chunks: Sequence[int]) -> list[str]:
        try:
            return [version.known[chunk] for chunk in chunks]
        except KeyError:
            return await self._off_loop(version.keys, chunks)

    async def _prefetch_later(self, dataset: DatasetVersion, chunks: Sequence[int]) -> None:
        held = owner_of(dataset) in self._holds
        version = await self._version(dataset)
        await self._keys(version, chunks)
        if not held or version.owner in self._holds:  # else whoever wanted them has gone meanwhile
            self._production.hint(version, chunks)

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._running(), work, *args)

    def _running(self) -> ThreadPoolExecutor:
        if self._files is None:
            raise Unavailable("the server is stopping, or has not started yet")
        return self._files
