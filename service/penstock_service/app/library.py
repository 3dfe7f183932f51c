"""The registry as a running server sees it: off the event loop, and aware of what is in use."""

import asyncio
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from penstock_service.admin.progress import ScanProgress
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import InvalidRequest
from penstock_service.source.registry import Registry
from penstock_service.source.unchanged import check_unchanged

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Library:
    """Implements what control, HTTP and subscriptions want of datasets."""

    def __init__(self, registry: Registry, in_use: Callable[[], set[str]]) -> None:
        self._registry = registry
        self._in_use = in_use
        # Threads of its own: a long scan must not keep the gathering of batches waiting.
        self._threads = ThreadPoolExecutor(4, "library")

    def close(self) -> None:
        """Waits for scans that are going on. May be called twice."""
        self._threads.shutdown()

    async def register(self, name: str, path: str, description: str, tags: tuple[str, ...]) -> DatasetVersion:
        """Scan `path` and keep it under `name` (empty: made from the path)."""
        return await self._off_loop(self._register, name, path, description, tags)

    async def datasets(self, text: str = "", tag: str = "") -> list[DatasetVersion]:
        if not text and not tag:
            return await self._off_loop(self._registry.list)
        return await self._off_loop(self._registry.search, text=text, tag=tag)

    async def dataset(self, name: str) -> DatasetVersion:
        return await self._off_loop(self._registry.get, name)

    async def lookup(self, name: str) -> DatasetVersion:
        """For reading: the files must be those that were scanned."""
        dataset = await self.dataset(name)
        await self._off_loop(check_unchanged, dataset)
        return dataset

    async def remove(self, name: str) -> DatasetVersion:
        dataset = await self.dataset(name)
        used = sorted(n for n in self._in_use() if n.split("@")[0] == dataset.name)
        if used:
            raise InvalidRequest(f"dataset {dataset.name!r} is in use ({used[0]}); end the streams that read it first")
        await self._off_loop(self._registry.remove, name)
        return dataset

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    def _register(self, name: str, path: str, description: str, tags: tuple[str, ...]) -> DatasetVersion:
        path = str(Path(path).absolute())
        name = name or name_of(path)
        with ScanProgress(name) as progress:
            dataset = self._registry.register(
                name, path, description=description or None, tags=tags or None, progress=progress
            )
        _log.info(
            "dataset %s@%s: %d rows in %d shards, %d chunks (%s)",
            *(dataset.name, dataset.version, dataset.manifest.rows, dataset.manifest.shards.num_rows),
            *(dataset.manifest.chunks, dataset.path),
        )
        return dataset


def name_of(path: str) -> str:
    """A dataset's name from its path: the folder's, the file's without its endings, or the folder of a glob."""
    parts = [part for part in Path(path).parts if not set(part) & set("*?[")]
    last = parts[-1] if parts else ""
    stem = last if Path(path).is_dir() else last.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")
    if not name:
        raise InvalidRequest(f"no name can be made of the path {path!r}; name the dataset yourself: NAME={path}")
    return name[:128]
