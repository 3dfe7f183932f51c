"""The memory limit with real servers: each rung takes effect, the stop is graceful, trainers go on afterwards."""

import json
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import penstock
from penstock_service.core.budget import SHARES, Rung
from tests import datafiles
from tests.conftest import Serve
from tests.running import DidNotStart, Running
from tests.training import Trainer
from tests.transform import leaking

MIB = 1 << 20
LEAK = f"{leaking.__name__}:leak"
IN_ORDER: dict[str, Any] = {
    "batch_size": 10,
    "shuffle": False,
    "pool_rows": 40,
    "prefetch": 1,
    "rows": [{"python": LEAK}],
}


def memory(server: Running) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.get("/api/v1/memory"))
    return found


def wait_for(found: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def settled(read: Callable[[], float]) -> float:
    """What it reads when what is still being done is done."""
    before, now = -1.0, read()
    while now != before:
        time.sleep(1)
        before, now = now, read()
    return now


@dataclass
class Leaking:
    """A server whose one worker holds as much memory as the test says."""

    server: Running
    file: Path

    def aim(self, share: float) -> None:
        """From the next chunk on the server as a whole holds this share of its limit."""
        now = memory(self.server)
        self.file.write_text(str(int(self.file.read_text()) + (int(share * now["limit"]) - now["measured"]) // MIB))

    def until(self, rung: Rung, trainer: Trainer) -> list[list[int]]:
        """Take steps, so that chunks are made, until the rung holds; what came."""
        self.aim(SHARES[rung] + 0.04)
        steps: list[list[int]] = []

        def there() -> bool:
            steps.append(trainer.step())
            time.sleep(0.2)
            return bool(memory(self.server)["rung"] == rung.words)

        wait_for(there)
        return steps


@pytest.fixture
def leak(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Leaking:
    """Its parameter: `--stalled-after`."""
    file = tmp_path / "leak"
    file.write_text("0")
    monkeypatch.setenv(leaking.FILE, str(file))
    data = datafiles.parquet(tmp_path / "rows", shards=400, rows=10)
    flags = ("--memory", "512MiB", "--workers", 1, "--chunk-rows", 10, "--python-modules", leaking.__name__)
    ahead = ("--read-ahead-bytes", "512MiB")
    return Leaking(serve(data, *flags, *ahead, "--stalled-after", request.param), file)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("leak", [600], indirect=True)
def test_each_rung_takes_effect_and_the_stop_loses_no_row(leak: Leaking, caplog: pytest.LogCaptureFixture) -> None:
    server = leak.server
    with (
        Trainer(server.target, "rows", name="train", **IN_ORDER) as trainer,
        penstock.connect(server.target) as client,
        client.stream("rows", batch_size=10, pool_rows=1000, prefetch=1, output="numpy", reconnect_timeout=1) as mixed,
    ):
        got = [trainer.step()]
        mixed.get_batch()
        free = memory(server)
        assert (free["rung"], free["read_ahead"]) == ("ok", free["read_ahead_most"])
        assert free["stages"]["pools"] > 0
        assert {p["what"] for p in free["processes"]} == {"server", "worker"}

        got += leak.until(Rung.LESS_AHEAD, trainer)
        wait_for(lambda: memory(server)["read_ahead"] <= free["read_ahead_most"] // 4)
        assert server.metric("penstock_bound_limit_bytes", bound="read_ahead") <= free["read_ahead_most"] // 4
        assert server.metric("penstock_memory_rung", rung="less look-ahead") == 1

        got += leak.until(Rung.NO_SEGMENTS_AHEAD, trainer)
        wait_for(lambda: memory(server)["stages"]["pools"] == 0)
        built = settled(lambda: server.metric("penstock_segments_built_total"))
        mixed.get_batch()
        assert server.metric("penstock_segments_built_total") <= built + 1

        got += leak.until(Rung.REFUSE, trainer)
        newcomer = client.stream("rows", batch_size=10, name="new", output="numpy", reconnect_timeout=1)
        with pytest.raises(penstock.ResourceExhausted, match=r"memory is short.*--memory"):
            newcomer.get_batch()
        mixed.get_batch()  # who is there goes on

        leak.file.write_text("0")
        got.append(trainer.step())

        def given_back() -> bool:
            got.append(trainer.step())
            now = memory(server)
            return bool(now["rung"] == "ok" and now["read_ahead"] == free["read_ahead_most"])

        wait_for(given_back)
        newcomer.get_batch()
        newcomer.close()

        leak.aim(1.06)
        for _ in range(4):
            trainer.tell("step")
        assert server.process.wait(60) == 4
        server.stop()
        report = json.loads((server.folder / "state" / "memory-report.json").read_text())
        assert report["limit"] == 512 * MIB < report["measured"]
        assert next(iter(report["stages"])) == "workers"
        assert report["holdings"][0]["process"] == next(p["pid"] for p in report["processes"] if p["what"] == "worker")
        slots = [h for h in report["holdings"] if h["stage"] == "slots"]
        assert all(h["session"] and h["dataset"].startswith("rows@") for h in slots)
        assert slots
        log = server.log.read_text()
        for word in ("memory is at its limit (--memory)", "held by workers", "all of it is in", "draining"):
            assert word in log

        with pytest.raises(penstock.RetryableError):  # after a second: this one was told not to wait for longer
            list(iter(mixed.get_batch, None))
        assert "memory is at its limit" in caplog.text  # it was told why

        leak.file.write_text("0")
        server.start()
        got += [trainer.hear() for _ in range(4)]
        half = memory(server)
        assert half["read_ahead_most"] == free["read_ahead_most"] // 2
        assert "begins with half the look-ahead" in server.log.read_text()
        got += trainer.ask("rest")
        assert [i for step in got for i in step] == list(range(4000))
        assert trainer.ask("reconnects") >= 1
    assert server.stop() == 0
    server.start()
    assert memory(server)["read_ahead_most"] == free["read_ahead_most"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("leak", [1], indirect=True)
def test_a_stalled_session_is_put_off_under_pressure_only_and_its_trainer_notices_nothing(leak: Leaking) -> None:
    server = leak.server
    wish: dict[str, Any] = {"batch_size": 10, "prefetch": 8, "seed": 3}
    with (
        Trainer(server.target, "rows", name="train", **IN_ORDER) as trainer,
        Trainer(server.target, "rows", name="stopped", **wish) as stopped,
    ):
        trainer.step()
        got = [stopped.step() for _ in range(3)]
        stopped.process.send_signal(signal.SIGSTOP)
        leak.until(Rung.NO_SEGMENTS_AHEAD, trainer)
        assert {s["name"] for s in sessions(server)} == {"train", "stopped"}
        leak.until(Rung.REFUSE, trainer)
        wait_for(lambda: "stopped" not in {s["name"] for s in sessions(server)})
        assert "stalled sessions are put off" in server.log.read_text()
        assert memory(server)["rung"] == "no new sessions"
        stopped.process.send_signal(signal.SIGCONT)
        got += stopped.ask("rest")  # it comes back though nobody new is taken
        assert sorted(i for step in got for i in step) == list(range(4000))
        assert stopped.ask("reconnects") == 1
        trainer.step()


@pytest.mark.every_transport
def test_a_stalled_trainer_keeps_the_server_within_its_credits(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "big"
    folder.mkdir()
    blob = pa.array([np.random.default_rng(0).bytes(MIB)] * 120)
    pq.write_table(pa.table({"id": np.arange(120), "blob": blob}), folder / "0.parquet", row_group_size=20)
    server = serve(folder, "--bundle-bytes", 2 * MIB, "--chunk-bytes", 4 * MIB, "--read-ahead-bytes", 8 * MIB)
    window = 12 * MIB
    wish: dict[str, Any] = {"columns": ["id", "blob"], "batch_size": 1, "prefetch_bytes": window}
    with Trainer(server.target, "big", name="first", **wish) as first:
        assert len(first.ask("rest")) == 120  # whatever is made once is there
    wait_for(lambda: not sessions(server))
    before = memory(server)
    with Trainer(server.target, "big", name="s", **wish) as trainer:
        trainer.step()
        trainer.process.send_signal(signal.SIGSTOP)
        sent: list[int] = []

        def full() -> bool:
            sent.append(sessions(server)[0]["steps_sent"])
            return len(sent) > 20 and sent[-1] == sent[-10]

        wait_for(full)
        assert sent[-1] * MIB <= window + 2 * MIB
        now = memory(server)
        slot = int(window / 4 * 1.25) + 4096
        assert now["stages"]["slots"] <= 4096 + (-(-window // slot) + 2) * slot
        assert now["stages"]["bundles"] <= 2 * (window // 4)  # one on the way, one made ahead
        allowed = now["stages"]["slots"] + now["stages"]["bundles"] + 16 * MIB  # of what allocators keep
        assert now["measured"] - before["measured"] <= allowed


def test_a_stream_whose_pool_does_not_fit_is_refused_with_what_to_do(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    pq.write_table(pa.table({"id": pa.array(np.arange(8_000_000) % 100, pa.int8())}), folder / "0.parquet")
    server = serve(folder, "--memory", "256MiB")
    with penstock.connect(server.target) as client:
        large = client.stream("many", batch_size=100, pool_rows=8_000_000, output="numpy", reconnect_timeout=1)
        with pytest.raises(penstock.ResourceExhausted, match=r"pool of its own, about 183.1 MiB.*smaller pool_rows"):
            large.get_batch()
        client.stream("many", batch_size=100, pool_rows=1_000_000, output="numpy").get_batch()


def test_a_limit_below_what_the_interpreter_holds_is_a_setting_that_cannot_be_used(
    serve: Serve, tmp_path: Path
) -> None:
    with pytest.raises(DidNotStart, match=r"memory = 64.0 MiB is too little.*256MiB or more") as refused:
        serve(datafiles.parquet(tmp_path / "rows", 1, 10), "--memory", "64MiB")
    assert refused.value.code == 2


def test_the_census_agrees_with_the_kernel(serve: Serve, tmp_path: Path) -> None:
    """Whatever is held by whom, together it is what the kernel says the process holds."""
    server = serve(datafiles.parquet(tmp_path / "rows", 4, 50_000), "--store-bytes", 0)
    with (
        penstock.connect(server.target) as client,
        client.stream("rows", batch_size=500, output="numpy", pool_rows=20_000) as stream,
    ):
        for _ in stream:
            pass
        found = memory(server)
        assert sum(found["stages"].values()) >= found["measured"]
        for stage in ("interpreter", "pools", "segments", "chunk memory", "chunk infos", "slots"):
            assert found["stages"][stage] > 0, stage
        assert found["stages"]["unaccounted"] < 60 * MIB
        held = psutil.Process(server.process.pid).memory_info()
        assert abs(found["processes"][0]["anonymous"] + held.shared - held.rss) < 8 * MIB


def sessions(server: Running) -> list[dict[str, Any]]:
    return list(json.loads(server.get("/api/v1/sessions"))["sessions"])


def test_a_look_that_fails_is_not_the_last(serve: Serve, tmp_path: Path) -> None:
    """For a while the server can open no file, and so not read what its processes hold."""
    server = serve(datafiles.parquet(tmp_path / "rows", 1, 10))
    before = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)

    def failed() -> int:
        return server.log.read_text().count("memory could not be looked at, which is tried again")

    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (0, before[1]))
    wait_for(lambda: failed() >= 2)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
    wait_for(lambda: memory(server)["rung"] == "ok")
    assert server.stop() == 0


def test_slots_of_all_sessions_leave_most_of_the_memory(serve: Serve, tmp_path: Path) -> None:
    """Trainers that take nothing for now: their windows would fill it."""
    values = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(8000 * 1024, dtype=np.float64)), 1024)
    (tmp_path / "rows").mkdir()
    pq.write_table(pa.table({"x": values}), tmp_path / "rows" / "0.parquet", compression="none", row_group_size=1000)
    server = serve(tmp_path / "rows", "--memory", "300MiB")
    with penstock.connect(server.target) as client:
        streams = [
            client.stream("rows", batch_size=100, output="numpy", prefetch=10_000, name=str(i)) for i in range(4)
        ]
        firsts = [next(iter(stream)) for stream in streams]
        wait_for(lambda: [s["state"] for s in sessions(server)] == 4 * ["waiting for credit"])
        assert 0 < memory(server)["stages"]["slots"] <= 121 * MIB
        assert server.metric("penstock_bytes_sent_total", transport="grpc") > 0
        assert len(firsts) == 4
        for stream in streams:
            stream.close()
    assert server.stop() == 0
