"""Which columns of a stream are delivered."""

from collections.abc import Sequence

import pyarrow as pa

from penstock_service.core.errors import InvalidRequest


def delivered(schema: pa.Schema, columns: Sequence[str], text: bool) -> pa.Schema:
    """The schema of the batches: `columns` in the order named; without any, all, strings and binaries only if `text`.

    Raises:
        InvalidRequest: a column that is not there, one named twice, or nothing left to deliver.
    """
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise InvalidRequest(f"no column {missing[0]!r}; the columns are {schema.names}")
    twice = sorted({name for name in columns if list(columns).count(name) > 1})
    if twice:
        raise InvalidRequest(f"column {twice[0]!r} is named {list(columns).count(twice[0])} times; name it once")
    names = list(columns) or [f.name for f in schema if text or not _is_text(f.type)]
    if not names:
        raise InvalidRequest(
            f"every column is a string or binary ({schema.names}) and those come only when named: "
            f"say columns={schema.names[:3]}"
        )
    return pa.schema([schema.field(name) for name in names])


def _is_text(kind: pa.DataType) -> bool:
    """Strings and binaries, alone or within lists and structs: no tensor can be made of them."""
    if pa.types.is_struct(kind):
        return all(_is_text(f.type) for f in kind)
    if pa.types.is_map(kind):
        return True
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_null(kind)
    )
