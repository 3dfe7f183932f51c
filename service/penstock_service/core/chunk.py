"""Words for data in motion: a chunk's value, and what is remembered of it.

A chunk's value is (rows, errors). An error that is a function of the bytes is part of the value, so that it replays by
itself; what to do about it is decided when a segment's index is built, not here.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]
Bits = bytes


class RowError(NamedTuple):
    """One stored row that did not become a row of the chunk."""

    row: int  # of the chunk (or slice), counted as stored
    where: str  # "file.jsonl, line 17"
    reason: str


def no_rows() -> I64:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class ChunkValue:
    """What reading and row transforms make.

    `rows` holds the stored rows without those in `errors` and `dropped`, in stored order, as one batch.
    """

    stored_rows: int
    rows: pa.RecordBatch
    errors: tuple[RowError, ...] = ()
    dropped: I64 = field(default_factory=no_rows, compare=False)  # stored rows that a filter left out, ascending

    def __post_init__(self) -> None:
        if self.rows.num_rows + len(self.errors) + len(self.dropped) != self.stored_rows:
            raise ValueError(
                f"a chunk of {self.stored_rows} stored rows has {self.rows.num_rows} rows, {len(self.errors)} errors "
                f"and {len(self.dropped)} rows left out"
            )

    def stored(self) -> I64:
        """The stored row that each row of the batch is, int64 [rows]."""
        present = np.ones(self.stored_rows, np.bool_)
        present[self.dropped] = False
        present[[error.row for error in self.errors]] = False
        return np.flatnonzero(present)


@dataclass(frozen=True)
class ChunkInfo:
    """What is remembered of a chunk after its bytes were evicted."""

    stored_rows: int
    errors: tuple[RowError, ...]
    bytes: int
    content: str  # hash of the chunk's bytes
    dropped: Bits = b""  # one bit for each stored row, set where a filter left it out; empty: none

    @property
    def rows(self) -> int:
        return self.stored_rows - len(self.errors) - int.from_bytes(self.dropped, "big").bit_count()

    def dropped_rows(self) -> I64:
        """Stored rows that a filter left out, ascending, int64 [n]."""
        if not self.dropped:
            return no_rows()
        return np.flatnonzero(np.unpackbits(np.frombuffer(self.dropped, np.uint8), count=self.stored_rows))

    def error_rows(self) -> I64:
        """Stored rows that are errors, ascending, int64 [n]."""
        return np.sort(np.fromiter((e.row for e in self.errors), np.int64, len(self.errors)))

    def absent_rows(self) -> I64:
        """Stored rows that the chunk's batch lacks, ascending, int64 [n]."""
        errors = self.error_rows()
        return np.sort(np.concatenate([errors, self.dropped_rows()])) if self.dropped else errors

    def present_rows(self) -> I64:
        """Stored rows that the chunk's batch has, ascending, int64 [rows]."""
        present = np.ones(self.stored_rows, np.bool_)
        present[self.absent_rows()] = False
        return np.flatnonzero(present)


def pack_rows(rows: I64, stored_rows: int) -> Bits:
    """Stored rows as `ChunkInfo.dropped` has them."""
    if not len(rows):
        return b""
    bits = np.zeros(stored_rows, np.bool_)
    bits[rows] = True
    return np.packbits(bits).tobytes()
