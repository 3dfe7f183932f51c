"""Compression on the real wire, by counting the bytes that pass through a proxy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

import penstock
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


def test_every_codec_brings_the_same_rows_in_fewer_bytes(serve: Serve, rows: Callable[[int], Path]) -> None:
    server = serve(rows(1000))
    passed, seen = {}, {}
    for codec in ("none", "lz4", "zstd"):
        with Proxy(server.target) as proxy, penstock.connect(proxy.target) as client:
            with client.stream(
                *("rows",),
                batch_size=64,
                seed=3,
                output="numpy",
                transport="grpc",
                compression=codec,
            ) as stream:
                seen[codec] = np.concatenate([batch["x"] for batch in stream])
                profile = stream.profile()
            passed[codec] = proxy.passed
        assert (profile["compression"], profile["transport"]) == (codec, "grpc")
        assert float(profile["wire_bytes"]) < passed[codec] + 1000
        assert float(profile["bytes"]) > 8_000_000
    assert np.array_equal(seen["none"], seen["lz4"])
    assert np.array_equal(seen["none"], seen["zstd"])
    assert passed["none"] > 8_000_000 > 3 * passed["lz4"]
    assert passed["zstd"] < passed["none"] / 3


def test_by_itself_it_compresses_on_a_slow_link_and_says_so(serve: Serve, rows: Callable[[int], Path]) -> None:
    server = serve(rows(8000))
    with Proxy(server.target, source="127.0.0.2") as proxy, penstock.connect(proxy.target) as client:
        proxy.trickle(16e6)
        with client.stream("rows", batch_size=64, output="numpy", prefetch_bytes=8 << 20) as stream:
            for batch in stream:
                assert (batch["x"] - batch["x"][:, :1] == np.arange(WIDTH) % 7).all()
            profile = stream.profile()
            told = json.loads(server.get("/api/v1/sessions"))["sessions"]
        assert proxy.passed < 0.8 * float(profile["bytes"])
    assert profile["compression"] in ("lz4", "zstd")
    assert "the link carries" in str(profile["compression_reason"])
    assert [session["compression"] in ("lz4", "zstd") for session in told] == [True]  # by now perhaps the other one
    assert f"compression {profile['compression']}: the link carries" in server.log.read_text()


def test_on_one_host_nothing_is_compressed_by_itself(serve: Serve, rows: Callable[[int], Path]) -> None:
    server = serve(rows(10))
    with penstock.connect(server.target) as client:
        for transport in ("auto", "grpc"):
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
