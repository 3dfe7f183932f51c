"""What a row transform must be able to do. One implementation per file; `chain.py` lists them."""

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Mask = npt.NDArray[np.bool_]


class Failed(NamedTuple):
    """One row that a transform could not do."""

    row: int  # of the batch it was given
    reason: str


class Done(NamedTuple):
    """What a transform made of a batch: rows, for those of its input that `kept` marks (None: all), in their order.

    Rows that `failed` are not kept.
    """

    rows: pa.RecordBatch
    kept: Mask | None = None
    failed: tuple[Failed, ...] = ()


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
