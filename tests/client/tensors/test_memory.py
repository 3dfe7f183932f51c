"""Who owns the bytes: views of what was received where that can be, and never anything read-only."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch

from penstock.tensors import plan_columns

Receive = Callable[[pa.RecordBatch], tuple[pa.RecordBatch, npt.NDArray[np.uint8]]]


@pytest.fixture
def batch() -> pa.RecordBatch:
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(64, dtype=np.float32)), 8)
    return pa.record_batch({"x": pixels, "y": pa.array(range(8)), "day": pa.array(range(8), pa.timestamp("s"))})


def within(tensor: Any, memory: Any) -> bool:
    return bool(memory.ctypes.data <= tensor.data_ptr() < memory.ctypes.data + memory.nbytes)


def test_numbers_are_writable_views_of_what_was_received(batch: pa.RecordBatch, receive: Receive) -> None:
    received, memory = receive(batch)
    bundle = plan_columns(batch.schema, "torch").open(received, memory)
    step = bundle.rows(2, 4)
    assert all(within(tensor, memory) for tensor in step.values())
    step["x"].add_(1)
    assert received["x"][2].as_py() == [value + 1 for value in range(16, 24)]
    assert received["x"][4].as_py() == list(range(32, 40))


@pytest.mark.parametrize("expected", [0, 1, 3, 8, 9])
def test_steps_of_the_size_expected_are_the_same_steps(batch: pa.RecordBatch, receive: Receive, expected: int) -> None:
    bundle = plan_columns(batch.schema, "torch").open(*receive(batch))
    bundle.expect(expected)
    for start in range(9):
        for stop in range(start, 9):
            step = bundle.rows(start, stop)
            assert list(step) == ["x", "y", "day"]
            assert step["y"].tolist() == list(range(start, stop))
            assert step["x"].flatten().tolist() == list(range(8 * start, 8 * stop))


def test_a_step_that_enters_a_graph_leaves_the_others_out_of_it(batch: pa.RecordBatch, receive: Receive) -> None:
    bundle = plan_columns(batch.schema, "torch").open(*receive(batch))
    bundle.expect(2)
    scale = torch.ones(8, requires_grad=True)
    first, second = bundle.rows(0, 2)["x"], bundle.rows(2, 4)["x"]
    first.mul_(scale).sum().backward()
    assert not second.requires_grad
    assert scale.grad is not None
    assert scale.grad.tolist() == [8.0 + 2 * i for i in range(8)]


def test_bytes_that_are_not_ours_are_copied_and_stay_as_they_are(batch: pa.RecordBatch) -> None:
    data = bytes(batch.serialize())
    foreign = pa.ipc.read_record_batch(pa.py_buffer(data), batch.schema)
    elsewhere = np.zeros(8, np.uint8)
    read_only = np.frombuffer(data, np.uint8)
    for writable in (None, elsewhere, read_only):
        for output in ("torch", "numpy"):
            step = plan_columns(batch.schema, output).open(foreign, writable).rows(0, 8)
            step["x"] += 1  # a read-only array raises, a read-only tensor warns when it is made
            step["y"] += 1
    assert foreign.equals(batch)


def test_compressed_bodies_need_no_further_copy(batch: pa.RecordBatch) -> None:
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    received = pa.ipc.open_stream(sink.getvalue()).read_next_batch()
    assert plan_columns(batch.schema, "torch").open(received, None).rows(0, 8)["y"].add_(1).tolist() == list(
        range(1, 9)
    )


def test_misaligned_bytes_are_copied(batch: pa.RecordBatch) -> None:
    data = bytes(batch.serialize())
    memory = np.zeros(len(data) + 8, np.uint8)
    shift = 1 + (-memory.ctypes.data) % 8
    memory[shift : shift + len(data)] = np.frombuffer(data, np.uint8)
    received = pa.ipc.read_record_batch(pa.py_buffer(memory)[shift:], batch.schema)
    step = plan_columns(batch.schema, "torch").open(received, memory).rows(0, 8)
    assert step["y"].tolist() == list(range(8))
    assert step["y"].data_ptr() % 8 == 0


@pytest.mark.parametrize("output", ["torch", "numpy", "arrow"])
@pytest.mark.parametrize("expected", [0, 2])
def test_the_memory_lives_until_the_last_view_of_it_is_gone(
    batch: pa.RecordBatch, receive: Receive, output: str, expected: int
) -> None:
    received, memory = receive(batch)
    gone = weakref.ref(memory)
    bundle = plan_columns(batch.schema, output).open(received, memory)
    bundle.expect(expected)
    step = bundle.rows(0, 2)
    view = step["x"]
    del memory, received, bundle, step
    gc.collect()
    assert gone() is not None
    del view
    gc.collect()
    assert gone() is None


def test_mlx_owns_what_it_gets(batch: pa.RecordBatch, receive: Receive) -> None:
    received, memory = receive(batch)
    bundle = plan_columns(batch.schema, "mlx").open(received, memory)
    step = bundle.rows(0, 2)
    memory[:] = 0
    assert step["y"].tolist() == [0, 1]
    assert step["x"].tolist() == np.arange(16).reshape(2, 8).tolist()


def test_views_in_shared_dictionaries_are_apart(receive: Receive) -> None:
    letters = pa.array(["a", "b", "a"]).dictionary_encode()
    codes = pa.DictionaryArray.from_arrays(letters.indices, pa.array([10.0, 20.0]))
    schema = pa.schema([("x", codes.type)])
    step = plan_columns(schema, "torch").open(pa.record_batch([codes], schema=schema), None).rows(0, 3)
    step["x"].add_(1)
    assert step["x"].tolist() == [11, 21, 11]
    assert codes.dictionary.to_pylist() == [10, 20]
    assert torch.is_tensor(step["x"])


def test_nan_is_not_written_into_bytes_that_are_not_ours() -> None:
    batch = pa.record_batch({"x": pa.array([1.0, None, 3.0], pa.float32())})
    data = bytes(batch.serialize())
    foreign = pa.ipc.read_record_batch(pa.py_buffer(data), batch.schema)
    for output in ("mlx", "torch", "numpy"):
        assert np.isnan(plan_columns(batch.schema, output).open(foreign, None).rows(0, 3)["x"].tolist()[1])
    assert data == bytes(batch.serialize())
