"""Looks at the ranks of all jobs every few seconds, and writes into the log what an operator should know."""

import asyncio
import logging
import time
from collections.abc import Callable

from penstock_service.app.ranks import Ranks
from penstock_service.core.job import JobStatus
from penstock_service.core.status import SessionStatus

_log = logging.getLogger(__name__)


class RankWatch:
    """start, stop; `jobs` may be asked at any time between."""

    def __init__(self, sessions: Callable[[], list[SessionStatus]], missing_after: float, lagging_after: float) -> None:
        self._sessions = sessions
        self._ranks = Ranks(missing_after, lagging_after)
        self._every = max(0.1, min(5.0, missing_after / 2, lagging_after / 2))
        self._task: asyncio.Task[None] | None = None

    def jobs(self) -> tuple[JobStatus, ...]:
        return self._ranks.observe(self._sessions(), time.monotonic())

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            for line in self._ranks.news(self.jobs()):
                _log.warning("%s", line)
