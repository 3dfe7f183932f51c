"""A stream of text bytes as blocks of complete rows.

Where rows end is a matter of syntax: each text format has a `cut` that finds row boundaries in a block of bytes with
array arithmetic. Here blocks are read, cut, and what is left of a row carried over to the next block.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.core.errors import DataError

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

BLOCK_BYTES = 8 << 20
MAX_ROW_BYTES = 64 << 20
LINE_END = 10


class Cut(NamedTuple):
    """Row boundaries in a block of bytes that begins at a row."""

    starts: I64  # first byte of each complete row, ascending; blank lines between rows belong to none
    end: int  # where the last complete row ends and the incomplete one begins


class BadSyntaxError(ValueError):
    """Bytes in which no rows can be told apart from here on."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position  # in the block


CutRows = Callable[[U8, bool], Cut]
"""cut(data, last): `last` when nothing follows `data`, which then ends with a line end. May rewrite `data` in place."""


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Complete rows as bytes. Row i is data[starts[i]:starts[i + 1]], the last one ends at `end`."""

    data: U8
    starts: I64
    end: int
    offset: int  # of data[0] in the (decompressed) stream
    line: int  # line ends before data[0]

    @property
    def num_rows(self) -> int:
        return len(self.starts)

    def slice(self, first: int, rows: int | None = None) -> "RowBlock":
        """`rows` rows (or all that there are) from row `first` on, over the same bytes."""
        end = len(self.starts) if rows is None else min(first + rows, len(self.starts))
        stop = self.end if end >= len(self.starts) else int(self.starts[end])
        return RowBlock(self.data, self.starts[first:end], stop, self.offset, self.line)

    def bytes(self) -> U8:
        """The bytes of all rows, from the first one's start."""
        return self.data[int(self.starts[0]) : self.end] if len(self.starts) else self.data[:0]

    def buffer(self) -> pa.Buffer:
        return pa.py_buffer(self.bytes())

    def lines_of(self, rows: Sequence[int]) -> list[int]:
        """The lines (counted from 1) on which rows begin."""
        line_ends = np.flatnonzero(self.data[: self.end] == LINE_END)
        before = np.searchsorted(line_ends, self.starts[np.asarray(rows, np.int64)])
        return [self.line + int(n) + 1 for n in before]

    def line_before(self, row: int) -> int:
        """Line ends before a row."""
        return self.line + int(np.count_nonzero(self.data[: int(self.starts[row])] == LINE_END))

    def lengths(self) -> I64:
        """Bytes of each row, with the blank lines behind it."""
        return np.diff(self.starts, append=self.end)


class ByteRange:
    """Part of an opened stream, read in order."""

    def __init__(self, stream: pa.NativeFile, length: int | None = None) -> None:
        self._stream = stream
        self._left = length

    def fill(self, into: memoryview) -> int:
        """Reads until `into` is full or the range ends; gives the number of bytes read."""
        want = len(into) if self._left is None else min(len(into), self._left)
        done = 0
        while done < want:
            got = self._stream.readinto(into[done:want])
            if not got:
                break
            done += got
        if self._left is not None:
            self._left -= done
        return done


def row_blocks(
    source: ByteRange,
    cut: CutRows,
    where: str,
    offset: int = 0,
    line: int = 0,
    block_bytes: int = BLOCK_BYTES,
    tap: Callable[[memoryview], None] | None = None,
) -> Iterator[RowBlock]:
    """Blocks of complete rows of about `block_bytes` each. Raises DataError for a row of more than MAX_ROW_BYTES."""
    rest: U8 = np.empty(0, np.uint8)
    want = block_bytes
    last = False
    while not last:
        data: U8 = np.empty(len(rest) + want + 1, np.uint8)  # one byte more: room for a missing line end
        data[: len(rest)] = rest
        fresh = data.data[len(rest) : -1]
        got = source.fill(fresh)
        last = got < want
        if tap is not None:
            tap(fresh[:got])
        size = len(rest) + got
        if last and size and data[size - 1] != LINE_END:
            data[size] = LINE_END
            size += 1
        data = data[:size]
        try:
            starts, end = cut(data, last)
        except BadSyntaxError as error:
            at = line + int(np.count_nonzero(data[: error.position] == LINE_END)) + 1
            raise DataError(f"{where}, line {at} (byte {offset + error.position}): {error}") from error
        if len(starts):
            yield RowBlock(data, starts, end, offset, line)
            want = block_bytes
        elif not last and size - end > MAX_ROW_BYTES:
            at = line + int(np.count_nonzero(data[:end] == LINE_END)) + 1
            raise DataError(
                f"{where}, line {at}: a row of more than {MAX_ROW_BYTES >> 20} MiB. Rows are limited to that: "
                "split it, or check for a missing line end or a quote that is never closed."
            )
        else:
            want = max(want, size - end)  # a long row: read twice as much, so that it is looked at a few times only
        offset += end
        line += int(np.count_nonzero(data[:end] == LINE_END))
        rest = data[end:]
