"""The declared row: every kind of column, and what is said where a value does not fit."""

import json
from typing import Any

import pyarrow as pa
import pytest

from penstock_proto.v1.marks import DTYPE
from penstock_service.batch.placeholder import parse_placeholder
from penstock_service.core.errors import InvalidRequest

VECTOR = pa.list_(pa.float32(), 2)
BFLOAT16 = {DTYPE: b"bfloat16"}


def row(value: Any, kind: pa.DataType, nullable: bool = True, metadata: dict[bytes, bytes] | None = None) -> Any:
    schema = pa.schema([pa.field("x", kind, nullable, metadata)])
    made = parse_placeholder(json.dumps({"x": value}), schema)
    assert made is not None
    assert made.schema.equals(schema, check_metadata=True)
    assert made.num_rows == 1
    return made["x"][0].as_py()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (7, pa.int8()),
        (True, pa.bool_()),
        ("word", pa.string()),
        ([1.5, 2.0], VECTOR),
        ([[1, 2], []], pa.list_(pa.list_(pa.int64()))),
        ({"a": 1, "b": ["z"]}, pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])),
        (None, pa.float64()),
    ],
)
def test_a_value_of_each_kind_becomes_a_row_of_the_schema(value: Any, kind: pa.DataType) -> None:
    assert row(value, kind) == value


def test_tensors_and_bfloat16_are_kept_as_their_columns_keep_them() -> None:
    tensor = pa.fixed_shape_tensor(pa.int32(), [2, 2])
    assert list(row([1, 2, 3, 4], tensor)) == [1, 2, 3, 4]
    assert row(1.0, pa.uint16(), metadata=BFLOAT16) == 0x3F80
    assert row([-2.0, 0.0], pa.list_(pa.uint16()), metadata=BFLOAT16) == [0xC000, 0]
    assert row(float("nan"), pa.uint16(), metadata=BFLOAT16) == 0x7FC0
    assert row(1.0 + 2**-8, pa.uint16(), metadata=BFLOAT16) == 0x3F80  # half-way: to even


@pytest.mark.parametrize(
    ("value", "kind", "nullable"),
    [
        (300, pa.int8(), True),
        (-1, pa.uint8(), True),
        (0.5, pa.int64(), True),
        ([0.5], pa.list_(pa.int64()), True),
        ({"a": 0.5}, pa.struct([("a", pa.int32())]), True),
        ("1", pa.int64(), True),
        (1, pa.string(), True),
        ([1.0], VECTOR, True),
        (None, pa.int64(), False),
    ],
)
def test_a_value_that_does_not_fit_names_column_and_value(value: Any, kind: pa.DataType, nullable: bool) -> None:
    with pytest.raises(InvalidRequest, match="column 'x'"):
        row(value, kind, nullable)


def test_what_is_no_row_is_refused() -> None:
    schema = pa.schema([("x", pa.int64()), ("y", pa.int64())])
    assert parse_placeholder("", schema) is None
    for text, said in (
        ("{", "no JSON"),
        ("[1]", "must be an object"),
        ('{"x": 1}', r"no value for \['y'\]"),
        ('{"x": 1, "z": 2}', "names 'z'"),
    ):
        with pytest.raises(InvalidRequest, match=said):
            parse_placeholder(text, schema)
