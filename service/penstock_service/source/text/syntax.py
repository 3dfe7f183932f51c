"""What a text format must be able to do, and how rows that do not parse are found."""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

import pyarrow as pa

from penstock_service.source.place import reason_of
from penstock_service.source.schemas import Widened
from penstock_service.source.text.blocks import U8, Cut, RowBlock


class Head(NamedTuple):
    """What stands before the first row of a file."""

    length: int  # bytes of the (decompressed) stream
    lines: int
    columns: tuple[str, ...] = ()  # a CSV header
    array: bool = False  # a JSON document that is one array


class Inferred(NamedTuple):
    """What a block's rows are like."""

    num_rows: int
    schema: pa.Schema
    nbytes: int  # when parsed


class Syntax(Protocol):
    """One text format. All of it works on blocks of bytes that begin at a row."""

    @property
    def semantics(self) -> int: ...

    @property
    def optional_columns(self) -> bool: ...

    @property
    def by_line(self) -> bool:
        """Are rows called by their line? Otherwise by their number."""
        ...

    def head(self, data: U8, last: bool) -> Head | None:
        """What precedes the rows, from the first bytes of a file; None if more of them are needed.

        Raises BadSyntaxError.
        """
        ...

    def cut(self, data: U8, last: bool, head: Head, whole: bool) -> Cut:
        """Row boundaries. `whole`: the end of `data` is the end of the file if `last`. Raises BadSyntaxError."""
        ...

    def infer(self, block: RowBlock, head: Head) -> "Inferred":
        """Types that fit all rows. Raises ArrowInvalid if one does not parse, or two disagree."""
        ...

    def parse(self, block: RowBlock, head: Head, schema: pa.Schema) -> pa.RecordBatch:
        """All rows, in the types of `schema`. Raises ArrowInvalid or ValueError if one does not fit."""
        ...

    def join(self, a: pa.Schema, b: pa.Schema) -> tuple[pa.Schema, list[Widened]]:
        """The schema that holds rows of two blocks of one file. Raises ConflictError."""
        ...


class Counted(Protocol):
    @property
    def num_rows(self) -> int: ...


T = TypeVar("T", bound=Counted)


class Part(NamedTuple, Generic[T]):
    """Rows of a block that parsed together."""

    first: int
    rows: int
    value: T


class BadRow(NamedTuple):
    row: int  # of the block
    reason: str


def isolate(block: RowBlock, attempt: Callable[[RowBlock], T]) -> tuple[list[Part[T]], list[BadRow]]:
    """All rows of `block` that `attempt` can do, and those that it cannot do even alone.

    In the normal case one call; each bad row costs about twice the work of its block.
    """
    parts: list[Part[T]] = []
    bad: list[BadRow] = []
    todo = [(0, block.num_rows)]
    while todo:
        first, end = todo.pop()
        try:
            part = block.slice(first, end - first)
            value = attempt(part)
            _check_count(value, end - first)
        except (pa.ArrowInvalid, ValueError) as error:
            if end - first == 1:
                bad.append(BadRow(first, plain_reason(error)))
            else:
                half = (first + end) // 2
                todo.extend([(half, end), (first, half)])
        else:
            parts.append(Part(first, end - first, value))
    return parts, bad


def _check_count(value: Counted, rows: int) -> None:
    """What parses to more or fewer rows than were cut is wrong somewhere: rows would be shifted."""
    if value.num_rows != rows:
        raise pa.ArrowInvalid(f"{value.num_rows} rows found where {rows} should be")


def plain_reason(error: Exception) -> str:
    """Arrow's reason without the row it counted within our block."""
    text = reason_of(error).replace("JSON parse error: ", "").replace("CSV parse error: ", "")
    text = text.removesuffix(" in row 0").replace("Row #1: ", "").replace("Row #2: ", "")
    return text.removesuffix(": ").strip()
