"""`select` and `cast`: which columns there are, what they are called, and of what type."""

import json
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock_service.core.chunk import TOLD, cut
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.hashing import short_hash
from penstock_service.transform.step import Done, Failed, Mask
from penstock_service.transform.types import type_named


@dataclass(frozen=True)
class Select:
    """Keeps the columns named, in that order; a pair (new, old) renames."""

    columns: tuple[tuple[str, str], ...]
    may_drop: ClassVar[bool] = False
    runs_python: ClassVar[bool] = False
    semantics: ClassVar[int] = 1

    @property
    def fingerprint(self) -> str:
        return short_hash("select", str(self.semantics), json.dumps(self.columns))

    def schema(self, before: pa.Schema) -> pa.Schema:
        for _, old in self.columns:
            if old not in before.names:
                raise InvalidRequest(f"select: no column {old!r}; the columns are {before.names}")
        names = [new for new, _ in self.columns]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise InvalidRequest(f"select: {twice[0]!r} would be there {names.count(twice[0])} times")
        return pa.schema([before.field(old).with_name(new) for new, old in self.columns])

    def apply(self, batch: pa.RecordBatch) -> Done:
        schema = self.schema(batch.schema)
        return Done(pa.RecordBatch.from_arrays([batch.column(old) for _, old in self.columns], schema=schema))


@dataclass(frozen=True)
class Cast:
    """Gives columns other types. A value that does not fit fails its row; nothing is rounded or cut in silence."""

    types: tuple[tuple[str, str], ...]  # column, name of its type
    may_drop: ClassVar[bool] = False
    runs_python: ClassVar[bool] = False
    semantics: ClassVar[int] = 1

    @property
    def fingerprint(self) -> str:
        return short_hash("cast", str(self.semantics), json.dumps(self.types))

    def schema(self, before: pa.Schema) -> pa.Schema:
        after = before
        for name, kind in self.types:
            if name not in before.names:
                raise InvalidRequest(f"cast: no column {name!r}; the columns are {before.names}")
            field, wanted = before.field(name), type_named(kind)
            try:
                pa.nulls(0, field.type).cast(wanted)
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
                raise InvalidRequest(f"cast: column {name!r} is {field.type}, which cannot become {kind}") from error
            after = after.set(after.get_field_index(name), field.with_type(wanted))
        return after

    def apply(self, batch: pa.RecordBatch) -> Done:
        after = self.schema(batch.schema)
        try:
            return Done(self._cast(batch, after))
        except pa.ArrowInvalid:
            return self._without_bad(batch, after)

    def _cast(self, batch: pa.RecordBatch, after: pa.Schema) -> pa.RecordBatch:
        columns = [column.cast(field.type) for column, field in zip(batch.columns, after, strict=True)]
        return pa.RecordBatch.from_arrays(columns, schema=after)

    def _without_bad(self, batch: pa.RecordBatch, after: pa.Schema) -> Done:
        """Only where some row does not fit: find which."""
        kept = np.ones(batch.num_rows, np.bool_)
        reasons: dict[int, str] = {}
        for column, field in zip(batch.columns, after, strict=True):
            if column.type != field.type:
                for row, reason in _bad_values(column, field.type, kept).items():
                    reasons.setdefault(row, reason)  # the first column that fails says why
        failed = tuple(Failed(row, reasons[row]) for row in sorted(reasons))
        untold = ~kept
        untold[list(reasons)] = False
        return Done(self._cast(batch.filter(pa.array(kept)), after), kept, failed, np.flatnonzero(untold))


def _bad_values(column: pa.Array, kind: pa.DataType, kept: Mask) -> dict[int, str]:
    """Marks in `kept` [rows] which values do not cast; gives the reasons of the first of them, by row."""
    sure = _surely_bad(column, kind)
    told = _Bad([], [])
    for row in np.flatnonzero(sure)[:TOLD].tolist():
        _find_bad(column.slice(row, 1), kind, row, told)
    bad, others = _Bad([], []), np.flatnonzero(~sure)
    _find_bad(column.filter(pa.array(~sure)) if sure.any() else column, kind, 0, bad)
    found = others[bad.rows]
    kept[sure] = kept[found] = False
    return dict(zip(told.rows, told.reasons, strict=True)) | dict(zip(found.tolist(), bad.reasons, strict=False))


def _surely_bad(column: pa.Array, kind: pa.DataType) -> Mask:
    """Numbers that no safe cast makes whole numbers of that range, at once; others may be bad as well."""
    given, t = column.type, pa.types
    if t.is_integer(kind) and (t.is_float32(given) or t.is_float64(given)):
        wrong = pc.not_equal(pc.trunc(column), column)
    elif t.is_integer(kind) and t.is_integer(given):
        (least, most), (low, high) = _range(kind), _range(given)
        below = pc.less(column, pa.scalar(max(least, low), given))
        wrong = pc.or_(below, pc.greater(column, pa.scalar(min(most, high), given)))
    else:
        return np.zeros(len(column), np.bool_)
    return np.asarray(wrong.fill_null(False).to_numpy(zero_copy_only=False), np.bool_)


def _range(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_signed_integer(kind):
        return -(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1
    return 0, 2**kind.bit_width - 1


class _Bad(NamedTuple):
    rows: list[int]  # ascending
    reasons: list[str]  # of the first of them


def _find_bad(column: pa.Array, kind: pa.DataType, first: int, bad: _Bad) -> None:
    """Halve until the values that do not cast stand alone; `first` is the row of the first value."""
    try:
        column.cast(kind)
    except pa.ArrowInvalid as error:
        if len(column) > 1:
            half = len(column) // 2
            _find_bad(column.slice(0, half), kind, first, bad)
            _find_bad(column.slice(half), kind, first + half, bad)
            return
        bad.rows.append(first)
        if len(bad.reasons) < TOLD:
            bad.reasons.append(cut(f"cast: {str(error).splitlines()[0]}"))
