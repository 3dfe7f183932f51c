"""Sparse columns: struct<indices, values> of a known width, as CSR."""

import re
from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from penstock.errors import ConversionError, InvalidRequest
from penstock.tensors import plan_columns

Receive = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, npt.NDArray[np.uint8]]]

ROWS = [
    {"indices": [0, 3], "values": [1.0, 2.0]},
    {"indices": [], "values": []},
    {"indices": [4, 1], "values": [3.0, 4.0]},
    {"indices": [2], "values": [5.0]},
]
DENSE = np.array([[1, 0, 0, 2, 0], [0] * 5, [0, 4, 0, 0, 3], [0, 0, 5, 0, 0]], np.float32)
KIND = pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])
MARKED = pa.schema([pa.field("x", KIND, metadata={"penstock.sparse": "5"}), ("y", pa.int8())])


def batch(rows: list[Any] = ROWS, kind: pa.DataType = KIND) -> pa.RecordBatch:
    schema = pa.schema([pa.field("x", kind, metadata={"penstock.sparse": "5"}), ("y", pa.int8())])
    return pa.record_batch([pa.array(rows, kind), pa.array(range(len(rows)), pa.int8())], schema=schema)


def taken(rows: list[Any], output: str = "numpy", **options: Any) -> Any:
    made = batch(rows)
    return plan_columns(made.schema, output, **options).open(made, None).rows(0, len(rows))


@pytest.mark.parametrize("received", [True, False], ids=["received", "local"])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 2), (3, 4)])
def test_torch_gets_one_sparse_tensor(received: bool, start: int, stop: int, receive: Receive) -> None:
    converter = plan_columns(MARKED, "torch")
    opened = converter.open(*(receive(batch()) if received else (batch(), None)))
    step = opened.rows(start, stop)
    assert list(step) == list(converter.keys) == ["x", "y"]
    x = step["x"]
    assert (x.layout, x.dtype, tuple(x.shape)) == (torch.sparse_csr, torch.float32, (stop - start, 5))
    assert torch.equal(x.to_dense(), torch.from_numpy(DENSE[start:stop]))
    weights = torch.arange(10.0).reshape(5, 2)
    assert torch.allclose(x @ weights, torch.from_numpy(DENSE[start:stop]) @ weights)
    with torch.sparse.check_sparse_tensor_invariants():
        torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), x.values(), x.shape)


@pytest.mark.parametrize("output", ["numpy", "mlx"])
@pytest.mark.parametrize(("start", "stop"), [(0, 4), (1, 3), (2, 2)])
def test_numpy_and_mlx_get_the_three_arrays(output: str, start: int, stop: int, receive: Receive) -> None:
    converter = plan_columns(MARKED, output)
    step = converter.open(*receive(batch())).rows(start, stop)
    assert list(step) == list(converter.keys) == ["x", "x_indices", "x_indptr", "y"]
    assert isinstance(step["x"], np.ndarray if output == "numpy" else mx.array)
    values, indices, indptr = (np.array(step[key]) for key in ("x", "x_indices", "x_indptr"))
    assert [str(a.dtype) for a in (values, indices, indptr)] == ["float32", "int64", "int64"]
    dense = np.zeros((stop - start, 5), np.float32)
    for row in range(stop - start):
        dense[row, indices[indptr[row] : indptr[row + 1]]] = values[indptr[row] : indptr[row + 1]]
    np.testing.assert_array_equal(dense, DENSE[start:stop])


def test_arrow_hands_out_what_is_stored() -> None:
    assert plan_columns(MARKED, "arrow").open(batch(), None).rows(0, 4)["x"].to_pylist() == ROWS


def test_a_column_that_does_not_say_it_itself_is_named_with_its_width() -> None:
    plain = pa.record_batch({"x": pa.array(ROWS, KIND)})
    assert list(plan_columns(plain.schema, "numpy").open(plain, None).rows(0, 4)) == [
        *("x.indices", "x.indices_mask", "x.values", "x.values_mask")
    ]
    x = plan_columns(plain.schema, "torch", sparse={"x": 7}).open(plain, None).rows(0, 4)["x"]
    assert tuple(x.shape) == (4, 7)
    nested = pa.record_batch({"s": pa.StructArray.from_arrays([plain["x"]], ["x"])})
    assert plan_columns(nested.schema, "torch", sparse={"s.x": 5}).open(nested, None).rows(0, 4)["s.x"].shape == (4, 5)


def test_nulls_are_an_error_or_empty_rows() -> None:
    rows: list[Any] = [ROWS[0], None, ROWS[2]]
    with pytest.raises(ConversionError, match="1 of 3 lists in this bundle are null"):
        taken(rows)
    x = taken(rows, "torch", nulls="mask")["x"]
    assert torch.equal(x.to_dense(), torch.from_numpy(DENSE[:3]))
    absent = taken([{"indices": [0, 1], "values": [None, 2.0]}], "torch")["x"].to_dense()
    assert absent.isnan().tolist() == [[True, False, False, False, False]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"indices": [0, 1], "values": [1.0]},
            "have not as many indices as values (the first: 2",
        ),
        ({"indices": [5], "values": [1.0]}, "1 indices in this bundle are not from 0 to 4 (the first: 5)"),
        ({"indices": [-1, 2], "values": [1.0, 2.0]}, "not from 0 to 4 (the first: -1)"),
        ({"indices": [3, 1, 3], "values": [1.0, 2.0, 3.0]}, "index 3 comes twice in one row"),
        ({"indices": [1, None], "values": [1.0, 2.0]}, "1 indices in this bundle are null"),
    ],
)
def test_rows_that_are_none_are_an_error_with_the_column(row: Any, said: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(said)) as caught:
        taken([ROWS[0], row])
    assert "column 'x'" in str(caught.value)
    assert "sparse with width 5" in str(caught.value)


@pytest.mark.parametrize(
    "kind",
    [
        pa.int8(),
        pa.list_(pa.float32()),
        pa.struct([("indices", pa.list_(pa.float32())), ("values", pa.list_(pa.float32()))]),
        pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.string()))]),
        pa.struct([("indices", pa.list_(pa.int32())), ("value", pa.list_(pa.float32()))]),
        pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.list_(pa.float32(), 2)))]),
    ],
    ids=str,
)
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_what_cannot_be_sparse_is_refused_when_the_stream_is_opened(kind: pa.DataType, output: str) -> None:
    with pytest.raises(ConversionError, match=r"column 'x' .* a sparse column must be struct<indices: list<integer>"):
        plan_columns(pa.schema([("x", kind)]), output, sparse={"x": 5})


def test_widths_and_names_that_are_wrong() -> None:
    for width in (0, -3, "many"):
        with pytest.raises(ConversionError, match=f"a whole number of at least 1, not {width!r}"):
            plan_columns(pa.schema([("x", KIND)]), "numpy", sparse={"x": width})  # type: ignore[dict-item]
    with pytest.raises(InvalidRequest, match="sparse names 'z': the stream's columns are x, y"):
        plan_columns(MARKED, "numpy", sparse={"z": 3})
    with pytest.raises(InvalidRequest, match='output="arrow" hands out what is stored'):
        plan_columns(MARKED, "arrow", sparse={"x": 3})
