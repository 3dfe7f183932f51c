"""An event loop whose clock is a number: waiting takes no time, threads are none, and everything happens in one order.

What runs "in a thread" runs at once, and its result comes after as many seconds as `delay` says.
"""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from typing import Any


class _NoSelector(selectors.SelectSelector):
    """Nothing ever comes from outside: to wait is to move the clock on."""

    def __init__(self, moved: Callable[[float], None]) -> None:
        super().__init__()
        self._moved = moved

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else: nothing is ready and no timer runs")
        if timeout > 0:
            self._moved(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, delay: Callable[[], float]) -> None:
        self._seconds = 0.0
        self._delay = delay
        self.uncaught: list[Mapping[str, Any]] = []
        super().__init__(_NoSelector(self._move))
        self.set_exception_handler(lambda _, context: self.uncaught.append(context))

    def time(self) -> float:
        return self._seconds

    def _move(self, seconds: float) -> None:
        # A little more: rounding must never leave a timer a hair away for ever.
        self._seconds += seconds + 1e-9

    def run_in_executor(  # type: ignore[override] # theirs says more of the arguments
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = self.create_future()
        settle: Callable[[Any], None] = done.set_result
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits for the result
            settle, result = done.set_exception, error
        self.call_later(self._delay(), lambda: None if done.done() else settle(result))
        return done

    def run_for(self, seconds: float) -> None:
        """Let so much time pass."""
        self.run_until_complete(asyncio.sleep(seconds))
