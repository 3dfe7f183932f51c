"""MLX arrays that share memory with what was received. Metal is not here: what adopts memory is stood in for by a copy
of the whole, so that everything but the adoption itself is tested."""

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pyarrow as pa
import pytest
import torch

from penstock.errors import InvalidRequest
from penstock.tensors import BundleConverter, plan_columns
from penstock.tensors.copies import PAGE, WORTH_SHARING, page_aligned, pages_of
from penstock.tensors.to_mlx import Adopted, mlx_output, why_not_unified

ROWS = 8
WIDE = WORTH_SHARING // 4  # float32 values of a row that is worth sharing
SCHEMA = pa.schema(
    [
        ("wide", pa.list_(pa.float32(), WIDE)),
        ("narrow", pa.int64()),
        pa.field("brain", pa.list_(pa.uint16(), 2 * WIDE), metadata={"penstock.dtype": "bfloat16"}),
        ("double", pa.list_(pa.float64(), WIDE)),
        ("flag", pa.bool_()),
    ]
)


def received() -> tuple[pa.RecordBatch, Any]:
    """As the client receives a bundle for MLX."""
    wide = np.arange(ROWS * WIDE, dtype=np.float32)
    brain = torch.arange(ROWS * 2 * WIDE).remainder(256).bfloat16().view(torch.uint16).numpy()
    arrays = [
        pa.FixedSizeListArray.from_arrays(pa.array(wide), type=SCHEMA.field("wide").type),
        pa.array(range(ROWS)),
        pa.FixedSizeListArray.from_arrays(pa.array(brain), type=SCHEMA.field("brain").type),
        pa.FixedSizeListArray.from_arrays(pa.array(wide.astype(np.float64)), type=SCHEMA.field("double").type),
        pa.array([i % 2 == 0 for i in range(ROWS)]),
    ]
    data = pa.RecordBatch.from_arrays(arrays, schema=SCHEMA).serialize()
    memory = page_aligned(data.size)
    memory[:] = np.frombuffer(data, np.uint8)
    return pa.ipc.read_record_batch(pa.py_buffer(memory), SCHEMA), memory


def sharing() -> BundleConverter:
    converter = plan_columns(SCHEMA, "mlx")
    converter._output = replace(mlx_output(False), adopt=lambda memory: Adopted(memory, mx.from_dlpack))
    return converter


def test_receive_buffers_are_whole_pages_and_writable() -> None:
    for size in (1, PAGE, PAGE + 1, 3_000_000):
        memory = page_aligned(size)
        assert memory.ctypes.data % PAGE == 0 or PAGE > 4096  # 16 KiB where pages have 4: a multiple in length alone
        assert memory.ctypes.data % 4096 == 0
        assert (len(memory), memory.flags.writeable) == (size, True)
        assert len(pages_of(memory)) % PAGE == 0
    assert page_aligned(0).shape == (0,)


@pytest.mark.parametrize(("start", "stop"), [(0, ROWS), (3, 5), (7, 8)])
def test_shared_columns_hold_what_copied_ones_hold(start: int, stop: int) -> None:
    shared = sharing().open(*received()).rows(start, stop)
    copied = plan_columns(SCHEMA, "mlx", unified=False).open(*received()).rows(start, stop)
    assert list(shared) == list(copied)
    for name, array in shared.items():
        assert (array.dtype, array.shape) == (copied[name].dtype, copied[name].shape)
        assert mx.array_equal(array, copied[name]).item(), name


def test_only_what_cannot_be_shared_is_counted_as_copied() -> None:
    converter, copying = sharing(), plan_columns(SCHEMA, "mlx", unified=False)
    converter.open(*received()).rows(2, 4)
    copying.open(*received()).rows(2, 4)
    bits = ROWS  # a bool is unpacked to a byte
    assert converter.copies.bytes == 2 * (8 + 8 * WIDE + 1) + bits
    assert copying.copies.bytes == 2 * (4 * WIDE + 8 + 2 * 2 * WIDE + 8 * WIDE + 1) + bits
    views = plan_columns(SCHEMA, "torch")
    views.open(*received()).rows(2, 4)
    assert views.copies.bytes == bits


def test_without_metal_it_is_refused_where_demanded_and_left_out_where_not() -> None:
    if not why_not_unified():
        pytest.skip("Metal is here: examples/check_mac.py tests it")
    assert "no Metal here" in why_not_unified()
    assert mlx_output().adopt is None
    with pytest.raises(InvalidRequest, match="unified_memory=True: MLX has no Metal here"):
        plan_columns(SCHEMA, "mlx", unified=True)
