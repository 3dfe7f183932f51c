"""A line per Arrow type: what it becomes for torch, MLX and NumPy, as received and as made in this process."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from penstock.tensors import plan_columns, units

Receive = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, npt.NDArray[np.uint8]]]


@dataclass
class Line:
    name: str
    array: pa.Array
    values: Any  # of all rows, as NumPy would be given them
    torch: torch.dtype
    mlx: Any
    numpy: str


def tensor_of(shape: list[int], permutation: list[int] | None = None) -> pa.Array:
    kind = pa.fixed_shape_tensor(pa.float32(), shape, permutation=permutation)
    storage = pa.array(np.arange(18, dtype=np.float32).reshape(3, 6).tolist(), kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, storage)


DAY = dt.date(1970, 1, 11)
NOON = dt.datetime(1970, 1, 1, 12, tzinfo=dt.UTC)
SIX = np.arange(18).reshape(3, 6)
LINES = [
    Line("float16", pa.array([1, 2, 3], pa.float16()), [1, 2, 3], torch.float16, mx.float16, "f2"),
    Line("float32", pa.array([1, 2, 3], pa.float32()), [1, 2, 3], torch.float32, mx.float32, "f4"),
    Line("float64", pa.array([1, 2, 3], pa.float64()), [1, 2, 3], torch.float64, mx.float32, "f8"),
    Line("int8", pa.array([-1, 2, 3], pa.int8()), [-1, 2, 3], torch.int8, mx.int8, "i1"),
    Line("int16", pa.array([-1, 2, 3], pa.int16()), [-1, 2, 3], torch.int16, mx.int16, "i2"),
    Line("int32", pa.array([-1, 2, 3], pa.int32()), [-1, 2, 3], torch.int32, mx.int32, "i4"),
    Line("int64", pa.array([-1, 2, 2**53 + 1]), [-1, 2, 2**53 + 1], torch.int64, mx.int64, "i8"),
    Line("uint8", pa.array([1, 2, 255], pa.uint8()), [1, 2, 255], torch.uint8, mx.uint8, "u1"),
    Line("uint16", pa.array([1, 2, 65535], pa.uint16()), [1, 2, 65535], torch.int32, mx.uint16, "u2"),
    Line("uint32", pa.array([1, 2, 2**32 - 1], pa.uint32()), [1, 2, 2**32 - 1], torch.int64, mx.uint32, "u4"),
    Line("uint64", pa.array([1, 2, 2**63 - 1], pa.uint64()), [1, 2, 2**63 - 1], torch.int64, mx.uint64, "u8"),
    Line("bool", pa.array([True, False, True]), [True, False, True], torch.bool, mx.bool_, "?"),
    Line(
        "bool8",
        pa.ExtensionArray.from_storage(pa.bool8(), pa.array([2, 0, 1], pa.int8())),
        [True, False, True],
        torch.bool,
        mx.bool_,
        "?",
    ),
    Line("date32", pa.array([DAY] * 3, pa.date32()), [10] * 3, torch.int64, mx.int64, "i8"),
    Line("date64", pa.array([DAY] * 3, pa.date64()), [864_000_000] * 3, torch.int64, mx.int64, "i8"),
    Line("timestamp", pa.array([NOON] * 3, pa.timestamp("ms", "UTC")), [43_200_000] * 3, torch.int64, mx.int64, "i8"),
    Line("time32", pa.array([dt.time(1)] * 3, pa.time32("s")), [3600] * 3, torch.int64, mx.int64, "i8"),
    Line("time64", pa.array([dt.time(1)] * 3, pa.time64("us")), [3_600_000_000] * 3, torch.int64, mx.int64, "i8"),
    Line("duration", pa.array([dt.timedelta(1)] * 3, pa.duration("s")), [86400] * 3, torch.int64, mx.int64, "i8"),
    Line("decimal128", pa.array([Decimal("1.25")] * 3), [1.25] * 3, torch.float64, mx.float32, "f8"),
    Line(
        "decimal256", pa.array([Decimal("1.25")] * 3, pa.decimal256(9, 2)), [1.25] * 3, torch.float64, mx.float32, "f8"
    ),
    Line("dictionary", pa.array([7, 8, 7]).dictionary_encode(), [7, 8, 7], torch.int64, mx.int64, "i8"),
    Line("run_end_encoded", pa.RunEndEncodedArray.from_arrays([2, 3], [7, 8]), [7, 7, 8], torch.int64, mx.int64, "i8"),
    Line("fixed_size_list", pa.array(SIX.tolist(), pa.list_(pa.float32(), 6)), SIX, torch.float32, mx.float32, "f4"),
    Line(
        "nested_fixed",
        pa.array(SIX.reshape(3, 2, 3).tolist(), pa.list_(pa.list_(pa.int16(), 3), 2)),
        SIX.reshape(3, 2, 3),
        torch.int16,
        mx.int16,
        "i2",
    ),
    Line("tensor", tensor_of([2, 3]), SIX.reshape(3, 2, 3), torch.float32, mx.float32, "f4"),
    Line("turned", tensor_of([2, 3], [1, 0]), SIX.reshape(3, 2, 3).transpose(0, 2, 1), torch.float32, mx.float32, "f4"),
    Line("empty_block", pa.array([[]] * 3, pa.list_(pa.int32(), 0)), np.zeros((3, 0)), torch.int32, mx.int32, "i4"),
]
EACH = pytest.mark.parametrize("line", LINES, ids=lambda line: line.name)
FROM = pytest.mark.parametrize("received", [True, False], ids=["received", "local"])


def opened(line: Line, output: str, received: bool, receive: Receive, stop: int = 3) -> Any:
    """Rows 1 to `stop`, of a batch that is itself a slice of a longer one where it is local."""
    batch = pa.record_batch({"x": line.array})
    if received:
        bundle = plan_columns(batch.schema, output).open(*receive(batch))
        return bundle.rows(1, stop)["x"]
    longer = pa.record_batch({"x": pa.concat_arrays([line.array, line.array])}).slice(3)
    return plan_columns(batch.schema, output).open(longer, None).rows(1, stop)["x"]


@EACH
@FROM
def test_torch(line: Line, received: bool, receive: Receive) -> None:
    tensor = opened(line, "torch", received, receive)
    assert tensor.dtype == line.torch
    assert torch.equal(tensor, torch.tensor(np.array(line.values)[1:3]).to(line.torch))


@EACH
@FROM
def test_mlx(line: Line, received: bool, receive: Receive) -> None:
    array = opened(line, "mlx", received, receive)
    assert array.dtype == line.mlx
    np.testing.assert_array_equal(np.array(array), np.array(line.values)[1:3])


@EACH
@FROM
def test_numpy(line: Line, received: bool, receive: Receive) -> None:
    array: npt.NDArray[Any] = opened(line, "numpy", received, receive)
    assert array.dtype == np.dtype(line.numpy)
    assert array.flags.writeable
    np.testing.assert_array_equal(array, np.array(line.values)[1:3])


@EACH
def test_no_rows_are_a_tensor_too(line: Line, receive: Receive) -> None:
    for output in ("torch", "mlx", "numpy"):
        assert tuple(opened(line, output, True, receive, stop=1).shape) == (0, *np.array(line.values).shape[1:])


@EACH
def test_arrow_hands_out_what_is_stored(line: Line, receive: Receive) -> None:
    batch = pa.record_batch({"x": line.array})
    rows = plan_columns(batch.schema, "arrow").open(*receive(batch)).rows(1, 3)
    assert isinstance(rows, pa.RecordBatch)
    assert rows.equals(batch.slice(1, 2))


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array(["a", None, "ü"]), ["a", None, "ü"]),
        (pa.array(["a", None, "ü"], pa.large_string()), ["a", None, "ü"]),
        (pa.array(["a", None, "ü"], pa.string_view()), ["a", None, "ü"]),
        (pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        (pa.array([b"a", b"", None]), [b"a", b"", None]),
        (pa.array([b"ab", b"cd", None], pa.binary(2)), [b"ab", b"cd", None]),
        (pa.array([["a"], [], None]), [["a"], [], None]),
        (pa.array([[{"role": "user", "turn": 1}], [], None]), [[{"role": "user", "turn": 1}], [], None]),
        (pa.array([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())), [[("a", 1)], [], None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_strings_and_what_holds_them_become_lists(array: pa.Array, values: list[Any], output: str) -> None:
    batch = pa.record_batch({"x": array})
    assert plan_columns(batch.schema, output).open(batch, None).rows(1, 3) == {"x": values[1:]}


def test_a_struct_becomes_a_column_per_field_in_the_order_of_the_schema(receive: Receive) -> None:
    place = pa.array([{"lat": 1.5, "at": {"day": 3}}, None, {"lat": 2.5, "at": None}])
    batch = pa.record_batch({"id": pa.array([7, 8, 9]), "place": place, "z": pa.array([[1], [2, 3], []])})
    converter = plan_columns(batch.schema, "torch", fill={"place.at.day": -1})
    rows = converter.open(*receive(batch)).rows(0, 3)
    assert list(rows) == list(converter.keys) == ["id", "place.lat", "place.at.day", "z", "z_mask"]
    assert rows["place.at.day"].tolist() == [3, -1, -1]
    assert rows["place.lat"].isnan().tolist() == [False, True, False]


def test_units_say_what_the_numbers_of_times_count() -> None:
    schema = pa.schema(
        [
            ("day", pa.date32()),
            ("old", pa.date64()),
            ("at", pa.timestamp("us", "Europe/Madrid")),
            ("x", pa.int64()),
            ("s", pa.struct([("took", pa.duration("ns")), ("t", pa.time32("ms"))])),
            ("all", pa.list_(pa.timestamp("s"))),
        ]
    )
    assert units(schema) == {"day": "D", "old": "ms", "at": "us", "s.took": "ns", "s.t": "ms", "all": "s"}
