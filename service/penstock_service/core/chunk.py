"""Words for data in motion: a chunk's value, and what is remembered of it.

A chunk's value is (rows, errors). An error that is a function of the bytes is part of the value, so that it replays by
itself; what to do about it is decided when a segment's index is built, not here.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
Bits = bytes

TOLD: Final = 256
"""Errors of a chunk that are kept with a text, the first ones; of more only which rows they are."""

REASON_LENGTH: Final = 500  # characters


class RowError(NamedTuple):
    """One stored row that did not become a row of the chunk."""

    row: int  # of the chunk (or slice), counted as stored
    where: str  # "file.jsonl, line 17"
    reason: str


def cut(reason: str) -> str:
    """`reason`, if need be without its end: it may hold a value of any size."""
    return reason if len(reason) <= REASON_LENGTH else f"{reason[: REASON_LENGTH - 3]}..."


def no_rows() -> I64:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ChunkValue:
    """What reading and row transforms make.

    `rows` holds the stored rows without those in `errors`, `more` and `dropped`, in stored order, as one batch.
    """

    stored_rows: int
    rows: pa.RecordBatch
    errors: tuple[RowError, ...] = ()
    dropped: I64 = field(default_factory=no_rows, compare=False)  # stored rows that a filter left out, ascending
    more: I64 = field(default_factory=no_rows, compare=False)  # stored rows that are errors too, without a text

    def __post_init__(self) -> None:
        errors = len(self.errors) + len(self.more)
        if self.rows.num_rows + errors + len(self.dropped) != self.stored_rows:
            raise ValueError(
                f"a chunk of {self.stored_rows} stored rows has {self.rows.num_rows} rows, {errors} errors "
                f"and {len(self.dropped)} rows left out"
            )

    def stored(self) -> I64:
        """The stored row that each row of the batch is, int64 [rows]."""
        present = np.ones(self.stored_rows, np.bool_)
        present[self.dropped] = False
        present[[error.row for error in self.errors]] = False
        present[self.more] = False
        return np.flatnonzero(present)


@dataclass(frozen=True)
class ChunkInfo:
    """What is remembered of a chunk after its bytes were evicted."""

    stored_rows: int
    errors: tuple[RowError, ...]  # those that are told
    bytes: int
    content: str  # hash of the chunk's bytes
    dropped: Bits = b""  # one bit for each stored row, set where a filter left it out; empty: none
    more: Bits = b""  # the same of errors that are not told

    @property
    def rows(self) -> int:
        return self.stored_rows - self.bad_rows - int.from_bytes(self.dropped, "big").bit_count()

    @property
    def bad_rows(self) -> int:
        """How many stored rows are errors."""
        return len(self.errors) + int.from_bytes(self.more, "big").bit_count()

    def dropped_rows(self) -> I64:
        """Stored rows that a filter left out, ascending, int64 [n]."""
        return _unpack_rows(self.dropped, self.stored_rows)

    def error_rows(self) -> I64:
        """Stored rows that are errors, ascending, int64 [n]."""
        told = np.fromiter((e.row for e in self.errors), np.int64, len(self.errors))
        return np.sort(np.concatenate([told, _unpack_rows(self.more, self.stored_rows)]))

    def error_of(self, row: int) -> RowError | None:
        """What is known of a stored row that is an error; None: it is none. One that is not told has no `where`."""
        told = next((error for error in self.errors if error.row == row), None)
        if told is not None or not self.more or not self.more[row >> 3] >> (7 - (row & 7)) & 1:
            return told
        last = f"; the last that is told is {self.errors[-1].where}: {self.errors[-1].reason}" if self.errors else ""
        return RowError(row, "", f"one of {self.bad_rows} bad rows of the chunk{last}")

    def absent_rows(self) -> I64:
        """Stored rows that the chunk's batch lacks, ascending, int64 [n]."""
        errors = self.error_rows()
        return np.sort(np.concatenate([errors, self.dropped_rows()])) if self.dropped else errors

    def present_rows(self) -> I64:
        """Stored rows that the chunk's batch has, ascending, int64 [rows]."""
        present = np.ones(self.stored_rows, np.bool_)
        present[self.absent_rows()] = False
        return np.flatnonzero(present)


def _unpack_rows(bits: Bits, stored_rows: int) -> I64:
    if not bits:
        return no_rows()
    return np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), count=stored_rows))


def pack_rows(rows: I64, stored_rows: int) -> Bits:
    """Stored rows as `ChunkInfo.dropped` has them."""
    if not len(rows):
        return b""
    bits = np.zeros(stored_rows, np.bool_)
    bits[rows] = True
    return np.packbits(bits).tobytes()
