"""An object as a file: what will be needed is fetched ahead, several ranges at once; the rest when it is asked for."""

import io
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from penstock_service.source.objects.parts import Plan

BLOCK_BYTES = 64 << 10  # least that is asked for: footers and headers are read in small steps
_BLOCKS = 4

Fetch = Callable[[int, int, threading.Event], bytes]
"""fetch(offset, length, stop): exactly these bytes; when `stop` is set it tries no more. Called by many threads."""


class RangeReader:
    """What `pyarrow.PythonFile` wants of a file. Used by one thread at a time; `close` leaves no thread behind.

    At most `ahead` parts are on their way or here and not yet begun; those begun are kept until they are read to their
    end.
    """

    def __init__(self, fetch: Fetch, size: int, plan: Plan, ahead: int) -> None:
        self._fetch = fetch
        self._size = size
        self._parts = plan.by_offset
        self._offsets = [part.offset for part in plan.by_offset]
        self._queue = deque(plan.in_turn)
        self._ahead = ahead
        self._held: dict[int, Future[bytes]] = {}
        self._fresh: set[int] = set()  # of those held: nothing has been read of them
        self._left = [part.needed for part in plan.by_offset]
        self._blocks: OrderedDict[int, bytes] = OrderedDict()  # by offset
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(ahead, thread_name_prefix="ranges") if self._parts else None
        self._at = 0
        self.closed = False
        self._go_ahead()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, length: int | None = None) -> bytes | memoryview:
        left = max(self._size - self._at, 0)
        left = left if length is None or length < 0 else min(left, length)
        pieces = []
        while left > 0:
            piece = self._piece(self._at, left)
            pieces.append(piece)
            self._at += len(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """May be called twice. Waits for the requests that are on their way."""
        self.closed = True
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._held.clear()
        self._blocks.clear()

    def _piece(self, offset: int, length: int) -> memoryview:
        """At least one byte from `offset` on, at most `length`."""
        i = bisect_right(self._offsets, offset) - 1
        if i >= 0 and offset < self._parts[i].end and self._left[i] > 0:
            return self._of_part(i, offset, length)
        if i + 1 < len(self._parts):
            length = min(length, self._offsets[i + 1] - offset)
        return self._unexpected(offset, length)

    def _of_part(self, i: int, offset: int, length: int) -> memoryview:
        if i not in self._held:
            self._ask(i)
        part = self._parts[i]
        data = self._held[i].result()
        self._fresh.discard(i)
        self._go_ahead()
        piece = memoryview(data)[offset - part.offset :][:length]
        self._left[i] -= len(piece)
        if self._left[i] <= 0:
            del self._held[i]
        return piece

    def _go_ahead(self) -> None:
        while self._queue and len(self._fresh) < self._ahead:
            i = self._queue.popleft()
            if i not in self._held and self._left[i] == self._parts[i].needed:
                self._ask(i)

    def _ask(self, i: int) -> None:
        assert self._pool is not None  # noqa: S101  there are parts
        part = self._parts[i]
        self._held[i] = self._pool.submit(self._fetch, part.offset, part.length, self._stop)
        self._fresh.add(i)

    def _unexpected(self, offset: int, length: int) -> memoryview:
        for start, block in self._blocks.items():
            if start <= offset < start + len(block):
                self._blocks.move_to_end(start)
                return memoryview(block)[offset - start :][:length]
        start = min(offset, max(self._size - BLOCK_BYTES, 0))
        end = min(max(offset + length, start + BLOCK_BYTES), self._size)
        data = self._fetch(start, end - start, self._stop)
        if len(data) <= BLOCK_BYTES:
            self._blocks[start] = data
            while len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        return memoryview(data)[offset - start :][:length]
