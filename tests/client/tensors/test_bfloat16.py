"""bfloat16: uint16 with a mark on the field."""

import sys
import types
from typing import Any

import mlx.core as mx
import numpy as np
import pyarrow as pa
import pytest
import torch

from penstock.errors import ConversionError
from penstock.tensors import plan_columns

VALUES = [1.5, -2.0, 0.0, 3.140625]
BITS = torch.tensor(VALUES, dtype=torch.bfloat16).view(torch.uint16).numpy()
MARK = {"penstock.dtype": "bfloat16"}


def opened(array: pa.Array, output: str, **options: Any) -> Any:
    schema = pa.schema([pa.field("x", array.type, metadata=MARK)])
    batch = pa.record_batch([array], schema=schema)
    return plan_columns(schema, output, **options).open(batch, None)


def test_torch_and_mlx_see_bfloat16_and_numpy_the_bits() -> None:
    array = pa.array(BITS)
    x = opened(array, "torch").rows(1, 4)["x"]
    assert x.dtype == torch.bfloat16
    assert x.tolist() == VALUES[1:]
    y = opened(array, "mlx").rows(1, 4)["x"]
    assert y.dtype == mx.bfloat16
    assert y.tolist() == VALUES[1:]
    z = opened(array, "numpy").rows(1, 4)["x"]
    assert z.dtype == np.uint16
    assert z.tolist() == BITS[1:].tolist()
    assert opened(array, "arrow").rows(1, 4)["x"].type == pa.uint16()


def test_numpy_sees_bfloat16_where_ml_dtypes_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Any dtype of 16 bits will do to see that it is taken from there.
    stand_in = types.ModuleType("ml_dtypes")
    stand_in.bfloat16 = np.float16  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ml_dtypes", stand_in)
    assert opened(pa.array(BITS), "numpy").rows(0, 4)["x"].dtype == np.float16


@pytest.mark.parametrize("output", ["torch", "mlx"])
def test_in_blocks_lists_and_structs(output: str) -> None:
    kind = torch.bfloat16 if output == "torch" else mx.bfloat16
    block = opened(pa.FixedSizeListArray.from_arrays(pa.array(BITS), 2), output).rows(0, 2)["x"]
    assert (block.dtype, block.tolist()) == (kind, [VALUES[:2], VALUES[2:]])
    lists = pa.ListArray.from_arrays(pa.array([0, 3, 4], pa.int32()), pa.array(BITS))
    padded = opened(lists, output).rows(0, 2)
    assert (padded["x"].dtype, padded["x"].tolist()) == (kind, [VALUES[:3], [VALUES[3], 0, 0]])
    assert padded["x_mask"].tolist() == [[True] * 3, [True, False, False]]
    ragged = opened(lists, output, ragged=True).rows(0, 2)
    assert (ragged["x"].dtype, ragged["x"].tolist()) == (kind, VALUES)
    struct = pa.struct([pa.field("b", pa.uint16(), metadata=MARK), pa.field("c", pa.uint16())])
    batch = pa.record_batch({"a": pa.array([{"b": int(bits), "c": 7} for bits in BITS], struct)})
    found = plan_columns(batch.schema, output).open(batch, None).rows(0, 4)
    assert (found["a.b"].dtype, found["a.b"].tolist()) == (kind, VALUES)
    assert found["a.c"].tolist() == [7] * 4


def test_null_is_nan_or_the_fill() -> None:
    array = pa.array([int(BITS[0]), None, int(BITS[1])], pa.uint16())
    for options in ({}, {"nulls": "mask"}):
        step = opened(array, "torch", **options).rows(0, 3)
        assert list(step) == ["x"]
        assert step["x"].isnan().tolist() == [False, True, False]
    assert opened(array, "torch", fill={"x": -0.3333}).rows(0, 3)["x"][1] == torch.tensor(-0.3333).bfloat16()
    lists = pa.array([[int(BITS[0])], None], pa.list_(pa.uint16()))
    with pytest.raises(ConversionError, match="1 of 2 lists in this bundle are null"):
        opened(lists, "torch")


def test_a_sparse_column_of_bfloat16() -> None:
    kind = pa.struct([("indices", pa.list_(pa.int64())), pa.field("values", pa.list_(pa.uint16()), metadata=MARK)])
    batch = pa.record_batch({"x": pa.array([{"indices": [2, 0], "values": BITS[:2].tolist()}], kind)})
    x = plan_columns(batch.schema, "torch", sparse={"x": 3}).open(batch, None).rows(0, 1)["x"]
    assert (x.dtype, x.to_dense().tolist()) == (torch.bfloat16, [[VALUES[1], 0, VALUES[0]]])


@pytest.mark.parametrize(("kind", "mark"), [(pa.int16(), "bfloat16"), (pa.uint16(), "float8"), (pa.float32(), "x")])
def test_a_mark_that_does_not_fit_is_refused_when_the_stream_is_opened(kind: pa.DataType, mark: str) -> None:
    schema = pa.schema([pa.field("x", kind, metadata={"penstock.dtype": mark})])
    with pytest.raises(ConversionError, match=f"column 'x' .*penstock.dtype='{mark}'"):
        plan_columns(schema, "torch")
