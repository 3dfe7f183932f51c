"""`filter`: keeps the rows that a condition holds for."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from penstock_service.core.chunk import cut
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.hashing import short_hash
from penstock_service.transform.expression import Expression
from penstock_service.transform.step import Done, Failed, by_halves


@dataclass(frozen=True)
class Filter:
    """Rows for which `condition` is false or unknown are left out; one that it cannot be computed for fails. Neither
    moves another row."""

    condition: str
    may_drop: ClassVar[bool] = True
    runs_python: ClassVar[bool] = False
    semantics: ClassVar[int] = 1

    def __post_init__(self) -> None:
        Expression(self.condition)

    @cached_property
    def _expression(self) -> Expression:
        return Expression(self.condition)

    @property
    def fingerprint(self) -> str:
        return short_hash("filter", str(self.semantics), self.condition)

    def schema(self, before: pa.Schema) -> pa.Schema:
        missing = sorted(self._expression.columns - set(before.names))
        if missing:
            raise InvalidRequest(f"filter {self.condition!r}: no column {missing[0]!r}; the columns are {before.names}")
        self._expression.mask(pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in before], schema=before))
        return before

    def apply(self, batch: pa.RecordBatch) -> Done:
        try:
            mask = self._expression.mask(batch)
        except pa.ArrowInvalid as error:
            if batch.num_rows > 1:
                return by_halves(batch, self.apply)
            reason = cut(f"filter {self.condition!r}: {str(error).splitlines()[0]}")
            return Done(batch.slice(0, 0), np.zeros(1, np.bool_), (Failed(0, reason),))
        kept = np.asarray(mask.to_numpy(zero_copy_only=False), np.bool_)
        return Done(batch if kept.all() else batch.filter(mask), kept)
