"""The row that stands for bad ones where a client declares it: every delivered column, checked against the schema."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from penstock_proto.v1.marks import DTYPE
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.nearest import did_you_mean


def parse_placeholder(text: str, schema: pa.Schema) -> pa.RecordBatch | None:
    """One row of `schema` from a JSON object with a value for each column; None where there is none.

    Raises InvalidRequest that names the column, what is wrong and what would do.
    """
    if not text:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"the placeholder is no JSON: {error}") from None
    if not isinstance(values, Mapping):
        raise InvalidRequest(f"the placeholder must be an object with a value for each of {schema.names}")
    unknown = [name for name in values if name not in schema.names]
    if unknown:
        raise InvalidRequest(
            f"the placeholder names {unknown[0]!r}, which is no column that is delivered; those are {schema.names}"
            f"{did_you_mean(unknown[0], schema.names)}"
        )
    missing = [name for name in schema.names if name not in values]
    if missing:
        raise InvalidRequest(
            f"the placeholder has no value for {missing}: it must have one for every column that is delivered; "
            "give them, or leave columns out with columns="
        )
    return pa.RecordBatch.from_arrays([_array(field, values[field.name]) for field in schema], schema=schema)


def _array(field: pa.Field, value: Any) -> pa.Array:
    if value is None and not field.nullable:
        raise InvalidRequest(f"the placeholder of column {field.name!r} is null, and the column never is")
    bfloat16 = (field.metadata or {}).get(DTYPE) == b"bfloat16"
    try:
        return _typed(_bits(value) if bfloat16 else value, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        kind = "bfloat16" if bfloat16 else field.type
        raise InvalidRequest(
            f"the placeholder {value!r} does not fit column {field.name!r} ({kind}): {error}"
        ) from None


def _typed(value: Any, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _typed(value, kind.storage_type))
    _check_whole(value, kind)
    array = pa.array([value], kind)
    array.validate(full=True)
    return array


def _check_whole(value: Any, kind: pa.DataType) -> None:
    """Arrow cuts off what is behind the point."""
    if isinstance(value, float) and pa.types.is_integer(kind) and not value.is_integer():
        raise ValueError(f"{value} is no whole number")
    if isinstance(value, list) and hasattr(kind, "value_type"):
        for item in value:
            _check_whole(item, kind.value_type)
    if isinstance(value, Mapping) and pa.types.is_struct(kind):
        for field in kind:
            _check_whole(value.get(field.name), field.type)


def _bits(value: Any) -> Any:
    """Numbers as bfloat16 keeps them: the upper half of a float32, rounded to even; lists of them too."""
    if value is None or isinstance(value, list):
        return None if value is None else [_bits(item) for item in value]
    bits = int(np.float32(value).view(np.uint32))
    return 0x7FC0 if np.isnan(value) else ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) & 0xFFFF
