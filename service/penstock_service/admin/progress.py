"""How far the scan of a dataset is: a bar on a terminal, else a log line every few seconds."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from penstock_service.admin.tables import readable_bytes

EVERY_SECONDS = 5.0

log = logging.getLogger(__name__)


class ScanProgress:
    """A context manager that is also the scan's callback. May be called from any thread. Draws nothing before the
    first call, so that what is over at once leaves no trace.
    """

    def __init__(
        self, name: str, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name = name
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._said = clock()
        self._bar = _bar(self._console) if self._console.is_terminal else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done_bytes: int, total_bytes: int, shards_done: int, shards_total: int) -> None:
        if self._bar is not None:
            self._draw(self._bar, done_bytes, total_bytes, shards_done, shards_total)
        elif self._clock() - self._said >= EVERY_SECONDS:
            self._said = self._clock()
            share = done_bytes / total_bytes if total_bytes else 1.0
            log.info(
                "scanning %s: %s of %s shards, %s of %s (%.0f %%)",
                self._name,
                f"{shards_done:,}",
                f"{shards_total:,}",
                readable_bytes(done_bytes),
                readable_bytes(total_bytes),
                share * 100,
            )

    def _draw(self, bar: Progress, done_bytes: int, total_bytes: int, shards_done: int, shards_total: int) -> None:
        if not bar.tasks:
            bar.start()
            bar.add_task(f"scanning {self._name}", shards="")
        shards = f"{shards_done:,}/{shards_total:,} shards"
        bar.update(bar.tasks[0].id, completed=done_bytes, total=total_bytes, shards=shards)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[shards]}"),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
