"""Bundles over a TCP socket of their own, and gRPC where that cannot be."""

import contextlib
import gc
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

import penstock
from penstock.subscription import Transport
from penstock_proto.v1 import PROTOCOL, channel, payload
from penstock_proto.v1 import data_pb2 as pb
from tests import datafiles
from tests.keeper import keeper
from tests.running import DidNotStart, Running

Serve = Callable[..., Running]

WISH: dict[str, Any] = {"batch_size": 32, "seed": 5, "output": "numpy"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def connections(pid: int, port: int) -> int:
    """Payload connections that a process has, at either end."""
    found = psutil.Process(pid).net_connections("tcp")
    return sum(1 for c in found if c.raddr and port in (c.laddr.port, c.raddr.port) and c.status == "ESTABLISHED")


def port_of(server: Running) -> int:
    return int(server.payload.rpartition(":")[2])


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def sessions(server: Running) -> list[dict[str, Any]]:
    return list(json.loads(server.get("/api/v1/sessions"))["sessions"])


def test_it_hands_over_the_same_as_the_others_and_says_which_it_is_and_why(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=500))
    with penstock.connect(server.target) as client:
        over: tuple[Transport, ...] = ("auto", "tcp", "grpc")
        shm, tcp, wire = (client.stream("rows", transport=transport, **WISH) for transport in over)
        with shm, tcp, wire:
            for a, b, c in zip(shm, tcp, wire, strict=True):
                assert a.keys() == b.keys() == c.keys()
                assert all(np.array_equal(a[key], b[key]) and np.array_equal(a[key], c[key]) for key in a)
            assert [stream.profile()["transport"] for stream in (shm, tcp, wire)] == ["shm", "tcp", "grpc"]
            assert tcp.profile()["transport_reason"] == "the client asked for TCP"
            assert {s["transport"] for s in sessions(server)} == {"shm", "tcp", "grpc"}
            taken, came = int(tcp.profile()["bytes"]), int(tcp.profile()["wire_bytes"])
            sent = server.metric("penstock_bytes_sent_total", transport="tcp")
            assert server.metric("penstock_sessions", transport="tcp") == 1
            assert taken < came <= sent + payload.HEAD * server.metric("penstock_bundles_sent_total")
    assert "over a TCP socket: the client asked for TCP" in server.log.read_text()


def test_where_shared_memory_cannot_be_it_is_tcp_and_where_both_are_off_grpc(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.parquet(tmp_path / "rows", shards=1, rows=100)
    server = serve(data, "--shared-memory", "off")
    with penstock.connect(server.target) as client, client.stream("rows", **WISH) as stream:
        assert len(list(stream)) == 4
        assert stream.profile()["transport"] == "tcp"
        assert "--shared-memory off" in str(stream.profile()["transport_reason"])
    off = serve(data, "--shared-memory", "off", "--payload", "off", folder="off")
    assert off.payload == "off"
    with penstock.connect(off.target) as client, client.stream("rows", **WISH) as stream:
        assert len(list(stream)) == 4
        assert stream.profile()["transport"] == "grpc"
        assert "--payload off" in str(stream.profile()["transport_reason"])


def test_a_port_can_be_pinned_and_one_that_is_taken_is_a_clear_error(serve: Serve, tmp_path: Path) -> None:
    data, number = datafiles.parquet(tmp_path / "rows", shards=1, rows=100), free_port()
    server = serve(data, "--payload", number)
    assert server.payload == f"127.0.0.1:{number}"
    with pytest.raises(DidNotStart, match=rf"cannot listen on 127.0.0.1, port {number}, for payload") as refused:
        serve(data, "--payload", number, folder="second")
    assert refused.value.code == 1
    assert server.stop() == 0
    server.start()  # nothing of the first keeps the port
    assert server.payload == f"127.0.0.1:{number}"


def test_an_address_that_nobody_listens_at_costs_nothing_but_the_socket(serve: Serve, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    server = serve(
        datafiles.parquet(tmp_path / "rows", shards=1, rows=100),
        "--payload-advertise",
        nowhere,
        "--shared-memory",
        "off",
    )
    reason = f"no payload socket: {nowhere}: Connection refused"
    with penstock.connect(server.target) as client, client.stream("rows", **WISH) as stream:
        assert len(list(stream)) == 4
        assert (stream.profile()["transport"], stream.profile()["transport_reason"]) == ("grpc", reason)
        [session] = sessions(server)
        assert (session["transport"], session["transport_reason"]) == ("grpc", reason)
        assert server.metric("penstock_bytes_sent_total", transport="grpc") > 0
    assert f"over gRPC: {reason}" in server.log.read_text()


@pytest.mark.parametrize("proof", [pb.Proof(reason="no payload socket: a wall"), pb.Proof(socket=True)])
def test_without_the_proof_everything_goes_over_grpc(serve: Serve, tmp_path: Path, proof: pb.Proof) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=100))
    say: SimpleQueue[pb.ClientMessage | None] = SimpleQueue()
    spec, view = pb.StreamSpec(sources=[pb.Source(dataset="rows")], seed=4), pb.View(global_batch=10, world_size=1)
    wish: dict[str, Any] = {
        "stream": spec,
        "view": view,
        "window": pb.Credit(steps=10, bytes=1 << 20),
        "transports": ["tcp", "grpc"],
    }
    say.put(pb.ClientMessage(open=pb.Open(protocol=PROTOCOL, **wish)))
    with grpc.insecure_channel(server.target, options=channel.CLIENT) as wire:
        answers = wire.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )(iter(say.get, None), timeout=20)
        opened = next(m.opened for m in answers if m.WhichOneof("kind") == "opened")
        assert (opened.transport, opened.payload.host, len(opened.payload.nonce)) == ("tcp", "", payload.NONCE)
        assert opened.payload.port == port_of(server)
        say.put(pb.ClientMessage(proof=proof))
        bundle = next(m.bundle for m in answers if m.WhichOneof("kind") == "bundle")
        assert not bundle.socket
        assert len(next(m.frame for m in answers if m.WhichOneof("kind") == "frame").data) == bundle.body_bytes
        with socket.create_connection(("127.0.0.1", opened.payload.port), timeout=20) as late:
            late.sendall(payload.HELLO + opened.payload.nonce)
            with contextlib.suppress(ConnectionResetError):
                assert late.recv(1) == b"", "what was not taken is not offered any more"
        say.put(None)
    assert f"over gRPC: {proof.reason or 'the proof is wrong'}" in server.log.read_text()


@pytest.mark.parametrize("last", ["close", "keep"])
def test_a_fork_leaves_the_parents_connection_alone(serve: Serve, tmp_path: Path, last: str) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=2, rows=1000))
    with penstock.connect(server.target) as client:
        with client.stream("rows", batch_size=10, transport="tcp", prefetch=4, output="numpy") as whole:
            golden = [batch["id"].tolist() for batch in whole]
        with client.stream("rows", batch_size=10, transport="tcp", prefetch=4, output="numpy") as stream:
            steps = iter(stream)
            got = [next(steps)["id"].tolist()]
            child = os.fork()
            if child == 0:
                right = False
                try:
                    right = [next(steps)["id"].tolist() for _ in range(20)] == golden[1:21]
                    if last == "close":
                        stream.close()
                finally:
                    os._exit(0 if right else 1)
            assert os.waitpid(child, 0)[1] == 0
            got += [batch["id"].tolist() for batch in steps]
            assert stream.profile()["reconnects"] == 0
    assert got == golden


def test_a_killed_trainer_leaves_no_connection(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=1000))
    with keeper(server.target, "tcp") as transport:
        assert transport == "tcp"
        pid, port = server.process.pid, port_of(server)
        assert connections(pid, port) == 1
    wait_for(lambda: sessions(server) == [])
    wait_for(lambda: connections(pid, port) == 0)


def test_a_killed_server_is_come_back_to_over_tcp_and_no_row_is_lost(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=2, rows=1000), "--bundle-bytes", "4KiB")
    with penstock.connect(server.target) as client:
        wish: dict[str, Any] = {"batch_size": 10, "output": "numpy", "transport": "tcp", "prefetch": 8}
        with client.stream("rows", **wish) as whole:
            golden = [batch["id"].tolist() for batch in whole]
        with client.stream("rows", **wish) as stream:
            got = []
            for number, batch in enumerate(stream):
                got.append(batch["id"].tolist())
                if number in (20, 90):
                    server.kill()
                    server.start()
            assert stream.profile()["transport"] == "tcp"
            assert stream.profile()["reconnects"] == 2
    assert got == golden


def test_neither_side_keeps_a_connection_of_streams_that_ended(serve: Serve, tmp_path: Path) -> None:
    gc.collect()  # streams that other tests left in cycles
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=1000))
    port = port_of(server)
    with penstock.connect(server.target) as client:
        for _ in range(5):
            with client.stream("rows", batch_size=10, output="numpy", transport="tcp") as stream:
                next(iter(stream))
                assert connections(os.getpid(), port) == 1
            assert connections(os.getpid(), port) == 0
        wait_for(lambda: connections(server.process.pid, port) == 0)
