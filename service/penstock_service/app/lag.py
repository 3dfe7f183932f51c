"""How late the event loop is: what a Python thread that hogs the interpreter costs everybody."""

import asyncio
import time
from collections import deque
from typing import Final

_EVERY: Final = 0.1  # seconds
_REMEMBERED: Final = 10.0


class LagProbe:
    """start, stop; `worst` is that of the last ten seconds, in seconds."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def worst(self) -> float:
        horizon = time.monotonic() - _REMEMBERED
        return max((lag for at, lag in self._lags if at >= horizon), default=0.0)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._probe())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _probe(self) -> None:
        while True:
            due = time.monotonic() + _EVERY
            await asyncio.sleep(_EVERY)
            now = time.monotonic()
            self._lags.append((now, max(0.0, now - due)))
            while self._lags and self._lags[0][0] < now - _REMEMBERED:
                self._lags.popleft()
