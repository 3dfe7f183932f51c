"""A network that breaks, between a real client and a real server: rows come once, and the end of patience is clear."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator

import pytest

import penstock
from penstock.subscription import Transport
from tests import datafiles
from tests.faults import Proxy
from tests.running import Running

ROWS = 6000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("faults")
    data = datafiles.parquet(folder / "rows", shards=6, rows=ROWS // 6)
    flags = ("--bundle-bytes", "16KiB", "--frame-bytes", "4KiB")
    with Running((str(data),), folder / "server", flags) as running:
        yield running


@pytest.fixture(scope="module")
def whole(server: Running) -> list[int]:
    with penstock.connect(server.target) as client, stream_of(client) as stream:
        return ids(stream)


@pytest.fixture
def proxy(server: Running) -> Iterator[Proxy]:
    with Proxy(server.target) as found:
        yield found


def stream_of(
    client: penstock.Client, prefetch: int = 40, patience: float = 60.0, transport: Transport = "grpc"
) -> penstock.Stream:
    return client.stream(
        "rows",
        batch_size=10,
        output="numpy",
        pool_rows=1500,
        prefetch=prefetch,
        reconnect_timeout=patience,
        transport=transport,
    )


def ids(stream: penstock.Stream) -> list[int]:
    return [int(i) for batch in stream for i in batch["id"]]


def sessions(server: Running) -> int:
    return len(json.loads(server.get("/api/v1/sessions"))["sessions"])


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("transport", ["grpc", "auto"])
@pytest.mark.parametrize("fault", ["cut", "reset", "reset in mid-message"])
def test_connections_that_break_at_any_byte_lose_and_double_nothing(
    server: Running, proxy: Proxy, whole: list[int], fault: str, transport: Transport
) -> None:
    """Over gRPC the rows are on the connection that breaks; beside shared memory only words are."""
    dice = random.Random(fault)
    with penstock.connect(proxy.target) as client, stream_of(client, transport=transport) as stream:
        got: list[int] = []
        at = dice.randrange(500)
        for batch in stream:
            got += batch["id"].tolist()
            if len(got) > at:
                at += dice.randrange(200, 800)
                proxy.strike(fault, dice.randrange(10_000 if transport == "grpc" else 300))
        assert got == whole
        assert int(stream.profile()["reconnects"]) >= 3
    assert "ended by a bug" not in server.log.read_text()
    assert wait_for(lambda: sessions(server) == 0, 10)


def test_a_connection_that_trickles_or_is_late_only_takes_longer(proxy: Proxy, whole: list[int]) -> None:
    with penstock.connect(proxy.target) as client, stream_of(client) as stream:
        got: list[int] = []
        for number, batch in enumerate(stream):
            got += batch["id"].tolist()
            if number == 50:
                proxy.trickle(100_000)
            elif number == 200:
                proxy.trickle(None)
                proxy.delay(0.02)
        assert got == whole
        assert stream.profile()["reconnects"] == 0


def test_other_sessions_go_on_while_one_connection_breaks_again_and_again(
    server: Running, proxy: Proxy, whole: list[int]
) -> None:
    broken: list[int] = []

    def read() -> None:
        with penstock.connect(proxy.target, job="broken") as client, stream_of(client) as stream:
            broken.extend(ids(stream))

    reader = threading.Thread(target=read)
    reader.start()
    with penstock.connect(server.target) as client, stream_of(client, prefetch=1) as stream:
        slowest, got, before = 0.0, [], time.monotonic()
        for number, batch in enumerate(stream):
            got += batch["id"].tolist()
            slowest, before = max(slowest, time.monotonic() - before), time.monotonic()
            if number % 20 == 0:
                proxy.reset()
        assert got == whole
        assert stream.profile()["reconnects"] == 0
        assert slowest < 10
    reader.join(60)
    assert broken == whole


def test_patience_ends_with_a_clear_error_and_the_stream_goes_on_when_the_server_is_back(
    proxy: Proxy, whole: list[int]
) -> None:
    with penstock.connect(proxy.target) as client, stream_of(client, prefetch=4, patience=1.5) as stream:
        iterator = iter(stream)
        got = next(iterator)["id"].tolist()
        proxy.refuse()
        began = time.monotonic()
        with pytest.raises(penstock.ServerUnavailable, match=r"gave up after \d+ attempts in \d+ s"):  # noqa: PT012
            while True:
                got += next(iterator)["id"].tolist()
        assert time.monotonic() - began < 20
        assert got == whole[: len(got)]
        proxy.heal()
        assert got + [int(i) for batch in iterator for i in batch["id"]] == whole
