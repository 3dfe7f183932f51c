"""A stream of batches (or of blocks of bytes) read as rows: skip to one, take so many."""

from collections.abc import Iterator
from typing import Generic, Protocol, Self, TypeVar

from penstock_service.core.errors import DataError


class Sliceable(Protocol):
    """What has rows and can be cut by rows without a copy: RecordBatch, RowBlock."""

    @property
    def num_rows(self) -> int: ...

    def slice(self, first: int, rows: int | None = None, /) -> Self: ...


T = TypeVar("T", bound=Sliceable)


class RowStream(Generic[T]):
    """The rows of one read unit, in order, each batch decoded once. Takes never copy: they are slices of batches."""

    def __init__(self, batches: Iterator[T], where: str) -> None:
        self._batches = batches
        self._where = where
        self._held: T | None = None
        self.at = 0  # row of the unit that comes next

    def skip_to(self, row: int) -> None:
        for _ in self.take(row - self.at):
            pass

    def take(self, rows: int) -> Iterator[T]:
        """The next `rows` rows as slices of batches. Raises DataError where the unit ends before."""
        left = rows
        while left > 0:
            batch = self._held if self._held is not None else next(self._batches, None)
            self._held = None
            if batch is None:
                raise DataError(
                    f"{self._where} ends after {self.at} rows, {left} more were there when it was registered"
                )
            part = batch.slice(0, left)
            if batch.num_rows > left:
                self._held = batch.slice(left)
            left -= part.num_rows
            self.at += part.num_rows
            if part.num_rows:
                yield part
