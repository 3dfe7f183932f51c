"""The wire as others see it: health, reflection, credits to the letter, heartbeats, draining."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import grpc
import pyarrow as pa
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from penstock_proto.v1 import PROTOCOL, channel, control_pb2, control_pb2_grpc
from penstock_proto.v1 import data_pb2 as pb
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("protocol")
    data = datafiles.parquet(folder / "rows", shards=2, rows=1000)
    with Running((str(data),), folder / "server") as running:
        yield running


@pytest.fixture
def wire(server: Running) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target, options=channel.CLIENT) as found:
        yield found


class Talk:
    """A session spoken by hand."""

    def __init__(self, wire: grpc.Channel, steps: int, size: int, batch: int = 10) -> None:
        self._say: SimpleQueue[pb.ClientMessage | None] = SimpleQueue()
        view = pb.View(global_batch=batch, rank=0, world_size=1)
        spec = pb.StreamSpec(sources=[pb.Source(dataset="rows")], seed=4)
        window = pb.Credit(steps=steps, bytes=size)
        self.say(pb.ClientMessage(open=pb.Open(protocol=PROTOCOL, stream=spec, view=view, window=window, name="talk")))
        stream = wire.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        self.answers = stream(iter(self._say.get, None), timeout=20)

    def say(self, message: pb.ClientMessage | None) -> None:
        self._say.put(message)

    def next(self, kind: str) -> pb.ServerMessage:
        """The next message of that kind; others that may come at any time are passed over."""
        message: pb.ServerMessage
        for message in self.answers:
            if message.WhichOneof("kind") == kind:
                return message
            assert message.WhichOneof("kind") in ("filling", "heartbeat"), message
        raise AssertionError(f"the stream ended before a message {kind}")

    def body(self, bundle: pb.Bundle) -> bytes:
        data = b""
        while len(data) < bundle.body_bytes:
            data += self.next("frame").frame.data
        return data


def test_steps_never_exceed_the_credit_and_bundles_say_where_they_are(wire: grpc.Channel) -> None:
    talk = Talk(wire, steps=5, size=1 << 20)
    opened = talk.next("opened").opened
    assert (opened.steps, opened.rows, opened.transport) == (200, 2000, "grpc")
    schema = pa.ipc.read_schema(pa.py_buffer(opened.schema))
    assert json.loads(opened.plan)["pool_rows"] == 2000
    assert set(json.loads(opened.fingerprint)) >= {"versions", "weights", "pool"}
    seen = 0
    while seen < 5:
        bundle = talk.next("bundle").bundle
        assert bundle.first_step == seen
        batch = pa.ipc.read_record_batch(pa.py_buffer(talk.body(bundle)), schema)
        assert batch.num_rows == bundle.steps * 10
        seen += bundle.steps
    assert seen == 5
    # The window is spent: nothing but heartbeats comes until credit does.
    talk.say(pb.ClientMessage(credit=pb.Credit(steps=2, bytes=4096)))
    bundle = talk.next("bundle").bundle
    assert (bundle.first_step, bundle.steps) == (5, 2)
    talk.body(bundle)
    talk.say(pb.ClientMessage(close=pb.Close()))
    talk.say(None)
    assert [m for m in talk.answers if m.WhichOneof("kind") == "bundle"] == []


def test_a_step_larger_than_the_window_still_goes(wire: grpc.Channel) -> None:
    talk = Talk(wire, steps=1, size=1, batch=2000)
    talk.next("opened")
    bundle = talk.next("bundle").bundle
    assert bundle.body_bytes > 40_000
    assert len(talk.next("frame").frame.data) == bundle.body_bytes
    talk.say(pb.ClientMessage(credit=pb.Credit(steps=1, bytes=bundle.body_bytes)))
    assert talk.next("epoch_end").epoch_end.steps == 1
    talk.say(None)


def test_an_idle_session_hears_that_the_server_lives(wire: grpc.Channel) -> None:
    talk = Talk(wire, steps=1, size=100)
    talk.next("opened")
    talk.body(talk.next("bundle").bundle)
    assert talk.next("heartbeat").WhichOneof("kind") == "heartbeat"
    talk.say(None)


def test_health_and_reflection_answer(server: Running, wire: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(wire)
    for service in ("", "penstock.v1.Data", "penstock.v1.Control"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(wire)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (listed,) = reflection.ServerReflectionInfo(iter([request]), timeout=5)
    assert {s.name for s in listed.list_services_response.service} >= {"penstock.v1.Data", "penstock.v1.Control"}
    info = control_pb2_grpc.ControlStub(wire).GetServerInfo(control_pb2.GetServerInfoRequest(), timeout=5)
    assert info.protocol_min <= PROTOCOL <= info.protocol_max


def test_draining_is_said_in_band_and_readiness_ends(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 1, 1000))
    assert json.loads(server.get("/readyz?verbose"))
    with grpc.insecure_channel(server.target, options=channel.CLIENT) as wire:
        talk = Talk(wire, steps=3, size=1 << 20)
        talk.next("opened")
        server.process.terminate()
        kinds = [m.WhichOneof("kind") for m in talk.answers]
        assert kinds[-1] == "draining"
        server.process.wait(20)
    assert server.stop() == 0


def test_a_second_open_is_refused_between_two_bundles_and_not_within_one(wire: grpc.Channel) -> None:
    talk = Talk(wire, steps=2000, size=64 << 20)
    talk.next("opened")
    talk.say(pb.ClientMessage(open=pb.Open(protocol=PROTOCOL)))
    to_come = 0
    for message in talk.answers:
        kind = message.WhichOneof("kind")
        if kind == "frame":
            to_come -= len(message.frame.data)
            continue
        assert to_come == 0, f"{kind} within a bundle"
        if kind == "bundle":
            to_come = message.bundle.body_bytes
        elif kind == "error":
            break
    assert "a second Open on one stream" in message.error.message
