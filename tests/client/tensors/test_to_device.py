"""Steps on their way to a device. No GPU is in CI: what CUDA is asked for, and in which order, is written down by a
stand-in for torch's streams; with a GPU the last tests run."""

import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import penstock
from penstock.batch import Batch, BatchMetadata
from penstock.blocks import ordinary
from penstock.tensor_pool import TensorPool
from penstock.tensors import to_device
from penstock.tensors.to_device import Plain, SideStream, carrier_of, check_device

CPU = torch.device("cpu")
META = BatchMetadata(0, 7, 4, 0, 1)


def batch(value: int, rows: int = 4) -> Batch:
    return Batch({"x": torch.full((rows, 8), float(value)), "n": torch.full((rows,), value), "t": ["a"] * rows}, META)


class Recorded:
    """torch.cuda, as far as it is used: notes what happens; copies end when the test says so."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.done: set[int] = set()
        self.events = 0
        self.Stream = lambda device: SimpleNamespace(name="side")
        self.Event = self._event

    def _event(self) -> Any:
        number = self.events
        self.events += 1
        return SimpleNamespace(
            number=number,
            record=lambda stream: self.said.append(f"record {number} on {stream.name}"),
            query=lambda: number in self.done,
            synchronize=lambda: self.said.append(f"synchronize {number}"),
        )

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.said.append(f"enter {stream.name}")
        yield
        self.said.append(f"leave {stream.name}")

    def current_stream(self, device: Any) -> Any:
        return SimpleNamespace(name="user", wait_event=lambda event: self.said.append(f"user waits for {event.number}"))


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    recorded, to = Recorded(), torch.Tensor.to

    def copied(self: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        where = self.data_ptr() if self.layout == torch.strided else 0
        recorded.said.append(f"copy {where:x} non_blocking={kwargs.get('non_blocking', False)}")
        return to(self, *args, **kwargs).clone()

    monkeypatch.setattr(torch.Tensor, "to", copied)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda self, stream: recorded.said.append(f"used on {stream.name}")
    )
    monkeypatch.setattr(to_device, "_page_locked", ordinary)
    return recorded


def test_copies_are_made_on_a_stream_of_their_own_and_the_users_waits_for_them(cuda: Recorded) -> None:
    side = SideStream(CPU, TensorPool(), cuda)
    first = side.begin(batch(1))
    second = side.begin(batch(2))
    kinds = [line.split(" ")[0] if line.startswith("copy") else line for line in cuda.said]
    one = ["enter side", "copy", "copy"]
    assert kinds == [*one, "record 0 on side", "leave side", *one, "record 1 on side", "leave side"]
    assert all("non_blocking=True" in line for line in cuda.said if line.startswith("copy"))
    cuda.said.clear()
    got = side.finish(first)
    assert cuda.said == ["user waits for 0", "used on user", "used on user"]
    assert (got.metadata, got["t"], got["n"].tolist()) == (META, ["a"] * 4, [1] * 4)
    assert side.finish(second)["x"].tolist() == [[2.0] * 8] * 4


def test_what_is_copied_from_is_not_written_before_the_copy_has_ended(cuda: Recorded) -> None:
    pool = TensorPool()
    side = SideStream(CPU, pool, cuda)

    def sources() -> set[str]:
        cuda.said.clear()
        side.finish(side.begin(batch(cuda.events)))
        return {line.split(" ")[1] for line in cuda.said if line.startswith("copy")}

    first, second = sources(), sources()
    assert not first & second, "the first copy has not ended"
    cuda.done.add(0)
    assert sources() == first
    side.close()
    assert [line for line in cuda.said if line.startswith("synch")] == ["synchronize 1", "synchronize 2"]
    side.close()


def test_the_batch_is_let_go_as_soon_as_it_was_staged(cuda: Recorded) -> None:
    memory = np.frombuffer(bytearray(1 << 16), np.uint8)
    gone: list[int] = []
    weakref.finalize(memory, gone.append, 1).atexit = False
    taken = Batch({"x": torch.from_numpy(memory)}, META)
    del memory
    side = SideStream(CPU, TensorPool(), cuda)
    begun = side.begin(taken)
    del taken
    assert gone == [1]
    assert len(side.finish(begun)["x"]) == 1 << 16


def test_page_locked_memory_is_within_the_cap(cuda: Recorded) -> None:
    pool = TensorPool(1 << 20)
    side = SideStream(CPU, pool, cuda)
    side.finish(side.begin(batch(1)))
    assert pool.counters.bytes == 1 << 18, "a quarter is set aside"
    held = pool.allocate(3 << 18, np.uint8)
    assert (pool.counters.bytes, pool.counters.plain, len(held)) == (1 << 20, 0, 3 << 18)


def test_sparse_columns_come_along(cuda: Recorded) -> None:
    dense = torch.eye(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse = dense.to_sparse_csr()
    side = SideStream(CPU, TensorPool(), cuda)
    got = side.finish(side.begin(Batch({"s": sparse}, META)))
    assert torch.equal(got["s"].to_dense(), dense)
    assert "user waits for 0" not in cuda.said


@pytest.mark.parametrize("pin", [False, True])
def test_on_the_cpu_there_is_nothing_to_do(pin: bool) -> None:
    given = batch(3)
    carrier = carrier_of("cpu", pin, TensorPool())
    got = carrier.finish(carrier.begin(given))
    carrier.close()
    assert isinstance(carrier, Plain)
    assert got["x"].data_ptr() == given["x"].data_ptr()
    assert (got.metadata, got["t"]) == (META, given["t"])


@pytest.mark.parametrize(
    ("device", "said"),
    [
        pytest.param(
            *("cuda", "sees no CUDA GPU: look at nvidia-smi"),
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU"),
        ),
        pytest.param(
            *("mps", "sees no Apple GPU; take device='cpu'"),
            marks=pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU"),
        ),
        ("meta", "hold no data"),
        ("gpu", "torch knows no such device; give 'cuda'"),
        (object(), "torch knows no such device"),
    ],
)
def test_an_impossible_device_is_refused_when_the_stream_is_made(device: Any, said: str) -> None:
    with penstock.connect("127.0.0.1:1") as client, pytest.raises(penstock.InvalidRequest, match=said):
        client.stream("rows", batch_size=1, device=device)


def test_a_gpu_that_is_one_too_many_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert check_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(penstock.InvalidRequest, match=r"device='cuda:2': there are 2 CUDA GPUs here, from cuda:0"):
        check_device("cuda:2")


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: CI has none")


@gpu
def test_on_a_gpu_every_value_arrives_whatever_the_pool_reuses() -> None:
    carrier = carrier_of("cuda", False, TensorPool(32 << 20))
    begun = carrier.begin(batch(0, 100_000))
    for value in range(50):
        ahead = carrier.begin(batch(value + 1, 100_000))
        got = carrier.finish(begun)
        assert got["x"].is_cuda
        assert bool((got["x"] == value).all()), value
        begun = ahead
    carrier.close()


@gpu
def test_on_a_gpu_the_copy_of_the_next_step_overlaps_with_the_work_on_this_one() -> None:
    """By the GPU's own clock: the copy ends before the work does that was queued before it began."""
    carrier = carrier_of("cuda", False, TensorPool())
    assert isinstance(carrier, SideStream)
    matrix = torch.randn(8192, 8192, device="cuda")
    carrier.finish(carrier.begin(batch(0, 1 << 20)))  # memory and kernels are there
    (matrix @ matrix).sum().item()
    work_began, work_ended, copied = (torch.cuda.Event(enable_timing=True) for _ in range(3))
    work_began.record()
    for _ in range(20):
        matrix @ matrix
    work_ended.record()
    begun = carrier.begin(batch(1, 1 << 20))
    copied.record(carrier._stream)
    got = carrier.finish(begun)
    assert float(got["x"][0, 0].item()) == 1.0
    torch.cuda.synchronize()
    assert work_began.elapsed_time(copied) < work_began.elapsed_time(work_ended)
    carrier.close()
