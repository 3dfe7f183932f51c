"""SIGTERM, step by step: not ready, told in-band, the bundle in hand is finished, clients hold and come back."""

import itertools
import json
import signal
import socket
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import penstock
from penstock_proto.v1 import channel
from penstock_proto.v1 import data_pb2 as pb
from tests import datafiles
from tests.running import Running
from tests.training import Trainer

Serve = Callable[..., Running]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    """120 MB: more than the network's buffers hold."""
    folder = tmp_path / "big"
    folder.mkdir()
    blob = pa.array([bytes(1_000_000)] * 120)
    pq.write_table(pa.table({"id": np.arange(120), "blob": blob}), folder / "0.parquet", row_group_size=20)
    return folder


@pytest.fixture(params=["grpc", "tcp"])
def stalled(serve: Serve, big: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Running, Trainer]]:
    """A server in the middle of a bundle to a trainer that is stopped: its stream cannot end in order."""
    server = serve(big, "--grace", "6", "--bundle-bytes", "64MiB")
    wish: dict[str, Any] = {"columns": ["id", "blob"], "batch_size": 60, "prefetch_bytes": 1 << 30}
    wish["transport"] = request.param
    with Trainer(server.target, "big", name="s", **wish) as trainer:
        trainer.step()
        trainer.process.send_signal(signal.SIGSTOP)
        while json.loads(server.get("/api/v1/sessions"))["sessions"][0]["state"] != "sending":
            time.sleep(0.05)
        yield server, trainer


def readiness(server: Running) -> tuple[int, dict[str, Any]]:
    try:
        return 200, json.loads(server.get("/readyz"))
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_draining_server_says_so_everywhere_and_ends_with_0_within_its_grace(
    stalled: tuple[Running, Trainer],
) -> None:
    server, trainer = stalled
    assert readiness(server)[0] == 200
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    while readiness(server)[0] == 200:
        assert time.monotonic() - began < 6
    assert readiness(server) == (503, {"ready": False, "failing": ["not draining"]})
    assert json.loads(server.get("/livez")) == {"live": True}
    with grpc.insecure_channel(server.target, options=channel.CLIENT) as wire:
        health = health_pb2_grpc.HealthStub(wire)
        for service in ("", "penstock.v1.Data", "penstock.v1.Control"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        stream = wire.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        (only,) = stream(iter([pb.ClientMessage(open=pb.Open(protocol=1))]), timeout=5)
        assert only.draining.retry_after_ms > 0
        assert "asked to stop" in only.draining.reason
    assert server.process.poll() is None  # the stalled stream is waited for
    assert server.process.wait(20) == 0
    assert time.monotonic() - began <= 6 + 3  # its grace, and what a busy machine adds
    trainer.process.send_signal(signal.SIGCONT)
    server.stop()


def test_a_second_signal_ends_it_at_once(stalled: tuple[Running, Trainer]) -> None:
    server, _ = stalled
    server.process.send_signal(signal.SIGTERM)
    while readiness(server)[0] == 200:
        pass
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 130  # it would be 0 at the end of the grace
    server.stop()


def test_with_clients_that_listen_it_ends_at_once_and_they_lose_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=500))
    with (
        Trainer(server.target, "rows", name="idle", batch_size=10, prefetch=4) as idle,
        Trainer(server.target, "rows", name="reading", batch_size=10, prefetch=4) as reading,
    ):
        expected = reading.ask("rest")
        got = [idle.step() for _ in range(3)]
        reading.tell("rest")
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 15  # the grace is 20
        server.start()
        assert got + idle.ask("rest") == expected
        second = reading.hear()
        assert sorted(i for step in second for i in step) == list(range(2000))
        assert idle.ask("reconnects") == 1


def test_a_client_holds_as_long_as_it_is_asked_to() -> None:
    """A server that is always draining, and notes when it is asked."""
    asked: list[float] = []
    enough = threading.Event()

    def drain(requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        next(requests)
        asked.append(time.monotonic())
        if len(asked) == 3:
            enough.set()
        yield pb.ServerMessage(draining=pb.Draining(retry_after_ms=700, reason="a test")).SerializeToString()

    server = grpc.server(ThreadPoolExecutor(4))
    handler = grpc.stream_stream_rpc_method_handler(drain)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("penstock.v1.Data", {"Stream": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with penstock.connect(f"127.0.0.1:{port}") as client:
            stream = client.stream("rows", batch_size=1, output="numpy", reconnect_timeout=4)
            with pytest.raises(penstock.ServerDraining, match="a test"):
                stream.get_batch()
    finally:
        server.stop(None).wait()
    assert enough.is_set()
    gaps = [later - sooner for sooner, later in itertools.pairwise(asked)]
    assert min(gaps[:-1]) >= 0.7  # the last one is cut short by the end of trying


def test_draining_ends_while_a_client_that_never_says_open_is_connected(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=10), "--grace", "15")
    host, port = server.target.split(":")
    with socket.create_connection((host, int(port))), grpc.insecure_channel(server.target) as wire:
        silent = threading.Event()
        stream = wire.stream_stream("/penstock.v1.Data/Stream")(iter(silent.wait, True), timeout=20)
        began = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 10
        silent.set()
        stream.cancel()
