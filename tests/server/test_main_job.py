"""The main job: files in, batches out, numbers true."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import penstock
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]

pytestmark = pytest.mark.every_transport


def test_a_model_learns_through_the_server_and_the_metrics_tell_the_truth(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.parquet(tmp_path / "line", shards=6, rows=1500)
    server = serve(data)
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1)
    rows = steps = 0
    with penstock.connect(server.target) as client, client.stream("line", batch_size=64, seed=3) as stream:
        assert len(stream) == 141
        for batch in stream:
            x = batch.id.double() / 9000
            loss = ((weight * x - batch.x / 4500) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rows += len(batch.id)
            steps += 1
        assert abs(weight.item() - 1) < 0.05
        assert (rows, steps) == (9000, 141)
        profile = stream.profile()
        assert (profile["rows"], profile["steps"], profile["epochs"]) == (9000, 141, 1)
        assert "141 steps, 9000 rows" in str(profile)
        sessions = settled_sessions(server)
        assert [s["rank"] for s in sessions] == [0]
        # Look-ahead crosses the end of the epoch, bounded by the window: at least one epoch, at most it and the window.
        sent = server.metric("penstock_rows_sent_total", dataset="line")
        assert 9000 <= sent <= 9000 + 2048 * 64
        assert server.metric("penstock_steps_sent_total") == sessions[0]["steps_sent"]
        assert server.metric("penstock_rows_sent_total") == sessions[0]["rows_sent"]
    assert server.metric("penstock_chunks_made_total") == 1
    assert server.metric("penstock_sessions_opened_total") == 1
    assert server.stop() == 0


def settled_sessions(server: Running) -> list[dict[str, Any]]:
    """The sessions once look-ahead has come to its end: two looks that are alike."""
    before: list[dict[str, Any]] = []
    while True:
        sessions: list[dict[str, Any]] = json.loads(server.get("/api/v1/sessions"))["sessions"]
        if [s["steps_sent"] for s in sessions] == [s["steps_sent"] for s in before]:
            return sessions
        before = sessions
        time.sleep(0.3)


RANK = """
import json, sys
import penstock
target, output = sys.argv[1], sys.argv[2]
with penstock.connect(target) as client:
    with client.stream(["a", "b", "c"], batch_size=50, seed=11, output="numpy", pool_rows=4000) as stream:
        steps = [batch["id"].tolist() for batch in stream]
        print(json.dumps({"rank": stream.rank, "len": len(stream), "steps": steps}))
"""


@pytest.fixture
def three_formats(tmp_path: Path) -> list[Path]:
    """21,037 rows: three formats, with one schema."""
    return [
        datafiles.parquet(tmp_path / "a", 7, 1500),
        datafiles.jsonl(tmp_path / "b", 4, 2000, first=100_000),
        datafiles.csv(tmp_path / "c", 1, 2537, first=200_000),
    ]


def test_four_ranks_read_three_mixed_datasets_once_in_one_global_order(serve: Serve, three_formats: list[Path]) -> None:
    server = serve(*three_formats)
    environment = {"RANK": "", "WORLD_SIZE": "4", "PATH": "/usr/bin:/bin"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, server.target, "-"],
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "RANK": str(rank)},
        )
        for rank in range(4)
    ]
    found = [json.loads(process.communicate(timeout=100)[0]) for process in ranks]
    assert [f["rank"] for f in found] == [0, 1, 2, 3]
    assert {len(f["steps"]) for f in found} == {106}
    assert {f["len"] for f in found} == {106}
    together = [row for step in range(106) for f in found for row in f["steps"][step]]
    expected = [*range(10_500), *range(100_000, 108_000), *range(200_000, 202_537)]
    assert sorted(together) == expected
    with penstock.connect(server.target) as client:
        alone = client.stream(["a", "b", "c"], batch_size=200, seed=11, output="numpy", pool_rows=4000)
        assert [row for batch in alone for row in batch["id"].tolist()] == together
    # The last global batch of 37 rows is spread: ranks differ by a row at most.
    assert sorted(len(f["steps"][-1]) for f in found) == [9, 9, 9, 10]


@pytest.mark.every_transport("shm", "grpc")  # what is asked is upstream of all transports
@pytest.mark.parametrize("workers", [("1", "threads"), ("4", "threads"), ("2", "processes")])
def test_the_order_does_not_depend_on_workers_or_what_is_warm(
    serve: Serve, three_formats: list[Path], workers: tuple[str, str]
) -> None:
    count, kind = workers
    server = serve(*three_formats, "--workers", count, "--worker-kind", kind, "--chunk-rows", "500")
    with penstock.connect(server.target) as client:
        stream = client.stream({"a": 1, "b": 2, "c": 0.5}, batch_size=64, seed=5, output="numpy", pool_rows=3000)
        cold = np.concatenate([batch["id"] for batch in stream])
        stream.reset()
        warm = np.concatenate([batch["id"] for batch in stream])
        second = np.concatenate([batch["id"] for batch in stream])
    assert np.array_equal(cold, warm)
    assert not np.array_equal(cold, second)
    assert sorted(cold.tolist()) == sorted(second.tolist())
    # The same for every set of workers, and pinned between versions.
    rank_of = np.arange(1, len(cold) + 1, dtype=np.uint64)
    assert int((cold.astype(np.uint64) * rank_of).sum(dtype=np.uint64)) == PIN


PIN = 11219008729175


def test_the_same_order_after_a_seek_to_any_step_on_any_world(serve: Serve, three_formats: list[Path]) -> None:
    server = serve(*three_formats)
    with penstock.connect(server.target) as client:

        def open_stream(rank: int = 0, world: int = 1) -> penstock.Stream:
            return client.stream(
                ["a", "b", "c"],
                global_batch_size=120,
                seed=9,
                output="numpy",
                pool_rows=2500,
                rank=rank,
                world_size=world,
            )

        whole = open_stream()
        steps: list[list[int]] = []
        states = []
        for batch in whole:
            states.append(json.loads(json.dumps(whole.state_dict())))
            steps.append(batch["id"].tolist())
        assert len(steps) == 176
        assert all(len(json.dumps(state)) < 4096 for state in states)
        for at, world in ((0, 1), (1, 2), (57, 3), (120, 4), (174, 5), (175, 2)):
            rests = []
            for rank in range(world):
                stream = open_stream(rank, world)
                stream.load_state_dict(states[at])
                rests.append([b["id"].tolist() for b in stream])
                assert stream.epoch == 1
                stream.close()
            assert {len(rest) for rest in rests} == {175 - at}
            together = [[row for rest in rests for row in rest[i]] for i in range(175 - at)]
            assert together == steps[at + 1 :]


def test_a_killed_server_comes_back_and_no_row_is_lost_or_doubled(serve: Serve, three_formats: list[Path]) -> None:
    server = serve(*three_formats)
    with penstock.connect(server.target) as client:

        def read(kill_at: tuple[int, ...]) -> list[int]:
            # A small window, so that the server is still needed when it dies.
            stream = client.stream(["a", "b", "c"], batch_size=40, seed=2, output="numpy", pool_rows=2000, prefetch=8)
            rows: list[int] = []
            for step, batch in enumerate(stream):
                rows += batch["id"].tolist()
                assert batch.metadata.step == step
                if step in kill_at:
                    server.kill()
                    server.start()
            assert stream.profile()["reconnects"] == len(kill_at)
            stream.close()
            return rows

        expected = read(())
        assert len(expected) == 21_037
        assert read((3, 200, 400)) == expected


def test_a_trainer_that_stops_reading_holds_back_the_server_and_nobody_else(
    serve: Serve, three_formats: list[Path]
) -> None:
    server = serve(*three_formats)
    with penstock.connect(server.target) as client:
        lazy = client.stream("a", batch_size=10, output="numpy", prefetch=20, name="lazy")
        iterator = iter(lazy)
        next(iterator)
        busy = client.stream("a", batch_size=10, output="numpy", name="busy")
        assert sum(1 for _ in busy) == 1050
        sessions = {s["name"]: s for s in json.loads(server.get("/api/v1/sessions"))["sessions"]}
        assert sessions["lazy"]["steps_sent"] <= 20
        assert sessions["lazy"]["state"] == "waiting for credit"
        assert sum(1 for _ in iterator) == 1049
