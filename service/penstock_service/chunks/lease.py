"""Chunks lent to whoever gathers from them."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import pyarrow as pa

from penstock_service.chunks.keys import Owner
from penstock_service.chunks.rack import Rack
from penstock_service.chunks.shelf import Entry


class Lease:
    """`batches` holds the rows of each chunk, mapped without a copy. Until `release` none of them is evicted.

    Use it with `with` or `async with`; `release` may be called twice and from any thread. What still refers to the
    rows afterwards stays readable, but is no longer counted.
    """

    __slots__ = ("_entries", "_owner", "_rack", "batches")

    def __init__(self, rack: Rack, owner: Owner, entries: list[Entry], batches: dict[int, pa.RecordBatch]) -> None:
        self.batches = batches
        self._rack = rack
        self._owner = owner
        self._entries: list[Entry] | None = entries

    def release(self) -> None:
        entries, self._entries = self._entries, None
        if entries is not None:
            self.batches = {}
            self._rack.give_back(self._owner, entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.release()


class Hold:
    """A dataset version in use: nothing of it goes to make room for another. To be released like a lease."""

    __slots__ = ("_let_go",)

    def __init__(self, let_go: Callable[[], None]) -> None:
        self._let_go: Callable[[], None] | None = let_go

    def release(self) -> None:
        let_go, self._let_go = self._let_go, None
        if let_go is not None:
            let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
