"""Rows made to a schema: cast column by column; a row that does not fit is an error, never a silent null."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t

from penstock_service.core.chunk import ChunkValue, RowError
from penstock_service.core.errors import DataError
from penstock_service.source.place import reason_of

Where = Callable[[int], str]
"""What a row (counted as stored) is called in errors: "a.parquet, row 17"."""


def row_name(path: str, first: int) -> Where:
    """Rows called by their number in the shard, for formats that have no lines."""
    return lambda row: f"{path}, row {first + row} (counted from 0)"


def conform(batch: pa.RecordBatch, schema: pa.Schema, where: Where) -> ChunkValue:
    """`batch` with the columns of `schema`, in its order and types; rows that do not fit are errors.

    A column that `batch` lacks is null: whether it may be absent was decided when the schemas were joined.
    """
    bad: dict[int, str] = {}
    columns: list[pa.Array | list[pa.Array]] = []
    for field in schema:
        if field.name not in batch.schema.names:
            columns.append(pa.nulls(batch.num_rows, field.type))
            continue
        column = batch.column(field.name)
        try:
            columns.append(cast_array(column, field.type))
        except pa.ArrowInvalid:
            columns.append(_cast_parts(column, field, 0, bad))
    if not bad:
        arrays = [_whole(c, f.type) for c, f in zip(columns, schema, strict=True)]
        return ChunkValue(batch.num_rows, _batch(arrays, schema, batch.num_rows))
    rows = sorted(bad)
    fine = [i for i in range(batch.num_rows) if i not in bad]
    kept = conform(batch.take(pa.array(fine, pa.int64())), schema, where).rows
    return ChunkValue(batch.num_rows, kept, tuple(RowError(row, where(row), bad[row]) for row in rows))


def _cast_parts(column: pa.Array, field: pa.Field, first: int, bad: dict[int, str]) -> list[pa.Array]:
    """Halve until the rows that do not cast stand alone; they are put into `bad`."""
    try:
        return [cast_array(column, field.type)]
    except pa.ArrowInvalid as error:
        if len(column) == 1:
            bad.setdefault(first, f"column {field.name!r} does not fit {field.type}: {reason_of(error)}")
            return []
    half = len(column) // 2
    return [
        *_cast_parts(column.slice(0, half), field, first, bad),
        *_cast_parts(column.slice(half), field, first + half, bad),
    ]


def cast_array(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """`array` as `kind`; raises ArrowInvalid where a value does not fit."""
    if array.type == kind:
        return array
    if t.is_null(array.type):
        return pa.nulls(len(array), kind)
    if t.is_run_end_encoded(array.type):
        return cast_array(pc.run_end_decode(array), kind)
    return array.cast(kind)


def _whole(column: pa.Array | list[pa.Array], kind: pa.DataType) -> pa.Array:
    if isinstance(column, list):
        return pa.concat_arrays(column) if column else pa.nulls(0, kind)
    return column


def _batch(arrays: list[pa.Array], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    if not arrays:  # a batch without columns still has a length
        return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def join_values(parts: list[ChunkValue], schema: pa.Schema) -> ChunkValue:
    """Consecutive values as one: one contiguous batch, the errors' rows counted from the first part's first."""
    if len(parts) == 1:
        return parts[0]
    errors: list[RowError] = []
    stored = 0
    for part in parts:
        errors.extend(RowError(e.row + stored, e.where, e.reason) for e in part.errors)
        stored += part.stored_rows
    return ChunkValue(stored, one_batch([p.rows for p in parts], schema), tuple(errors))


def one_batch(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """`batches` copied into one; an empty list is a batch of no rows."""
    if not batches:
        return _empty(schema)
    if len(batches) == 1:
        return batches[0]
    try:
        return pa.concat_batches(batches)
    except pa.ArrowInvalid as error:
        rows = sum(b.num_rows for b in batches)
        raise DataError(
            f"a chunk of {rows} rows is too big for one batch ({reason_of(error)}): register with fewer rows per chunk"
        ) from error


def _empty(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.nulls(0, f.type) for f in schema], schema=schema)
