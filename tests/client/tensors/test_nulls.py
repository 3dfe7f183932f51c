import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from penstock.errors import ConversionError, InvalidRequest
from penstock.tensors import plan_columns


def rows(array: pa.Array, output: str = "numpy", **options: Any) -> dict[str, Any]:
    batch = pa.record_batch({"x": array})
    taken: dict[str, Any] = plan_columns(batch.schema, output, **options).open(batch, None).rows(0, len(array))
    return taken


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 2)])
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_null_becomes_nan_where_there_is_nan(kind: pa.DataType, output: str) -> None:
    x = rows(pa.array([1, None, 3], kind), output)["x"]
    np.testing.assert_array_equal(x.tolist(), [1, np.nan, 3])


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pa.array([1, None, None]), "column 'x' (int64): 2 of 3 values in this bundle are null"),
        (pa.array([True, None]), "column 'x' (bool): 1 of 2 values"),
        (pa.array([None, 1], pa.timestamp("us")), "column 'x' (timestamp[us]): 1 of 2 values"),
        (pa.array([[1, None], None], pa.list_(pa.int8(), 2)), "3 of 4 values in this bundle are null"),
        (pa.array([[1, None], [2]]), "column 'x' (list<item: int64>): 1 of 3 values"),
    ],
)
def test_a_null_without_a_number_for_it_is_an_error_with_count_and_cures(array: pa.Array, said: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(said)) as caught:
        rows(array)
    assert "fill={'x': 0}" in str(caught.value)
    assert 'nulls="mask"' in str(caught.value)


@pytest.mark.parametrize(
    ("array", "fill", "values"),
    [
        (pa.array([1, None]), -1, [1, -1]),
        (pa.array([1.0, None]), 0.1, [1.0, 0.1]),
        (pa.array([True, None]), True, [True, True]),
        (pa.array([None, 1], pa.timestamp("us")), 5, [5, 1]),
        (pa.array(["a", "b", None]).dictionary_encode(), "?", ["a", "b", "?"]),
        (pa.array([[1, None], None], pa.list_(pa.int8(), 2)), 9, [[1, 9], [9, 9]]),
    ],
)
def test_fill_stands_for_null(array: pa.Array, fill: Any, values: list[Any]) -> None:
    x = rows(array, fill={"x": fill})["x"]
    assert (x if isinstance(x, list) else x.tolist()) == values


@pytest.mark.parametrize(
    ("kind", "fill"),
    [(pa.int64(), 1.5), (pa.int8(), 300), (pa.int64(), "a"), (pa.bool_(), 2), (pa.string(), 1), (pa.float32(), None)],
)
def test_a_fill_that_is_no_value_of_the_column_is_refused_at_once(kind: pa.DataType, fill: Any) -> None:
    with pytest.raises(
        InvalidRequest, match=re.escape(f"fill={{'x': {fill!r}}}: must be a value of the column's type")
    ):
        plan_columns(pa.schema([("x", kind)]), "numpy", fill={"x": fill})


def test_a_fill_for_a_column_that_is_not_there_is_refused() -> None:
    schema = pa.schema([("x", pa.int64()), ("s", pa.struct([("a", pa.int64())]))])
    with pytest.raises(InvalidRequest, match=r"fill names 'y': the stream's columns are x, s\.a"):
        plan_columns(schema, "numpy", fill={"y": 0, "s.a": 1})


@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_a_mask_says_where_data_is(output: str) -> None:
    taken = rows(pa.array([1, None, 3]), output, nulls="mask")
    assert list(taken) == ["x", "x_valid"]
    assert taken["x"].tolist() == [1, 0, 3]
    assert taken["x_valid"].tolist() == [True, False, True]


def test_a_mask_has_the_shape_of_its_column() -> None:
    taken = rows(pa.array([[1, None], None, [3, 4]], pa.list_(pa.int8(), 2)), nulls="mask")
    assert taken["x_valid"].tolist() == [[True, False], [False, False], [True, True]]
    assert taken["x"].tolist() == [[1, 0], [0, 0], [3, 4]]


def test_keys_do_not_depend_on_whether_a_bundle_has_nulls() -> None:
    assert list(rows(pa.array([1, 2]), nulls="mask")) == ["x", "x_valid"]
    assert list(rows(pa.array([1.0, None]), nulls="mask")) == ["x"]  # NaN says it
    never = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    assert plan_columns(never, "numpy", nulls="mask").keys == ("x",)


def test_a_null_block_of_floats_is_nan_throughout() -> None:
    x = rows(pa.array([[1, 2], None], pa.list_(pa.float32(), 2)), "torch")["x"]
    assert x[0].tolist() == [1, 2]
    assert bool(x[1].isnan().all())


def test_a_uint64_beyond_int64_is_an_error_for_torch_only() -> None:
    array = pa.array([1, 2**63, None, 2**64 - 1], pa.uint64())
    with pytest.raises(ConversionError, match=r"column 'x' \(uint64\): 2 of 4 values are above 9223372036854775807"):
        rows(array, "torch", fill={"x": 0})
    assert rows(array, "numpy", fill={"x": 0})["x"].tolist() == [1, 2**63, 0, 2**64 - 1]
    assert rows(pa.array([1, None], pa.uint64()), "torch", nulls="mask")["x"].dtype == torch.int64
