"""Jobs as operators see them, from real trainers: in the API, the metrics and the log."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import datafiles
from tests.running import Running
from tests.training import Trainer

Serve = Callable[..., Running]


def stream_of(server: Running, job: str) -> dict[str, Any]:
    jobs = {j["job"]: j for j in json.loads(server.get("/api/v1/jobs"))["jobs"]}
    (stream,) = jobs[job]["streams"]
    found: dict[str, Any] = stream
    return found


def wait_for(server: Running, job: str, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        stream = stream_of(server, job)
        if right(stream):
            return stream
        assert time.monotonic() < deadline, stream
        time.sleep(0.1)


def wait_for_log(server: Running, said: str, times: int) -> None:
    """It is said a moment later, and never once more than it should be."""
    deadline = time.monotonic() + 10
    while (count := server.log.read_text().count(said)) < times and time.monotonic() < deadline:
        time.sleep(0.05)
    assert count == times


@pytest.fixture
def server(serve: Serve, tmp_path: Path) -> Running:
    data = datafiles.parquet(tmp_path / "rows", shards=4, rows=2500)
    return serve(data, "--missing-after", "1", "--lagging-after", "1")


def test_a_rank_that_never_comes_is_named_until_it_does(server: Running) -> None:
    wish: dict[str, Any] = {"batch_size": 10, "name": "train", "world_size": 3}
    with (
        Trainer(server.target, "rows", "late", rank=0, **wish) as zero,
        Trainer(server.target, "rows", "late", rank=2, **wish) as two,
    ):
        zero.step()
        two.step()
        early = stream_of(server, "late")
        assert (early["world_size"], [r["connected"] for r in early["ranks"]]) == (3, [True, False, True])
        wait_for(server, "late", lambda s: s["missing"] == [1])
        assert server.metric("penstock_ranks_missing") == 1
        said = "job late, stream train: rank 1 of 3 has not been there for more than 1 s"
        wait_for_log(server, said, 1)
        with Trainer(server.target, "rows", "late", rank=1, **wish) as one:
            one.step()
            there = wait_for(server, "late", lambda s: s["missing"] == [])
            assert all(r["connected"] for r in there["ranks"])
            assert server.metric("penstock_ranks_missing") == 0
        gone = wait_for(server, "late", lambda s: s["missing"] == [1])
        assert gone["ranks"][1]["state"] == "missing"
        wait_for_log(server, said, 2)
    # Nobody is left: nothing is missing.
    deadline = time.monotonic() + 10
    while json.loads(server.get("/api/v1/jobs"))["jobs"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads(server.get("/api/v1/jobs")) == {"jobs": []}


def test_a_rank_that_stops_is_named_with_how_far_it_is_behind_and_what_it_waits_for(server: Running) -> None:
    wish: dict[str, Any] = {"batch_size": 10, "name": "train", "world_size": 2, "prefetch": 2}
    with (
        Trainer(server.target, "rows", "stall", rank=0, **wish) as zero,
        Trainer(server.target, "rows", "stall", rank=1, **wish) as one,
    ):
        for _ in range(10):
            zero.step()
            one.step()
        wait_for(server, "stall", lambda s: s["step"] >= 9 and s["lagging"] == [])
        one.process.send_signal(signal.SIGSTOP)
        for _ in range(40):
            zero.step()
        stream = wait_for(server, "stall", lambda s: s["lagging"] == [1])
        late = stream["ranks"][1]
        assert late["stalled"]
        assert late["state"] == "waiting for credit"
        assert 35 <= late["steps_behind"] <= 42
        assert server.metric("penstock_ranks_lagging") == 1
        assert server.metric("penstock_steps_behind_max") == late["steps_behind"]
        assert stream["ranks"][0]["rows_per_s"] > 0
        wait_for_log(server, "job stall, stream train: rank 1 does not get on", 1)
        one.process.send_signal(signal.SIGCONT)
        for _ in range(42):
            one.step()
        wait_for(server, "stall", lambda s: s["lagging"] == [])
