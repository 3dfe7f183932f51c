"""How well a stream was mixed, as operators see it: log, HTTP, metrics, command line."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import penstock
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]


def test_an_epoch_that_was_mixed_says_how_well(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=20, rows=1000))
    with penstock.connect(server.target) as client:
        pooled = client.stream("rows", batch_size=500, output="numpy", pool_rows=8000, seed=1, prefetch=2)
        for _ in pooled:
            pass
        plain = client.stream("rows", batch_size=500, output="numpy", shuffle=False, name="plain")
        next(iter(plain))
        streams = {s["shuffle"]: s for s in json.loads(server.get("/api/v1/streams"))["streams"]}
        found = streams[True]
        version = client.get("rows").version
        assert (found["datasets"], found["seed"], found["sessions"]) == ([f"rows@{version}"], 1, 1)
        assert (found["pool_rows"], found["drain"], found["rows"]) == (8000, 2000, 20_000)
        assert streams[False]["epochs"] == []
        epoch = found["epochs"][0]
        assert (epoch["epoch"], epoch["segments"], epoch["of_segments"]) == (0, found["segments"], found["segments"])
        assert epoch["window"] == 1500
        assert epoch["shards_ideal"] == pytest.approx(20.0, abs=0.01)
        assert epoch["adjacent_ideal"] == pytest.approx(0.05, abs=0.001)
        assert 8 < epoch["shards"] < 20
        assert 0.05 < epoch["adjacent"] < 0.3
        assert abs(epoch["rank_correlation"]) < 0.9
        assert server.metric("penstock_mix_shards_ratio", stream="rows") == pytest.approx(
            epoch["shards"] / epoch["shards_ideal"]
        )
        excess = server.metric("penstock_mix_adjacent_excess", stream="rows")
        assert excess == pytest.approx(epoch["adjacent"] - epoch["adjacent_ideal"])
        assert server.metric("penstock_mix_rank_correlation", stream="rows") == epoch["rank_correlation"]
        told = [line for line in server.log.read_text().splitlines() if "rows, epoch 0 was mixed" in line]
        assert len(told) == 1
        assert f"{epoch['shards']:.1f} distinct shards in 1500 rows (a perfect shuffle has 20.0)" in told[0]
        command = [sys.executable, "-m", "penstock_service", "streams", "--http", server.http]
        printed = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        assert f"{epoch['shards']:.1f} of 20.0" in printed
        assert "by-passed" in printed
        as_json = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60).stdout)
        assert {s["shuffle"]: s for s in as_json["streams"]}[True]["epochs"][0] == epoch


def test_a_dataset_that_fits_the_pool_is_mixed_perfectly_and_one_of_one_shard_cannot_be_otherwise(
    serve: Serve, tmp_path: Path
) -> None:
    data = [datafiles.parquet(tmp_path / "many", 20, 1000), datafiles.parquet(tmp_path / "one", 1, 3000)]
    server = serve(*data)
    with penstock.connect(server.target) as client:
        for name in ("many", "one"):
            for _ in client.stream(name, batch_size=500, output="numpy", seed=1):
                pass
    streams = json.loads(server.get("/api/v1/streams"))["streams"]
    epochs = {s["datasets"][0].partition("@")[0]: s["epochs"][0] for s in streams}
    assert epochs["many"]["shards"] == pytest.approx(epochs["many"]["shards_ideal"], rel=0.02)
    assert epochs["many"]["adjacent"] == pytest.approx(epochs["many"]["adjacent_ideal"], rel=0.2)
    assert abs(epochs["many"]["rank_correlation"]) < 0.05
    assert (epochs["one"]["shards"], epochs["one"]["shards_ideal"]) == (1.0, pytest.approx(1.0))
    assert abs(epochs["one"]["rank_correlation"]) < 0.1


def test_an_epoch_resumed_in_the_middle_says_what_was_measured_of_it(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=20, rows=1000))
    with penstock.connect(server.target) as client:
        stream = client.stream("rows", batch_size=500, output="numpy", pool_rows=8000, seed=1, prefetch=2)
        for batch in stream:
            if batch.metadata.step == 25:
                break
        state = stream.state_dict()
        stream.close()
        server.stop()
        server.start()
        resumed = client.stream("rows", batch_size=500, output="numpy", pool_rows=8000, seed=1, prefetch=2)
        resumed.load_state_dict(state)
        assert len(list(resumed)) == 14
        epoch = json.loads(server.get("/api/v1/streams"))["streams"][0]["epochs"][0]
        assert 0 < epoch["segments"] < epoch["of_segments"]
        assert (
            f"epoch 0 was mixed (of {epoch['segments']} of its {epoch['of_segments']} segments)"
            in server.log.read_text()
        )
