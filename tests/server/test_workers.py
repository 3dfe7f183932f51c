"""Workers of a real server, as an operator sees and sets them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from tests.conftest import Serve
from tests.running import DidNotStart, Running


def csv(tmp_path: Path) -> Path:
    path = tmp_path / "toy.csv"
    path.write_text("x,y\n" + "".join(f"{n},{n % 2}\n" for n in range(100)))
    return path


def workers(server: Running, *more: str) -> str:
    command = [sys.executable, "-m", "penstock_service", "workers", "--http", server.http, *more]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_workers_are_tuned_unless_pinned_and_both_are_told(serve: Serve, tmp_path: Path) -> None:
    server = serve(csv(tmp_path))
    found = json.loads(workers(server, "--json"))
    assert found == json.loads(server.get("/api/v1/workers")) | {k: found[k] for k in ("busy", "starved", "free_cpus")}
    assert (found["workers"], found["workers_pinned"], found["read_ahead_pinned"]) == (found["cpus"], False, False)
    assert found["most_workers"] >= 4 * found["cpus"]
    assert f"{found['cpus']} workers (auto; tuned, from" in workers(server)
    server.stop()

    pinned = serve(tmp_path / "toy.csv", "--workers", "3", "--read-ahead-bytes", "2MiB", folder="pinned")
    found = json.loads(workers(pinned, "--json"))
    assert (found["workers"], found["workers_pinned"]) == (3, True)
    assert (found["read_ahead_bytes"], found["read_ahead_pinned"]) == (2 << 20, True)
    assert pinned.metric("penstock_workers") == 3
    assert pinned.metric("penstock_bound_limit_bytes", bound="read_ahead") == 2 << 20
    with penstock.connect(pinned.target) as client, client.stream("toy", batch_size=10) as stream:
        assert sum(batch.metadata.rows for batch in stream) == 100
    assert pinned.metric("penstock_workers_busy_seconds_total") > 0


def test_a_number_of_workers_that_cannot_be_is_refused(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DidNotStart, match=r"--workers.*it must be auto, or a whole number from 1 to 1024") as refused:
        serve(csv(tmp_path), "--workers", "none")
    assert refused.value.code == 2
