"""One schema for all shards: types brought to a plain form, and joined where that loses nothing.

The join is the declared widening: null to anything, integers to a wider integer or to double, float to double, coarse
times to fine ones, decimals to wider ones. Everything else (a string where an integer was) is a conflict.
"""

from typing import NamedTuple

import pyarrow as pa
import pyarrow.types as t

from penstock_proto.v1.marks import kept


class ConflictError(Exception):
    """Two types of one column that nothing joins."""

    def __init__(self, column: str, expected: str, found: str) -> None:
        super().__init__(f"column {column!r}: {expected} expected, {found} found")
        self.column, self.expected, self.found = column, expected, found


class Widened(NamedTuple):
    """A column whose type had to give way."""

    column: str
    before: pa.DataType
    after: pa.DataType


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The form shards agree on: dictionaries decoded, large and view types in their usual width, all nullable."""
    if t.is_dictionary(kind) or t.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if t.is_large_string(kind) or t.is_string_view(kind):
        return pa.string()
    if t.is_large_binary(kind) or t.is_binary_view(kind):
        return pa.binary()
    if t.is_fixed_size_list(kind):
        return pa.list_(plain_type(kind.value_type), kind.list_size)
    if t.is_list(kind) or t.is_large_list(kind) or t.is_list_view(kind) or t.is_large_list_view(kind):
        return pa.list_(plain_type(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([pa.field(f.name, plain_type(f.type), metadata=kept(f.metadata)) for f in kind])
    if t.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    return kind


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """`schema` in plain types, without metadata (pandas, Parquet field ids) in which equal shards may differ.

    What is kept are our own marks on fields, which say what a column means.
    """
    return pa.schema([pa.field(f.name, plain_type(f.type), metadata=kept(f.metadata)) for f in schema])


def fixed_row_bytes(schema: pa.Schema) -> float | None:
    """Bytes of a row where every column has a fixed width, validity aside; None where one has not."""
    total = 0.0
    for kind in schema.types:
        try:
            total += kind.bit_width / 8
        except ValueError:
            return None
    return total


def twice_named(names: list[str]) -> str | None:
    """The first name that comes twice, if any does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def join_schemas(a: pa.Schema, b: pa.Schema, a_optional: bool, b_optional: bool) -> tuple[pa.Schema, list[Widened]]:
    """The schema that holds rows of both. Raises ConflictError, also for a column that one side lacks and may not.

    Columns keep the order of `a`; what only `b` has follows.
    """
    widened: list[Widened] = []
    fields = []
    for mine in a:
        if mine.name not in b.names:
            if not b_optional:
                raise ConflictError(mine.name, str(mine.type), "no such column")
            fields.append(mine)
            continue
        kind = join_types(mine.type, b.field(mine.name).type, mine.name, a_optional and b_optional)
        if kind != mine.type and not t.is_null(mine.type) and not _only_more_fields(mine.type, kind):
            widened.append(Widened(mine.name, mine.type, kind))
        marks = [kept(mine.metadata), kept(b.field(mine.name).metadata)]
        if marks[0] != marks[1]:
            raise ConflictError(mine.name, *(f"{kind} marked {mark or 'as nothing'}" for mark in marks))
        fields.append(pa.field(mine.name, kind, metadata=marks[0]))
    for theirs in b:
        if theirs.name not in a.names:
            if not a_optional:
                raise ConflictError(theirs.name, "no such column", str(theirs.type))
            fields.append(theirs)
    return pa.schema(fields), widened


def _only_more_fields(before: pa.DataType, after: pa.DataType) -> bool:
    """Did a nested type only gain fields, or types for what was null? Then no value changes."""
    if t.is_null(before) or before == after:
        return True
    if t.is_struct(before) and t.is_struct(after):
        return all(_only_more_fields(f.type, after.field(f.name).type) for f in before)
    if t.is_list(before) and t.is_list(after):
        return _only_more_fields(before.value_type, after.value_type)
    return False


def join_types(a: pa.DataType, b: pa.DataType, column: str, optional_fields: bool) -> pa.DataType:
    """The narrowest type that holds values of both. Raises ConflictError that names the (nested) column."""
    if a == b or t.is_null(b):
        return a
    if t.is_null(a):
        return b
    if t.is_struct(a) and t.is_struct(b):
        return _join_structs(a, b, column, optional_fields)
    if t.is_list(a) and t.is_list(b):
        return pa.list_(join_types(a.value_type, b.value_type, f"{column}[]", optional_fields))
    if t.is_fixed_size_list(a) and t.is_fixed_size_list(b) and a.list_size == b.list_size:
        return pa.list_(join_types(a.value_type, b.value_type, f"{column}[]", optional_fields), a.list_size)
    if t.is_map(a) and t.is_map(b) and a.key_type == b.key_type:
        return pa.map_(a.key_type, join_types(a.item_type, b.item_type, f"{column}[]", optional_fields))
    joined = _join_numbers(a, b) or _join_times(a, b) or _join_decimals(a, b)
    if joined is None:
        raise ConflictError(column, str(a), str(b))
    return joined


def _join_structs(a: pa.StructType, b: pa.StructType, column: str, optional: bool) -> pa.DataType:
    theirs = {f.name: f.type for f in b}
    fields = []
    for f in a:
        if f.name in theirs:
            fields.append(pa.field(f.name, join_types(f.type, theirs.pop(f.name), f"{column}.{f.name}", optional)))
        elif optional:
            fields.append(f)
        else:
            raise ConflictError(f"{column}.{f.name}", str(f.type), "no such field")
    for name, kind in theirs.items():
        if not optional:
            raise ConflictError(f"{column}.{name}", "no such field", str(kind))
        fields.append(pa.field(name, kind))
    return pa.struct(fields)


def _join_numbers(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if t.is_integer(a) and t.is_integer(b):
        if t.is_signed_integer(a) == t.is_signed_integer(b):
            return max(a, b, key=lambda kind: int(kind.bit_width))
        signed, unsigned = (a, b) if t.is_signed_integer(a) else (b, a)
        width = max(signed.bit_width, 2 * unsigned.bit_width)
        return {16: pa.int16(), 32: pa.int32(), 64: pa.int64()}.get(width)  # uint64 with a signed one: a conflict
    if t.is_floating(a) and t.is_floating(b):
        return max(a, b, key=lambda kind: int(kind.bit_width))
    if (t.is_integer(a) and t.is_floating(b)) or (t.is_floating(a) and t.is_integer(b)):
        return pa.float64()
    return None


_UNITS = ("s", "ms", "us", "ns")


def _join_times(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if t.is_timestamp(a) and t.is_timestamp(b) and a.tz == b.tz:
        return pa.timestamp(max(a.unit, b.unit, key=_UNITS.index), a.tz)
    if t.is_duration(a) and t.is_duration(b):
        return pa.duration(max(a.unit, b.unit, key=_UNITS.index))
    if t.is_time(a) and t.is_time(b):
        return max(a, b, key=lambda kind: _UNITS.index(kind.unit))
    if t.is_date(a) and t.is_date(b):
        return pa.date64()
    return None


def _join_decimals(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    if not (t.is_decimal(a) and t.is_decimal(b)):
        return None
    scale = max(a.scale, b.scale)
    digits = max(a.precision - a.scale, b.precision - b.scale) + scale
    if digits <= 38:
        return pa.decimal128(digits, scale)
    return pa.decimal256(digits, scale) if digits <= 76 else None
