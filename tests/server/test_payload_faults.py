"""A network that breaks payload connections alone, while the gRPC stream beside them lives."""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import penstock
from penstock import receiver
from tests import datafiles
from tests.faults import Proxy
from tests.running import Running

ROWS = 6000


@dataclass
class Scene:
    """A server whose payload port is reached through a proxy only."""

    server: Running
    proxy: Proxy
    whole: list[int]

    def stream(self, client: penstock.Client, **wish: Any) -> penstock.Stream:
        kept = {"batch_size": 10, "output": "numpy", "pool_rows": 1500, "prefetch": 40, "transport": "tcp"}
        return client.stream("rows", **{**kept, **wish})

    def sessions(self) -> list[dict[str, Any]]:
        return list(json.loads(self.server.get("/api/v1/sessions"))["sessions"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("payload")
    data = datafiles.parquet(folder / "rows", shards=6, rows=ROWS // 6)
    with Proxy() as proxy:
        flags = ("--bundle-bytes", "16KiB", "--frame-bytes", "4KiB", "--payload-advertise", proxy.target)
        with Running((str(data),), folder / "server", flags) as server:
            proxy.upstream = server.payload
            scene = Scene(server, proxy, [])
            with penstock.connect(server.target) as client, scene.stream(client, transport="grpc") as stream:
                scene.whole = ids(stream)
            yield scene


@pytest.fixture
def scene(served: Scene) -> Iterator[Scene]:
    served.proxy.heal()
    yield served
    assert wait_for(lambda: served.sessions() == [])
    served.proxy.reset()
    assert "ended by a bug" not in served.server.log.read_text()


def ids(stream: penstock.Stream) -> list[int]:
    return [int(i) for batch in stream for i in batch["id"]]


def wait_for(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("fault", ["cut", "reset", "reset in mid-body"])
def test_sockets_that_break_at_any_byte_lose_and_double_nothing(scene: Scene, fault: str) -> None:
    dice = random.Random(fault)
    with penstock.connect(scene.server.target) as client, scene.stream(client) as stream:
        got: list[int] = []
        at = dice.randrange(500)
        for batch in stream:
            got += batch["id"].tolist()
            if len(got) > at:
                at += dice.randrange(200, 800)
                scene.proxy.strike(fault, dice.randrange(10_000))
        assert got == scene.whole
        assert int(stream.profile()["reconnects"]) >= 3
        assert stream.profile()["transport"] == "tcp"


def test_a_socket_that_trickles_or_is_late_only_takes_longer(scene: Scene) -> None:
    with penstock.connect(scene.server.target) as client, scene.stream(client) as stream:
        got: list[int] = []
        for number, batch in enumerate(stream):
            got += batch["id"].tolist()
            if number == 50:
                scene.proxy.trickle(100_000)
            elif number == 200:
                scene.proxy.trickle(None)
                scene.proxy.delay(0.02)
        assert got == scene.whole
        assert (stream.profile()["reconnects"], stream.profile()["transport"]) == (0, "tcp")


def test_a_socket_that_goes_silent_is_given_up_and_not_used_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with penstock.connect(scene.server.target) as client, scene.stream(client) as stream:
        got = next(steps := iter(stream))["id"].tolist()
        assert stream.profile()["transport"] == "tcp"
        monkeypatch.setattr(receiver, "SILENCE", 2.0)
        scene.proxy.half_open()
        with scene.stream(client, transport="grpc", name="beside it") as other:
            assert ids(other) == scene.whole, "nobody else is disturbed"
        got += [int(i) for batch in steps for i in batch["id"]]
        assert got == scene.whole
        assert stream.profile()["transport"] == "grpc"
        assert "went silent within a bundle" in str(stream.profile()["transport_reason"])
        assert int(stream.profile()["reconnects"]) >= 1


def test_a_proxy_that_refuses_leaves_grpc_and_says_so(scene: Scene) -> None:
    with penstock.connect(scene.server.target) as client, scene.stream(client) as stream:
        got = next(steps := iter(stream))["id"].tolist()
        scene.proxy.refuse()
        got += [int(i) for batch in steps for i in batch["id"]]
        assert got == scene.whole
        assert stream.profile()["transport"] == "grpc"
        assert "no payload socket" in str(stream.profile()["transport_reason"])
        assert int(stream.profile()["reconnects"]) >= 1
        [session] = scene.sessions()
        assert session["transport"] == "grpc"
        assert "no payload socket" in session["transport_reason"]


def test_a_stream_whose_grpc_breaks_lets_its_socket_go(scene: Scene) -> None:
    with (
        Proxy(scene.server.target) as control,
        penstock.connect(control.target) as client,
        scene.stream(client) as stream,
    ):
        got: list[int] = []
        for number, batch in enumerate(stream):
            got += batch["id"].tolist()
            if number % 150 == 100:
                control.reset()
        assert got == scene.whole
        assert int(stream.profile()["reconnects"]) >= 3
        assert stream.profile()["transport"] == "tcp"
        assert wait_for(lambda: scene.proxy.live <= 1)
    assert wait_for(lambda: scene.proxy.live == 0)
