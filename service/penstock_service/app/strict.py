"""`--strict`: the first bad row that stops a stream stops the server too."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from penstock_service.core.errors import DataError
from penstock_service.core.feed import Bundle, EpochEnd, Feed, Opening
from penstock_service.core.segment import Progress

EXIT_CODE: Final = 3

_log = logging.getLogger(__name__)


class Strict:
    """Watches feeds. `failed` is called once, with the first error of data."""

    def __init__(self, failed: Callable[[DataError], object]) -> None:
        self._failed = failed
        self._told = False

    def watch(self, opening: Opening) -> Opening:
        return replace(opening, feed=_Watched(opening.feed, self._tell))

    def _tell(self, error: DataError) -> None:
        if not self._told:
            self._told = True
            _log.error("the server ends (--strict): %s", error)
            self._failed(error)


class _Watched:
    def __init__(self, feed: Feed, tell: Callable[[DataError], None]) -> None:
        self._feed = feed
        self._tell = tell

    async def next(self, steps: int, size: int, progress: Progress | None = None) -> Bundle | EpochEnd:
        try:
            return await self._feed.next(steps, size, progress)
        except DataError as error:
            self._tell(error)
            raise
