"""What is decoded before anybody reads it: everything that fits (preload), or what an operator names (warm)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from penstock_service.chunks.ahead import Plan
from penstock_service.chunks.chunks import Chunks
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import ResourceExhausted, ServiceError
from penstock_service.core.store import AheadStatus, PreloadMode
from penstock_service.transform.chain import parse

_log = logging.getLogger(__name__)

_SAY_EVERY: Final = 5.0  # seconds between two log lines of a start that waits
_SHOW_EVERY: Final = 0.25  # between two reports of progress

Lookup = Callable[[str, str], Awaitable[DatasetVersion]]
List = Callable[[], Awaitable[list[DatasetVersion]]]


class Warming:
    """`stop` may be called twice, or before anything began. Belongs to the event loop."""

    def __init__(
        self, mode: PreloadMode, chunks: Chunks, lookup: Lookup, list_all: List, python_modules: tuple[str, ...]
    ) -> None:
        """`lookup`: a split of a dataset for reading; `list_all`: the newest version of each."""
        self._mode: PreloadMode = mode
        self._chunks = chunks
        self._lookup = lookup
        self._list = list_all
        self._python_modules = python_modules
        self._tasks: set[asyncio.Task[None]] = set()

    # -- at start ------------------------------------------------------------------------------------------------

    async def eager(self) -> None:
        """With `--preload eager`: returns when all datasets are in the store.

        Raises:
            ResourceExhausted: they do not fit, with the bytes; or one could not be made.
        """
        if self._mode != "eager":
            return
        with contextlib.ExitStack() as held:  # none gives way to another
            plans = []
            for dataset in await self._all():
                held.enter_context(self._chunks.hold(dataset))
                plans.append(await self._chunks.make_ahead(dataset, "warm"))
            for plan in plans:
                await self._wait(plan)
                if plan.reason:
                    raise ResourceExhausted(f"--preload eager: {plan.reason}")

    async def _wait(self, plan: Plan) -> None:
        while not plan.over:
            plan.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SAY_EVERY):
                    while not plan.over:
                        await plan.changed.wait()
                        plan.changed.clear()
            status = plan.status()
            done = status.there + status.made
            _log.info("preload: %s, %d of %d chunks are there", status.dataset, done, status.chunks)

    def look(self) -> None:
        """With `--preload auto`: begin with what fits of all datasets, in the background."""
        if self._mode == "auto":
            self._begin(self._preload_all())

    # -- later ---------------------------------------------------------------------------------------------------

    def registered(self, version: DatasetVersion) -> None:
        if self._mode != "lazy":
            self._begin(self._preload_one(version))

    def opened(self, dataset: DatasetVersion) -> str:
        """A stream reads it: its transformed rows are preloaded too. What its user should know, or nothing."""
        if self._mode != "lazy" and dataset.chain is not None:
            self._begin(self._preload(dataset))
        return self._chunks.warning(dataset)

    async def warm(self, name: str, split: str = "") -> AsyncGenerator[AheadStatus, None]:
        """How far it is, again and again; the last one is over. It stops when nobody listens any more.

        Raises:
            NotFound: no such dataset or split.
            ResourceExhausted: it does not fit, with the bytes.
        """
        dataset = await self._of(name, split)
        with self._chunks.hold(dataset):
            plan = await self._chunks.make_ahead(dataset, "warm")
            try:
                while not plan.over:
                    yield plan.status()
                    plan.changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_SHOW_EVERY):
                            while not plan.over:
                                await plan.changed.wait()
                                plan.changed.clear()
                yield plan.status()
            finally:
                self._chunks.stop_ahead(plan, "it was interrupted")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- inside --------------------------------------------------------------------------------------------------

    async def _preload_all(self) -> None:
        for dataset in await self._all():
            await self._preload(dataset)

    async def _preload_one(self, version: DatasetVersion) -> None:
        for dataset in await self._splits(version):
            await self._preload(dataset)

    async def _preload(self, dataset: DatasetVersion) -> None:
        size = int((await asyncio.to_thread(lambda: dataset.manifest.chunk_bytes)).sum())
        if self._may_fit(dataset.reference, size):  # else it is not worth looking at each chunk
            await self._chunks.make_ahead(dataset, "preload")

    def _may_fit(self, what: str, size: int) -> bool:
        limit = self._chunks.store_limit
        if limit and size > limit:
            _log.info("not preloaded: %s has about %d bytes, the store holds %d", what, size, limit)
        return size <= limit

    async def _all(self) -> list[DatasetVersion]:
        found = []
        for version in await self._list():
            found += await self._splits(version)
        return found

    async def _splits(self, version: DatasetVersion) -> list[DatasetVersion]:
        """As a stream without transforms of its own reads them. What cannot be read now is left out."""
        found = []
        for split in version.splits:
            if self._mode == "auto" and not self._may_fit(f"{version.reference}, split {split.name}", split.bytes):
                continue  # not worth looking at each file
            try:
                found.append(await self._of(f"{version.name}@{version.version}", split.name))
            except ServiceError as error:
                _log.info("not preloaded: %s", error)
        return found

    async def _of(self, name: str, split: str) -> DatasetVersion:
        dataset = await self._lookup(name, split)
        own = await asyncio.to_thread(parse, dataset.transforms, self._python_modules)
        return dataset.transformed(own) if own else dataset

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(self._quietly(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _quietly(self, work: Awaitable[None]) -> None:
        """Nobody waits for a preload: what goes wrong with it is for the log."""
        try:
            await work
        except ServiceError as error:
            _log.warning("not preloaded: %s", error)
        except Exception:  # noqa: BLE001 - a bug there must not go without a word
            _log.exception("preloading met a bug")
