"""Streams with a device, where there is none but the CPU: the same steps, positions and slots as without one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import penstock
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]


@pytest.mark.every_transport
@pytest.mark.parametrize("pin_memory", [False, True])
def test_a_device_changes_neither_steps_nor_position(serve: Serve, tmp_path: Path, pin_memory: bool) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=3, rows=700), "--bundle-bytes", "8KiB")
    wish: dict[str, Any] = {"batch_size": 32, "seed": 5}
    with penstock.connect(server.target) as client:
        with (
            client.stream("rows", **wish) as plain,
            client.stream("rows", device="cpu", pin_memory=pin_memory, **wish) as there,
        ):
            for _ in range(2):
                for a, b in zip(plain, there, strict=True):
                    assert a.metadata == b.metadata
                    assert all(torch.equal(a[name], b[name]) for name in a if isinstance(a[name], torch.Tensor))
                    ours, theirs = plain.state_dict(), there.state_dict()
                    for state in (ours, theirs):
                        state["cursor"].pop("run")
                    assert ours == theirs
        with client.stream("rows", device="cpu", **wish) as stream:
            first = [stream.get_batch()["id"].tolist() for _ in range(5)]
            state = stream.state_dict()
            rest = stream.get_batch()["id"].tolist()
            stream.load_state_dict(state)
            assert next(iter(stream))["id"].tolist() == rest
            assert rest not in first
            assert len(next(iter(stream.rows()))) > 1, "rows to look at need no device"


def test_slots_come_back_with_a_device_too(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=5000), "--bundle-bytes", "4KiB")
    with penstock.connect(server.target) as client:
        with client.stream("rows", batch_size=16, device="cpu", prefetch_bytes=16 << 10) as stream:
            assert sum(len(batch["id"]) for batch in stream) == 20_000
        in_slots = server.metric("penstock_bytes_sent_total", transport="shm")
        assert in_slots > 0.5 * server.metric("penstock_bytes_sent_total")


def test_bundles_are_received_into_the_pool_that_is_given(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=5000), "--bundle-bytes", "16KiB")
    pool = penstock.TensorPool(8 << 20)
    with penstock.connect(server.target) as client:
        wish: dict[str, Any] = {"batch_size": 100, "transport": "grpc", "prefetch_bytes": 64 << 10}
        with client.stream("rows", tensor_pool=pool, **wish) as stream:
            for _ in range(3):
                for _batch in stream:
                    pass
            told, counters = stream.profile(), pool.counters
        assert (told["buffers_reused"], told["buffers_allocated"]) == (counters.reused, counters.allocated)
        assert counters.reused > 2 * counters.allocated, "each bundle was received into memory of its own"
        assert counters.plain == 0
        tiny = penstock.TensorPool(1000)  # nothing fits: it works all the same
        with client.stream("rows", tensor_pool=tiny, **wish) as stream:
            assert sum(len(batch["id"]) for batch in stream) == 20_000
        assert tiny.counters.plain > 0


def test_batches_that_are_kept_are_never_received_over(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=2000), "--bundle-bytes", "16KiB")
    wish: dict[str, Any] = {"batch_size": 100, "transport": "grpc", "prefetch_bytes": 64 << 10, "seed": 3}
    with penstock.connect(server.target) as client, client.stream("rows", **wish) as stream:
        kept, copied = [], []
        for number, batch in enumerate(stream):
            copied.append(batch["id"].clone())
            kept.append(batch["id"] if number % 3 else None)  # every third is dropped: its memory comes again
            del batch
        assert stream.profile()["buffers_plain"] == 0
    assert len(kept) == 80
    assert all(mine is None or torch.equal(mine, was) for mine, was in zip(kept, copied, strict=True))
