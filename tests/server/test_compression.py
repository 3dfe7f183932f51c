"""Compression on the real wire, by counting the bytes that pass through a proxy."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import penstock
from penstock.subscription import Transport
from tests.faults import Proxy
from tests.running import Running

Serve = Callable[..., Running]
WIDTH = 1024


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[int], Path]:
    """A dataset of rows of 8 KiB that pack well."""

    def make(count: int) -> Path:
        folder = tmp_path / "rows"
        folder.mkdir()
        values = np.repeat(np.arange(count, dtype=np.int64), WIDTH) + np.tile(np.arange(WIDTH) % 7, count)
        x = pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)
        pa.parquet.write_table(pa.table({"x": x}), folder / "a.parquet")
        return folder

    return make


@dataclass
class Route:
    """Two proxies before a server: of the gRPC stream, and of payload sockets."""

    server: Running
    control: Proxy
    payload: Proxy

    def trickle(self, rate: float) -> None:
        for proxy in (self.control, self.payload):
            proxy.trickle(rate)

    @property
    def passed(self) -> int:
        return self.control.passed + self.payload.passed


@pytest.fixture
def route(serve: Serve) -> Iterator[Callable[..., Route]]:
    with ExitStack() as stack:

        def lay(data: Path, source: str = "127.0.0.1") -> Route:
            payload = stack.enter_context(Proxy(source=source))
            server = serve(data, "--payload-advertise", payload.target)
            payload.upstream = server.payload
            return Route(server, stack.enter_context(Proxy(server.target, source)), payload)

        yield lay


@pytest.mark.parametrize("transport", ["tcp", "grpc"])
def test_every_codec_brings_the_same_rows_in_fewer_bytes(
    route: Callable[..., Route], rows: Callable[[int], Path], transport: Transport
) -> None:
    way = route(rows(1000))
    passed, seen = {}, {}
    for codec in ("none", "lz4", "zstd"):
        before = way.passed
        with (
            penstock.connect(way.control.target) as client,
            client.stream(
                *("rows",),
                batch_size=64,
                seed=3,
                output="numpy",
                transport=transport,
                compression=codec,
            ) as stream,
        ):
            seen[codec] = np.concatenate([batch["x"] for batch in stream])
            profile = stream.profile()
        passed[codec] = way.passed - before
        assert (profile["compression"], profile["transport"]) == (codec, transport)
        assert float(profile["wire_bytes"]) < passed[codec] + 1000
        assert float(profile["bytes"]) > 8_000_000
    assert np.array_equal(seen["none"], seen["lz4"])
    assert np.array_equal(seen["none"], seen["zstd"])
    assert passed["none"] > 8_000_000 > 3 * passed["lz4"]
    assert passed["zstd"] < passed["none"] / 3
    assert (way.payload.passed > way.control.passed) is (transport == "tcp")


@pytest.mark.parametrize("transport", ["tcp", "grpc"])
def test_by_itself_it_compresses_on_a_slow_link_and_says_so(
    route: Callable[..., Route], rows: Callable[[int], Path], transport: Transport
) -> None:
    way = route(rows(8000), "127.0.0.2")
    way.trickle(16e6)
    with (
        penstock.connect(way.control.target) as client,
        client.stream("rows", batch_size=64, output="numpy", prefetch_bytes=8 << 20, transport=transport) as stream,
    ):
        for batch in stream:
            assert (batch["x"] - batch["x"][:, :1] == np.arange(WIDTH) % 7).all()
        profile = stream.profile()
        told = json.loads(way.server.get("/api/v1/sessions"))["sessions"]
        assert way.passed < 0.8 * float(profile["bytes"])
    assert profile["transport"] == transport
    assert profile["compression"] in ("lz4", "zstd")
    assert "the link carries" in str(profile["compression_reason"])
    assert [session["compression"] in ("lz4", "zstd") for session in told] == [True]  # by now perhaps the other one
    assert f"compression {profile['compression']}: the link carries" in way.server.log.read_text()


def test_on_one_host_nothing_is_compressed_by_itself(serve: Serve, rows: Callable[[int], Path]) -> None:
    server = serve(rows(10))
    with penstock.connect(server.target) as client:
        for transport in ("auto", "tcp", "grpc"):
            with client.stream("rows", batch_size=5, output="numpy", transport=transport) as stream:
                next(iter(stream))
                profile = stream.profile()
            assert (profile["compression"], profile["compression_reason"]) == (
                *("none", "client and server are on one host"),
            )


def test_a_codec_that_is_none_is_refused_at_once() -> None:
    wrong: Any = "gzip"
    with penstock.connect("127.0.0.1:1") as client, pytest.raises(penstock.InvalidRequest, match="compression='gzip'"):
        client.stream("rows", batch_size=1, compression=wrong)
