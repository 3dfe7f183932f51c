"""Words for data in motion: a chunk's value, and what is remembered of it.

A chunk's value is (rows, errors). An error that is a function of the bytes is part of the value, so that it replays by
itself; what to do about it is decided when a segment's index is built, not here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

I64 = npt.NDArray[np.int64]


class RowError(NamedTuple):
    """One stored row that did not become a row of the chunk."""

    row: int  # of the chunk (or slice), counted as stored
    where: str  # "file.jsonl, line 17"
    reason: str


@dataclass(frozen=True)
class ChunkValue:
    """What reading makes. `rows` holds the stored rows without those in `errors`, in stored order, as one batch."""

    stored_rows: int
    rows: pa.RecordBatch
    errors: tuple[RowError, ...] = ()

    def __post_init__(self) -> None:
        if self.rows.num_rows + len(self.errors) != self.stored_rows:
            raise ValueError(
                f"a chunk of {self.stored_rows} stored rows has {self.rows.num_rows} rows and {len(self.errors)} errors"
            )


@dataclass(frozen=True)
class ChunkInfo:
    """What is remembered of a chunk after its bytes were evicted."""

    stored_rows: int
    errors: tuple[RowError, ...]
    bytes: int
    content: str  # hash of the chunk's bytes

    @property
    def rows(self) -> int:
        return self.stored_rows - len(self.errors)

    def error_rows(self) -> I64:
        """Stored rows that are errors, ascending, int64 [errors]."""
        return np.array(sorted(e.row for e in self.errors), np.int64)
