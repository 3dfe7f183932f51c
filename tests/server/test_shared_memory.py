"""Client and server on one host: bundles in shared memory, and the wire where that cannot be."""

import gc
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest

import penstock
from penstock_proto.v1 import PROTOCOL, channel
from penstock_proto.v1 import data_pb2 as pb
from penstock_service.deliver.slots import shared_folder
from tests import datafiles
from tests.keeper import keeper
from tests.running import Running

Serve = Callable[..., Running]


def names(server: Running) -> list[str]:
    return [path.name for path in shared_folder().glob(f"penstock-slots-{server.process.pid}-*")]


def mapped(pid: int) -> int:
    """How many files of slots a process has mapped."""
    return sum("penstock-slots-" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_both_transports_hand_over_the_same_and_say_which_it_is_and_why(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=500))
    with penstock.connect(server.target) as client:
        wish: dict[str, Any] = {"batch_size": 32, "seed": 5, "output": "numpy"}
        with client.stream("rows", **wish) as shm, client.stream("rows", transport="grpc", **wish) as wire:
            for a, b in zip(shm, wire, strict=True):
                assert a.keys() == b.keys()
                assert all(np.array_equal(a[key], b[key]) for key in a)
            assert not names(server), "the names are gone once proven"
            assert (shm.profile()["transport"], wire.profile()["transport"]) == ("shm", "grpc")
            assert shm.profile()["transport_reason"] == "client and server are on one host"
            assert wire.profile()["transport_reason"] == "the client asked for gRPC"
            told = {s["transport"] for s in json.loads(server.get("/api/v1/sessions"))["sessions"]}
            assert told == {"shm", "grpc"}
            assert server.metric("penstock_sessions", transport="shm") == 1
            assert server.metric("penstock_sessions", transport="grpc") == 1
    log = server.log.read_text()
    assert "over shared memory: client and server are on one host" in log
    assert "over gRPC: the client asked for gRPC" in log


def test_the_server_can_turn_it_off(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=100), "--shared-memory", "off")
    with penstock.connect(server.target) as client, client.stream("rows", batch_size=10, output="numpy") as stream:
        assert len(list(stream)) == 10
        assert stream.profile()["transport"] == "tcp"
        assert "--shared-memory off" in str(stream.profile()["transport_reason"])


def test_another_transport_is_refused_where_it_is_asked_for() -> None:
    with penstock.connect("127.0.0.1:1") as client, pytest.raises(penstock.InvalidRequest, match="'tcp' and 'grpc'"):
        client.stream("rows", batch_size=1, transport="shm")  # type: ignore[arg-type]


def test_keeping_every_batch_costs_copies_and_neither_stalls_nor_spoils_them(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=500), "--bundle-bytes", "4KiB")
    with penstock.connect(server.target) as client:
        wish: dict[str, Any] = {"batch_size": 16, "seed": 1, "output": "numpy", "prefetch_bytes": 16 << 10}
        with client.stream("rows", **wish) as stream:
            kept = [batch for _ in range(3) for batch in stream]  # far more than there are slots
        with client.stream("rows", transport="grpc", **wish) as wire:
            again = [batch["id"].copy() for _ in range(3) for batch in wire]
    assert len(kept) == len(again) == 375
    assert all(np.array_equal(batch["id"], ids) for batch, ids in zip(kept, again, strict=True))


def test_slots_come_back_when_the_tensors_are_gone(serve: Serve, tmp_path: Path) -> None:
    """A long epoch over few slots: were they not given back, all but the first bundles would travel by wire."""
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=5000), "--bundle-bytes", "4KiB")
    with penstock.connect(server.target) as client:
        with client.stream("rows", batch_size=16, output="torch", prefetch_bytes=16 << 10) as stream:
            assert sum(len(batch["id"]) for batch in stream) == 20_000
        in_slots = server.metric("penstock_bytes_sent_total", transport="shm")
        assert in_slots > 0.5 * server.metric("penstock_bytes_sent_total")


def test_writing_into_a_batch_harms_nobody(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=2, rows=500))
    with penstock.connect(server.target) as client:
        wish: dict[str, Any] = {"batch_size": 50, "seed": 2, "output": "torch", "reshuffle": False}
        with client.stream("rows", **wish) as one, client.stream("rows", **wish) as other:
            for _ in range(2):
                for mine, theirs in zip(one, other, strict=True):
                    assert bool((mine["id"] == theirs["id"]).all())
                    mine["id"].add_(1_000_000)
                    mine["x"].zero_()


def test_tensors_outlive_stream_client_and_server(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=100))
    with penstock.connect(server.target) as client, client.stream("rows", batch_size=100, shuffle=False) as stream:
        batch = next(iter(stream))
    server.kill()
    assert batch["id"].tolist() == list(range(100))


def test_a_killed_trainer_gives_its_slots_back(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=1000))
    with keeper(server.target, "auto") as transport:
        assert transport == "shm"
        assert mapped(server.process.pid) == 2  # one to write to, far from chunks, and one that gives pages back
    wait_for(lambda: server.metric("penstock_sessions") == 0)
    wait_for(lambda: mapped(server.process.pid) == 0)


def test_neither_side_keeps_a_mapping_of_streams_that_ended(serve: Serve, tmp_path: Path) -> None:
    gc.collect()  # streams that other tests left in cycles
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=1000))
    with penstock.connect(server.target) as client:
        for _ in range(5):
            with client.stream("rows", batch_size=10, output="numpy") as stream:
                next(iter(stream))
        wait_for(lambda: mapped(server.process.pid) == 0)
        assert mapped(os.getpid()) == 0


@pytest.mark.parametrize("nonce", [b"", b"0123456789abcdef"])
def test_without_the_proof_everything_goes_over_the_wire(serve: Serve, tmp_path: Path, nonce: bytes) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=100))
    say: SimpleQueue[pb.ClientMessage | None] = SimpleQueue()
    spec, view = pb.StreamSpec(sources=[pb.Source(dataset="rows")], seed=4), pb.View(global_batch=10, world_size=1)
    window = pb.Credit(steps=10, bytes=1 << 20)
    say.put(
        pb.ClientMessage(
            open=pb.Open(protocol=PROTOCOL, stream=spec, view=view, window=window, transports=["shm", "grpc"])
        )
    )
    with grpc.insecure_channel(server.target, options=channel.CLIENT) as wire:
        answers = wire.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )(iter(say.get, None), timeout=20)
        opened = next(m.opened for m in answers if m.WhichOneof("kind") == "opened")
        path = Path(opened.slots.path)
        assert (opened.transport, path.exists()) == ("shm", True)
        say.put(pb.ClientMessage(proof=pb.Proof(nonce=nonce, reason="another mount")))
        bundle = next(m.bundle for m in answers if m.WhichOneof("kind") == "bundle")
        assert not bundle.HasField("slot")
        size = 0
        while size < bundle.body_bytes:
            size += len(next(m.frame for m in answers if m.WhichOneof("kind") == "frame").data)
        assert not path.exists()
        say.put(None)
    assert "no shared memory: another mount" in server.log.read_text()
