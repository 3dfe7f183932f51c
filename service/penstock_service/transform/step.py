"""What a row transform must be able to do. One implementation per file; `chain.py` lists them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.core.chunk import TOLD, no_rows

I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Failed(NamedTuple):
    """One row that a transform could not do."""

    row: int  # of the batch it was given
    reason: str  # cut


class Done(NamedTuple):
    """What a transform made of a batch: rows, for those of its input that `kept` marks (None: all), in their order.

    Rows that `failed`, and `more` that did, are not kept.
    """

    rows: pa.RecordBatch
    kept: Mask | None = None
    failed: tuple[Failed, ...] = ()
    more: I64 = no_rows()  # of the batch it was given, ascending; they failed too, and nobody asks why


def by_halves(batch: pa.RecordBatch, apply: Callable[[pa.RecordBatch], Done]) -> Done:
    """What `apply` makes of the two halves of a batch of two rows or more."""
    middle = batch.num_rows // 2
    return joined([apply(batch.slice(0, middle)), apply(batch.slice(middle))], [middle, batch.num_rows - middle])


def joined(parts: Sequence[Done], sizes: Sequence[int]) -> Done:
    """What was made of consecutive batches of `sizes` rows, as one."""
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    kept = [np.ones(size, np.bool_) if d.kept is None else d.kept for d, size in zip(parts, sizes, strict=True)]
    failed = [Failed(at + f.row, f.reason) for d, at in zip(parts, starts, strict=True) for f in d.failed]
    untold = np.array([f.row for f in failed[TOLD:]], np.int64)
    more = np.sort(np.concatenate([untold, *(d.more + at for d, at in zip(parts, starts, strict=True))]))
    return Done(_whole([d.rows for d in parts]), np.concatenate(kept), tuple(failed[:TOLD]), more)


def _whole(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    filled = [batch for batch in batches if batch.num_rows]
    return pa.concat_batches(filled) if len(filled) > 1 else filled[0] if filled else batches[0]


class Step(Protocol):
    """One row transform. Frozen and picklable; depends on the rows it is given and nothing else."""

    @property
    def fingerprint(self) -> str:
        """Stands for all that decides what it makes: name, version of its meaning, arguments, source."""
        ...

    @property
    def may_drop(self) -> bool:
        """May rows be left out? Then the number of steps is not known beforehand."""
        ...

    @property
    def runs_python(self) -> bool:
        """Does it run Python code on rows? Then it belongs into a worker process."""
        ...

    def schema(self, before: pa.Schema) -> pa.Schema:
        """The schema it makes of another. Raises InvalidRequest where it cannot work on that."""
        ...

    def apply(self, batch: pa.RecordBatch) -> Done: ...
