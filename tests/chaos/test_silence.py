"""What is silent for longer than keepalive waits: trainers that are stopped or hold the GIL, networks gone quiet.

All of it happens at once, since it is mostly waiting; each test then looks at one of them.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.receiver import SILENCE
from tests import datafiles
from tests.chaos.trainer import Found, Job, read
from tests.faults import Proxy
from tests.running import Running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(240), pytest.mark.xdist_group("silence")]

KEEPALIVE = 40.0  # seconds until either end notices: proto/penstock_proto/v1/channel.py
LONG = KEEPALIVE + 10
WISH: dict[str, Any] = {"seed": 3, "pool_rows": 1500, "prefetch": 4}
NAMES = (
    *("undisturbed", "holds the GIL", "holds the GIL, over TCP", "is stopped", "is stopped, over TCP"),
    *("half-open", "half-open payload", "half-open for good"),
)


@dataclass
class Facts:
    """What happened to each trainer, by name."""

    golden: list[int]
    found: dict[str, Found]
    exit_codes: dict[str, int | None]
    seconds: dict[str, float]  # from the fault to the trainer's end
    jobs_during: set[str]  # that had a session when the silence was nearly over
    jobs_after: set[str]  # once all trainers had ended
    log: str


def jobs(server: Running) -> set[str]:
    return {session["job"] for session in json.loads(server.get("/api/v1/sessions"))["sessions"]}


def wait_for(what: Callable[[], Any], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not (done := bool(what())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return done


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    folder = tmp_path_factory.mktemp("silence")
    data = datafiles.parquet(folder / "rows", shards=6, rows=1000)
    with ExitStack() as stack:
        flags = ("--bundle-bytes", "16KiB", "--frame-bytes", "4KiB")
        server = stack.enter_context(Running((str(data),), folder / "server", flags))
        payload = stack.enter_context(Proxy())
        behind = Running((str(data),), folder / "behind", (*flags, "--payload-advertise", payload.target))
        payload.upstream = stack.enter_context(behind).payload
        proxies = {name: stack.enter_context(Proxy(server.target)) for name in ("half-open", "half-open for good")}
        with penstock.connect(server.target) as client:
            stream = client.stream("rows", batch_size=10, output="numpy", **WISH)
            golden = [int(i) for batch in stream for i in batch["id"]]
            stream.close()
        targets = dict.fromkeys(NAMES, server.target) | {name: proxy.target for name, proxy in proxies.items()}
        trainers = {name: job({**targets, "half-open payload": behind.target}[name], folder, name) for name in NAMES}
        processes = {name: trainer.start() for name, trainer in trainers.items()}
        for process in processes.values():
            stack.callback(process.kill)
        assert wait_for(lambda: all(len(read(t.file).steps) > 10 for t in trainers.values()), 30)
        began = time.monotonic()
        for proxy in (*proxies.values(), payload):
            proxy.half_open()
        stopped = [processes[name].pid or -1 for name in NAMES if "stopped" in name]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(1)
        proxies["half-open"].heal()
        time.sleep(LONG - 4)
        during = jobs(server)
        time.sleep(3)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        seconds = {}
        for name, process in processes.items():
            process.join(90)
            seconds[name] = time.monotonic() - began
        wait_for(lambda: not jobs(server) | jobs(behind), KEEPALIVE + 10)
        yield Facts(
            golden,
            {name: read(trainer.file) for name, trainer in trainers.items()},
            {name: process.exitcode for name, process in processes.items()},
            seconds,
            during,
            jobs(server) | jobs(behind),
            server.log.read_text() + behind.log.read_text(),
        )


def job(target: str, folder: Path, name: str) -> Job:
    wish = {**WISH, "reconnect_timeout": 5.0 if name == "half-open for good" else 60.0}
    if "half-open" in name:
        wish["transport"] = "grpc"  # the rows themselves are on the connection
    if "TCP" in name or "payload" in name:
        wish["transport"] = "tcp"
    file = folder / f"{name}.jsonl"
    return Job(target, name, "rows", 0, 1, 10, wish, file, pace=0.005, hold_gil=LONG if "GIL" in name else 0)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_rows_come_once_and_in_order_however_long_the_silence(facts: Facts, name: str) -> None:
    assert facts.exit_codes[name] == 0
    assert [i for step in facts.found[name].steps for i in step] == facts.golden
    assert facts.found[name].ended


@pytest.mark.parametrize("name", ["holds the GIL", "holds the GIL, over TCP"])
def test_a_trainer_that_holds_the_gil_keeps_its_session(facts: Facts, name: str) -> None:
    assert name in facts.jobs_during
    assert facts.found[name].reconnects == 0
    assert facts.seconds[name] > LONG - 1


@pytest.mark.parametrize("name", ["is stopped", "is stopped, over TCP"])
def test_a_stopped_trainer_loses_its_session_and_comes_back_by_itself(facts: Facts, name: str) -> None:
    assert name not in facts.jobs_during
    assert facts.found[name].reconnects == 1


def test_a_half_open_connection_is_noticed_at_both_ends(facts: Facts) -> None:
    assert facts.found["half-open"].reconnects == 1
    assert facts.seconds["half-open"] < LONG + 30


def test_a_payload_socket_that_is_silent_alone_is_given_up(facts: Facts) -> None:
    assert facts.found["half-open payload"].reconnects == 1
    assert SILENCE - 2 < facts.seconds["half-open payload"] < SILENCE + 40


def test_a_network_that_stays_silent_ends_in_a_clear_error_within_patience(facts: Facts) -> None:
    found = facts.found["half-open for good"]
    assert facts.exit_codes["half-open for good"] == 1
    assert "ServerUnavailable" in found.error
    assert "gave up after" in found.error
    rows = [i for step in found.steps for i in step]
    assert rows == facts.golden[: len(rows)]
    assert "half-open for good" not in facts.jobs_during


def test_nothing_is_left_and_nobody_else_was_disturbed(facts: Facts) -> None:
    assert facts.jobs_after == set()
    assert facts.found["undisturbed"].reconnects == 0
    assert "ended by a bug" not in facts.log
