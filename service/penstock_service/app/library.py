"""The registry as a running server sees it: off the event loop, and aware of what is in use."""

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from penstock_service.admin.progress import ScanProgress
from penstock_service.config.addresses import DatasetArgument
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import InvalidRequest, NoRows
from penstock_service.source.discover import fixed_path
from penstock_service.source.registry import Registry
from penstock_service.source.required import Required
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
        self._empty: dict[str, str] = {}  # named at start, and why there was nothing

    def close(self) -> None:
        """Waits for scans that are going on. May be called twice."""
        self._threads.shutdown()

    async def register(
        self,
        name: str,
        path: str | Sequence[str],
        description: str,
        tags: tuple[str, ...],
        required: Required | None = None,
    ) -> DatasetVersion:
        """Scan `path` (or several) and keep it under `name` (empty: made from the path)."""
        paths = (path,) if isinstance(path, str) else tuple(path)
        return await self._off_loop(self._register, name, paths, description, tags, required)

    async def register_all(self, arguments: Sequence[DatasetArgument]) -> None:
        """Register what the command line names; the paths of one name are one dataset.

        One without rows is warned of and weighs nothing in mixtures, unless all are so: then the first is raised.
        """
        named: dict[str, list[str]] = {}
        for argument in arguments:
            name = argument.name or name_of(argument.path)
            if name in named and argument.name is None:
                raise InvalidRequest(
                    f"{named[name][0]} and {argument.path} would both be called {name!r}: name them yourself, "
                    f"{name}=PATH for each if they are parts of one dataset"
                )
            named.setdefault(name, []).append(argument.path)
        empty: dict[str, NoRows] = {}
        for name, paths in named.items():
            try:
                await self.register(name, paths, "", ())
            except NoRows as nothing:
                empty[name] = nothing
        if empty and len(empty) == len(named):
            raise next(iter(empty.values()))
        self._empty = {name: str(error) for name, error in empty.items()}
        for name, why in self._empty.items():
            _log.warning("dataset %s holds nothing and weighs 0 in mixtures: %s", name, why)

    async def datasets(self, text: str = "", tag: str = "") -> list[DatasetVersion]:
        if not text and not tag:
            return await self._off_loop(self._registry.list)
        return await self._off_loop(self._registry.search, text=text, tag=tag)

    async def dataset(self, name: str) -> DatasetVersion:
        return await self._off_loop(self._registry.get, name)

    async def lookup(self, name: str, split: str) -> DatasetVersion:
        """For reading: the files must be those that were scanned. Raises NoRows where there is nothing to read."""
        if name in self._empty:
            raise NoRows(self._empty[name])
        dataset = await self._off_loop(self._registry.get, name, split)
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

    def _register(
        self, name: str, paths: Sequence[str], description: str, tags: tuple[str, ...], required: Required | None
    ) -> DatasetVersion:
        paths = [str(Path(path).absolute()) for path in paths]
        name = name or name_of(paths[0])
        with ScanProgress(name) as progress:
            dataset = self._registry.register(
                name, paths, description=description or None, tags=tags or None, required=required, progress=progress
            )
        self._empty.pop(name, None)
        for split in dataset.splits:
            _log.info(
                "dataset %s@%s, split %s: %d rows in %d shards (%s)",
                *(dataset.name, dataset.version, split.name, split.rows, split.shards, dataset.path),
            )
        return dataset


def name_of(path: str) -> str:
    """A dataset's name from its path: the folder's, the file's without its endings, or the folder of a glob."""
    fixed = Path(fixed_path(path))
    stem = fixed.name if fixed.is_dir() else fixed.name.split(".")[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")
    if not name:
        raise InvalidRequest(f"no name can be made of the path {path!r}; name the dataset yourself: NAME={path}")
    return name[:128]
