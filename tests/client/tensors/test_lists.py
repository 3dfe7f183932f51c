import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from penstock.errors import ConversionError
from penstock.tensors import plan_columns

ROWS = [[1, 2, 3], [], [4], [5, 6]]
KINDS = [pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_view(pa.int32()), pa.large_list_view(pa.int32())]


def bundle(array: pa.Array, output: str = "numpy", **options: Any) -> Any:
    batch = pa.record_batch({"x": array})
    return plan_columns(batch.schema, output, **options).open(batch, None)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_lists_are_padded_to_the_longest_of_the_step(kind: pa.DataType, output: str) -> None:
    opened = bundle(pa.array(ROWS, kind), output)
    first = opened.rows(0, 2)
    assert list(first) == ["x", "x_mask"]
    assert first["x"].tolist() == [[1, 2, 3], [0, 0, 0]]
    assert first["x_mask"].tolist() == [[True] * 3, [False] * 3]
    second = opened.rows(2, 4)
    assert second["x"].tolist() == [[4, 0], [5, 6]]
    assert second["x_mask"].tolist() == [[True, False], [True, True]]
    assert second["x"].dtype == {"torch": torch.int32}.get(output, second["x"].dtype)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_ragged_is_values_and_offsets(kind: pa.DataType, output: str) -> None:
    taken = bundle(pa.array(ROWS, kind), output, ragged=True).rows(1, 4)
    assert list(taken) == ["x", "x_offsets"]
    assert taken["x"].tolist() == [4, 5, 6]
    assert taken["x_offsets"].tolist() == [0, 0, 1, 3]
    assert "int64" in str(taken["x_offsets"].dtype)


def test_lists_of_one_length_are_views(
    receive: Callable[[pa.RecordBatch], tuple[pa.RecordBatch, npt.NDArray[np.uint8]]],
) -> None:
    batch, memory = receive(pa.record_batch({"x": pa.array([[1, 2], [3, 4]])}))
    taken = plan_columns(batch.schema, "torch").open(batch, memory).rows(0, 2)
    taken["x"].add_(1)
    assert batch["x"].to_pylist() == [[2, 3], [4, 5]]
    assert taken["x_mask"].all()


def test_steps_without_rows_or_items_have_a_shape() -> None:
    opened = bundle(pa.array([[], []], pa.list_(pa.list_(pa.float32(), 3))))
    assert opened.rows(0, 2)["x"].shape == (2, 0, 3)
    assert opened.rows(0, 2)["x_mask"].shape == (2, 0)
    assert opened.rows(1, 1)["x"].shape == (0, 0, 3)
    masked = bundle(pa.array([[], []], pa.list_(pa.int32())), nulls="mask")
    assert masked.rows(0, 2)["x_mask"].shape == (2, 0)


def test_items_may_be_blocks() -> None:
    array = pa.array([[[1, 2]], [[3, 4], [5, 6]]], pa.list_(pa.list_(pa.int8(), 2)))
    taken = bundle(array).rows(0, 2)
    assert taken["x"].tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert taken["x_mask"].tolist() == [[True, False], [True, True]]


def test_null_lists_are_an_error_or_empty() -> None:
    array = pa.array([[1], None, [2, 3]])
    said = "column 'x' (list<item: int64>): 1 of 3 lists in this bundle are null"
    with pytest.raises(ConversionError, match=re.escape(said)):
        bundle(array)
    for options in ({"nulls": "mask"}, {"fill": {"x": 0}}):
        assert bundle(array, **options).rows(0, 3)["x"].tolist() == [[1, 0], [0, 0], [2, 3]]


def test_what_lies_under_a_null_list_is_not_read() -> None:
    offsets, values = pa.array([0, 1, 3, 4], pa.int32()), pa.array([1, 8, 8, 2])
    array = pa.ListArray.from_arrays(offsets, values, mask=pa.array([False, True, False]))
    taken = bundle(array, nulls="mask", ragged=True).rows(0, 3)
    assert taken["x"].tolist() == [1, 2]
    assert taken["x_offsets"].tolist() == [0, 1, 1, 2]


def test_null_items_are_no_data() -> None:
    array = pa.array([[1, None], [2]])
    taken = bundle(array, nulls="mask").rows(0, 2)
    assert taken["x"].tolist() == [[1, 0], [2, 0]]
    assert taken["x_mask"].tolist() == [[True, False], [True, False]]
    assert bundle(array, nulls="mask").rows(0, 1)["x_mask"].tolist() == [[True, False]]
    ragged = bundle(array, nulls="mask", ragged=True).rows(0, 2)
    assert ragged["x_valid"].tolist() == [True, False, True]
    floats = bundle(pa.array([[1.0, None], [2.0]])).rows(0, 2)
    np.testing.assert_array_equal(floats["x"], [[1, np.nan], [2, 0]])
    assert floats["x_mask"].tolist() == [[True, True], [True, False]]
