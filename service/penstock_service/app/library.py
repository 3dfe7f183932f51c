"""The registry as a running server sees it: off the event loop, and aware of what is in use."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from penstock_service.admin.progress import ScanProgress
from penstock_service.app.names import name_of
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference, difference
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.uri import scheme_of
from penstock_service.source.objects.address import parse_address
from penstock_service.source.registry import Registry
from penstock_service.source.spec import spec_of
from penstock_service.source.stores import Stores
from penstock_service.source.unchanged import check_unchanged

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Library:
    """Implements what control, HTTP and subscriptions want of datasets."""

    def __init__(self, registry: Registry, in_use: Callable[[], set[str]], stores: Stores) -> None:
        self._registry = registry
        self._stores = stores
        self._in_use = in_use
        # Threads of its own: a long scan must not keep the gathering of batches waiting.
        self._threads = ThreadPoolExecutor(4, "library")

    def close(self) -> None:
        """Waits for scans that are going on. May be called twice."""
        self._threads.shutdown()

    async def register(self, name: str, path: str, said: Declaration) -> DatasetVersion:
        """Scan `path`, or what the spec at `path` describes, and keep it under `name`.

        An empty name is the spec's, or made from the path. What is said here wins over a spec.
        """
        return await self._off_loop(self._register, name, path, said)

    async def datasets(self, text: str = "", task: str = "", tag: str = "") -> list[DatasetVersion]:
        if not text and not task and not tag:
            return await self._off_loop(self._registry.list)
        return await self._off_loop(self._registry.search, text=text, task=task, tag=tag)

    async def dataset(self, name: str) -> DatasetVersion:
        return await self._off_loop(self._registry.get, name)

    async def versions(self, name: str) -> list[DatasetVersion]:
        return await self._off_loop(self._registry.versions, name)

    async def diff(self, a: str, b: str) -> Difference:
        """What leads from `a` to `b`, each NAME or NAME@VERSION."""

        def found() -> Difference:
            return difference(self._registry.get(a), self._registry.get(b))

        return await self._off_loop(found)

    async def lookup(self, name: str) -> DatasetVersion:
        """For reading: the files must be those that were scanned."""
        dataset = await self.dataset(name)
        await self._off_loop(check_unchanged, dataset, self._stores)
        return dataset

    async def remove(self, name: str, force: bool = False) -> DatasetVersion:
        """Forget a dataset, or one version of it. With `force` even one that streams read: they hold what they need.

        Raises:
            InvalidRequest: it is in use.
        """
        dataset = await self.dataset(name)
        pinned = f"{dataset.name}@{dataset.version}"
        used = sorted(n for n in self._in_use() if (n == pinned if "@" in name else n.split("@")[0] == dataset.name))
        if used and not force:
            raise InvalidRequest(
                f"dataset {name!r} is in use: streams read {', '.join(used)}. End them first, or remove it with force: "
                "they run on to their end, but cannot be opened again"
            )
        await self._off_loop(self._registry.remove, name)
        _log.info("dataset %s removed%s", name, f" while streams read {', '.join(used)}" if used else "")
        return dataset

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    def _register(self, name: str, path: str, said: Declaration) -> DatasetVersion:
        if scheme_of(path) is None:
            path = str(Path(path).absolute())
            spec = spec_of(path)
            if spec is not None:
                name, path, said = name or spec.name, spec.path, said.over(spec.said)
        if scheme_of(path) is not None:
            parse_address(path, self._stores)  # first of all: a URI with credentials goes nowhere
        name = name or name_of(path)
        with ScanProgress(name) as progress:
            dataset = self._registry.register(name, path, said, progress=progress)
        _log.info(
            "dataset %s@%s: %d rows in %d shards, %d chunks (%s)",
            *(dataset.name, dataset.version, dataset.manifest.rows, dataset.manifest.shards.num_rows),
            *(dataset.manifest.chunks, dataset.path),
        )
        return dataset
