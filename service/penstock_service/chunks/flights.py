"""Who waits for which chunk: one that several wait for is made once, and each is woken as soon as its own are there.

Lives on the event loop.
"""

import asyncio
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from penstock_service.chunks.keys import VersionKeys
from penstock_service.chunks.shelf import Entry
from penstock_service.core.errors import ServiceError


class Waiter:
    """One call that waits for several chunks. It collects them, pinned; whoever made the waiter lets them go."""

    def __init__(self, keys: Iterable[str], arrived: Callable[[Entry], None]) -> None:
        self.missing = set(keys)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrived = arrived

    def arrived(self, entry: Entry) -> None:
        self.missing.discard(entry.key)
        if self.done.done():
            return
        self._arrived(entry)
        if not self.missing:
            self.done.set_result(None)

    def cancel(self) -> None:
        """Nobody waits for this any more, nor for how it failed."""
        if not self.done.cancel() and not self.done.cancelled():
            self.done.exception()

    def failed(self, error: ServiceError) -> None:
        if not self.done.done():
            # A copy: one instance raised in several tasks would collect all their tracebacks.
            self.done.set_exception(copy.copy(error))


@dataclass(slots=True, eq=False)
class Flight:
    """A chunk on its way. `version` and `chunk` are those of the call that asked first."""

    version: VersionKeys
    chunk: int
    waiters: list[Waiter] = field(default_factory=list)


class Flights:
    """By key: two versions that share a chunk share its flight."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def join(self, version: VersionKeys, chunk: int, key: str, waiter: Waiter) -> bool:
        """Is this the first who waits for it, so that it must be demanded?"""
        flight = self._flights.get(key)
        if flight is None:
            self._flights[key] = Flight(version, chunk, [waiter])
            return True
        flight.waiters.append(waiter)
        return False

    def leave(self, waiter: Waiter) -> list[Flight]:
        """It waits no more. The flights that nobody waits for now; they are forgotten here."""
        empty = []
        for key in waiter.missing:
            flight = self._flights.get(key)
            if flight and waiter in flight.waiters:
                flight.waiters.remove(waiter)
                if not flight.waiters:
                    empty.append(self._flights.pop(key))
        return empty

    def landed(self, entry: Entry) -> None:
        flight = self._flights.pop(entry.key, None)
        for waiter in flight.waiters if flight else ():
            waiter.arrived(entry)

    def failed(self, keys: Iterable[str], error: ServiceError) -> None:
        for key in keys:
            flight = self._flights.pop(key, None)
            for waiter in flight.waiters if flight else ():
                waiter.failed(error)

    def fail_all(self, error: ServiceError) -> None:
        self.failed(list(self._flights), error)
