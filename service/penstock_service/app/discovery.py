"""The folder whose children are datasets: looked into at start, when asked to, and from time to time."""

import asyncio
import contextlib
import glob
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from penstock_service.admin.progress import ScanProgress
from penstock_service.app.names import name_of
from penstock_service.core.declaration import Declaration
from penstock_service.core.discovery import Child, Discovery
from penstock_service.core.errors import InvalidRequest, ServiceError
from penstock_service.source.children import Candidate, children
from penstock_service.source.discover import Found, discover
from penstock_service.source.ranges import split_ranges
from penstock_service.source.registry import Registered, Registry

SETTLED_SECONDS: Final = 2.0
"""The look from time to time leaves alone what was written to less than this ago: a later one takes it whole."""

_log = logging.getLogger(__name__)

_Known = tuple[Found, str, Declaration]
"""What decides whether a child can be registered: its files, its name, what its spec says."""


class Discoverer:
    """look, start, stop; `stop` may be called twice, or without `start`. One look at a time."""

    def __init__(
        self,
        folder: Path | None,
        every: float,
        registry: Registry,
        state: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        """`state`: around what reads or writes the registry."""
        self._state = state
        self._folder = folder
        self._every = every
        self._registry = registry
        self._thread = ThreadPoolExecutor(1, "discover")  # one look at a time
        self._task: asyncio.Task[None] | None = None
        self._refused: dict[str, tuple[_Known, str]] = {}  # by path: not scanned again until something changed
        self._said: dict[str, Child] = {}

    async def look(self, *, settled: bool = False) -> Discovery:
        """Register every child that can be; the others are in the answer and the log with the reason.

        Raises:
            InvalidRequest: the server has no such folder.
            SourceUnreadable: it cannot be listed.
        """
        folder = self._folder
        if folder is None:
            raise InvalidRequest("this server has no folder of datasets: start it with --discover DIR")
        with self._state():
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._look, folder, settled)

    def start(self) -> None:
        if self._folder is not None and self._every > 0:
            self._task = asyncio.get_running_loop().create_task(self._again())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)  # a scan that goes on is waited for

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            try:
                await self.look(settled=True)
            except ServiceError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - a bug there must not end the looks without a word
                _log.exception("looking for datasets met a bug; the next look is in %g s", self._every)

    def _look(self, folder: Path, settled: bool) -> Discovery:
        named = [self._named(candidate) for candidate in children(folder)]
        registered = self._registry.newest()
        holders: dict[str, list[str]] = {}
        for child, _ in named:
            if child.name:
                holders.setdefault(child.name, []).append(Path(child.path).name)
        seen = []
        for child, candidate in named:
            if child.state == "refused":
                seen.append(child)
            elif len(holders[child.name]) > 1:
                reason = f"{' and '.join(holders[child.name])} would both be called {child.name!r}: rename one, or "
                seen.append(replace(child, state="refused", reason=reason + "name it by a spec"))
            else:
                seen.append(self._registered(child, candidate, registered.get(child.name), settled))
        here = {candidate.data for _, candidate in named}
        seen += [
            Child(name, known.path, "gone", known.version, "its data is gone: put it back, or remove the dataset")
            for name, known in registered.items()
            if str(Path(known.path).parent) == str(folder) and known.path not in here and _is_gone(known.path)
        ]
        found = Discovery(str(folder), tuple(sorted(seen, key=lambda child: os.fsencode(child.path))))
        self._tell(found)
        return found

    def _named(self, candidate: Candidate) -> tuple[Child, Candidate]:
        if candidate.problem:
            return Child("", candidate.path, "refused", reason=candidate.problem), candidate
        try:
            name = candidate.spec.name if candidate.spec else name_of(candidate.path)
        except ServiceError as error:
            return Child("", candidate.path, "refused", reason=str(error)), candidate
        return Child(name, candidate.path, "unchanged"), candidate

    def _registered(self, child: Child, candidate: Candidate, known: Registered | None, settled: bool) -> Child:
        if known is not None and known.path != candidate.data and not _is_gone(known.path):
            reason = f"the name {child.name!r} is held by {known.path}: remove that dataset, or name this by a spec"
            return replace(child, state="refused", reason=reason)
        said = candidate.spec.said if candidate.spec else Declaration()
        try:
            found = discover(candidate.data)
        except ServiceError as error:
            return replace(child, state="refused", reason=str(error))
        if settled and (age := _age(found)) < SETTLED_SECONDS:
            return replace(child, state="waiting", reason=f"it was written to {age:.1f} s ago")
        now = (found, child.name, said)
        if child.path in self._refused and self._refused[child.path][0] == now:
            return replace(child, state="refused", reason=self._refused[child.path][1])
        try:
            with ScanProgress(child.name) as progress:
                version = self._registry.register(child.name, candidate.data, said, progress=progress).version
        except ServiceError as error:
            if not error.retryable:
                self._refused[child.path] = (now, str(error))
            return replace(child, state="refused", reason=str(error))
        if known is None:
            return replace(child, state="new", version=version)
        return replace(child, state="unchanged" if known.version == version else "new version", version=version)

    def _tell(self, found: Discovery) -> None:
        """One line for what is not as it was at the last look."""
        for child in found.children:
            if self._said.get(child.path) == child:
                continue
            if child.state in ("refused", "gone"):
                _log.warning("%s: %s: %s", child.path, child.state, child.reason)
            elif child.state in ("new", "new version"):
                _log.info("%s: %s dataset %s@%s", child.path, child.state, child.name, child.version)
        self._said = {child.path: child for child in found.children}
        self._refused = {path: self._refused[path] for path in self._refused if path in self._said}


def _age(found: Found) -> float:
    """Seconds since a file was written to; one written in the future counts as old."""
    ages = [time.time() - file.state.mtime_ns / 1e9 for file in found.files]
    return min((age for age in ages if age >= 0), default=SETTLED_SECONDS)


def _is_gone(path: str) -> bool:
    """Is there nothing any more at the path of a dataset? Other places are believed to be there."""
    path = split_ranges(path)[0]
    if "://" in path or os.path.lexists(path):
        return False
    return not glob.glob(path)  # noqa: PTH207  as the source does it
