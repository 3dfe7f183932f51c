"""Which segments are remembered for sessions that come a little later."""

import asyncio
from collections import OrderedDict
from itertools import islice
from typing import Final

from penstock_service.core.segment import Segment

Key = tuple[int, int]
"""Epoch and number of a segment."""

LATEST: Final = 4  # segments that are remembered,
_SMALL: Final = 64  # or so many,
_SMALL_BYTES: Final = 16 << 20  # where they are small: jobs that share a stream are many of those apart


class Recent:
    """Tasks that make segments; the one asked for last comes last. Belongs to the event loop.

    What a segment takes is known from `made`, so that nothing is summed up where one more is begun.
    """

    def __init__(self) -> None:
        self._tasks: OrderedDict[Key, asyncio.Task[Segment]] = OrderedDict()
        self._sizes: dict[Key, int] = {}  # of those that are made
        self._lost: set[Key] = set()  # those of them that lack something
        self._bytes = 0

    def get(self, key: Key) -> "asyncio.Task[Segment] | None":
        return self._tasks.get(key)

    def put(self, key: Key, task: "asyncio.Task[Segment]") -> None:
        """Asked for now."""
        self._tasks[key] = task
        self._tasks.move_to_end(key)

    def made(self, key: Key, segment: Segment) -> None:
        """Its task has ended well."""
        if key in self._tasks:
            self._sizes[key] = segment.own_bytes
            self._bytes += segment.own_bytes
            if segment.lost:
                self._lost.add(key)

    def drop(self, key: Key) -> None:
        """Whoever holds it keeps it. May be called for one that is not here."""
        self._tasks.pop(key, None)
        self._bytes -= self._sizes.pop(key, 0)
        self._lost.discard(key)

    def drop_made(self) -> None:
        for key in list(self._sizes):
            self.drop(key)

    def trim(self, latest: int = LATEST, small: bool = True) -> None:
        """Forget segments beyond the `latest`, but for `small` ones as long as they are few."""
        for key in list(islice(self._tasks, max(0, len(self._tasks) - latest))):
            many = len(self._tasks) > _SMALL or self._bytes > _SMALL_BYTES
            if key in self._sizes and (many or not small or key in self._lost):
                self.drop(key)

    def unmade(self) -> "list[asyncio.Task[Segment]]":
        return [task for task in self._tasks.values() if not task.done()]

    @property
    def nbytes(self) -> int:
        """Bytes of those that are made, with what policies made of them."""
        return sum(self._tasks[key].result().nbytes for key in self._sizes)
