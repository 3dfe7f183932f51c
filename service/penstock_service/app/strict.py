"""`--strict`: the first bad row that stops a stream stops the server too."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import pyarrow as pa

from penstock_service.core.errors import DataError, ServiceError
from penstock_service.core.feed import Bundle, EpochEnd, Feed, Memory, Opening, ordinary
from penstock_service.core.segment import Progress

EXIT_CODE: Final = 3

_log = logging.getLogger(__name__)


class Strict:
    """Watches feeds. `failed` is called once, when a trainer was told of the first error of data."""

    def __init__(self, failed: Callable[[], object]) -> None:
        self._failed = failed
        self._met: list[DataError] = []  # perhaps ahead of the trainer, which may never come to it
        self._ended = False

    def watch(self, opening: Opening) -> Opening:
        return replace(opening, feed=_Watched(opening.feed, self._met.append))

    def told(self, problem: ServiceError) -> None:
        if not self._ended and any(problem is met for met in self._met):
            self._ended = True
            _log.error("the server ends (--strict): %s", problem)
            self._failed()


class _Watched:
    def __init__(self, feed: Feed, tell: Callable[[DataError], object]) -> None:
        self._feed = feed
        self._tell = tell

    async def next(
        self, steps: int, size: int, progress: Progress | None = None, memory: Memory = ordinary
    ) -> Bundle | EpochEnd:
        try:
            return await self._feed.next(steps, size, progress, memory)
        except DataError as error:
            self._tell(error)
            raise

    async def explain(self, step: int, all_ranks: bool) -> pa.RecordBatch:
        return await self._feed.explain(step, all_ranks)
