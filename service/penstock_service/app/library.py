"""The registry as a running server sees it: off the event loop, and aware of what is in use."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from penstock_service.admin.progress import ScanProgress
from penstock_service.app.names import name_of
from penstock_service.config.addresses import DatasetArgument
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference, difference
from penstock_service.core.errors import InvalidRequest, NoRows
from penstock_service.core.uri import scheme_of
from penstock_service.source.objects.address import parse_address
from penstock_service.source.ranges import split_ranges
from penstock_service.source.registry import Registry
from penstock_service.source.spec import spec_of
from penstock_service.source.stores import Stores
from penstock_service.source.unchanged import check_unchanged
from penstock_service.transform.chain import parse

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)


class Library:
    """Implements what control, HTTP and subscriptions want of datasets."""

    def __init__(
        self,
        registry: Registry,
        in_use: Callable[[], set[str]],
        stores: Stores,
        python_modules: tuple[str, ...],
        state: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """`state`: around what reads or writes the registry."""
        self._registry = registry
        self._state = state
        self._python_modules = python_modules
        self._stores = stores
        self._in_use = in_use
        # Threads of its own: a long scan must not keep the gathering of batches waiting.
        self._threads = ThreadPoolExecutor(4, "library")
        self._empty: dict[str, str] = {}  # named at start, and why there was nothing

    def close(self) -> None:
        """Waits for scans that are going on. May be called twice."""
        self._threads.shutdown()

    async def register(self, name: str, path: str | Sequence[str], said: Declaration) -> DatasetVersion:
        """Scan `path` (or several), or what the spec at `path` describes, and keep it under `name`.

        An empty name is the spec's, or made from the path. What is said here wins over a spec.
        """
        return await self._off_loop(self._register, name, (path,) if isinstance(path, str) else tuple(path), said)

    async def register_all(self, arguments: Sequence[DatasetArgument]) -> None:
        """Register what the command line names; the paths of one name are one dataset.

        One without rows is warned of and weighs nothing in mixtures, unless all are so: then the first is raised.
        """
        named: dict[str, list[str]] = {}
        for argument in arguments:
            spec = spec_of(argument.path) if scheme_of(argument.path) is None else None
            name = argument.name or (spec.name if spec else name_of(argument.path))
            if name in named and argument.name is None:
                raise InvalidRequest(
                    f"{named[name][0]} and {argument.path} would both be called {name!r}: name them yourself, "
                    f"{name}=PATH for each if they are parts of one dataset"
                )
            named.setdefault(name, []).append(argument.path)
        empty: dict[str, NoRows] = {}
        for name, paths in named.items():
            try:
                await self.register(name, paths, Declaration())
            except NoRows as nothing:
                empty[name] = nothing
        if empty and len(empty) == len(named):
            raise next(iter(empty.values()))
        self._empty = {name: str(error) for name, error in empty.items()}
        for name, why in self._empty.items():
            _log.warning("dataset %s holds nothing and weighs 0 in mixtures: %s", name, why)

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
            return difference(self._registry.whole(a), self._registry.whole(b))

        return await self._off_loop(found)

    async def lookup(self, name: str, split: str, gone: list[str] | None = None) -> DatasetVersion:
        """For reading: the files must be those that were scanned. Raises NoRows where there is nothing to read.

        Args:
            gone: files that are not there are added to it, instead of refused; one that changed is always refused.
        """
        if name in self._empty:
            raise NoRows(self._empty[name])
        dataset = await self._off_loop(self._registry.get, name, split)
        found = await self._off_loop(check_unchanged, dataset, self._stores, some_gone=gone is not None)
        if gone is not None:
            gone.extend(found)
        return dataset

    async def lookup_reference(self, reference: str) -> DatasetVersion:
        """The same for NAME@VERSION or NAME@VERSION:SPLIT."""
        name, _, split = reference.partition(":")
        return await self.lookup(name, split)

    async def remove(self, name: str, force: bool = False) -> DatasetVersion:
        """Forget a dataset, or one version of it. With `force` even one that streams read: they hold what they need.

        Raises:
            InvalidRequest: it is in use.
        """
        dataset = await self.dataset(name)
        pinned = f"{dataset.name}@{dataset.version}"
        used = sorted(
            n for n in self._in_use() if (n.split(":")[0] == pinned if "@" in name else n.split("@")[0] == dataset.name)
        )
        if used and not force:
            raise InvalidRequest(
                f"dataset {name!r} is in use: streams read {', '.join(used)}. End them first, or remove it with force: "
                "they run on to their end, but cannot be opened again"
            )
        await self._off_loop(self._registry.remove, name)
        _log.info("dataset %s removed%s", name, f" while streams read {', '.join(used)}" if used else "")
        return dataset

    async def _off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._state():
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    def _register(self, name: str, paths: Sequence[str], said: Declaration) -> DatasetVersion:
        paths = [path if scheme_of(path) is not None else str(Path(path).absolute()) for path in paths]
        spec = spec_of(paths[0]) if len(paths) == 1 and scheme_of(paths[0]) is None else None
        if spec is not None:
            name, paths, said = name or spec.name, [spec.path], said.over(spec.said)
        for path in paths:
            if scheme_of(path) is not None:
                parse_address(split_ranges(path)[0], self._stores)  # first of all: a URI with credentials goes nowhere
        name = name or name_of(paths[0])
        chain = parse(said.transforms or "", self._python_modules)
        with ScanProgress(name) as progress:
            dataset = self._registry.register(name, paths, said, progress=progress)
        self._empty.pop(name, None)
        try:
            chain.schema(dataset.schema)
        except InvalidRequest as error:
            _log.warning("dataset %s cannot be streamed with its transforms: %s", name, error)
        for split in dataset.splits:
            _log.info(
                "dataset %s@%s, split %s: %d rows in %d shards (%s)",
                *(dataset.name, dataset.version, split.name, split.rows, split.shards, dataset.path),
            )
        return dataset
