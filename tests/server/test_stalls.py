"""Trainers that stall: stopped, or busy in C for longer than keepalive allows. They hold their window, and no more."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock_proto.v1 import channel
from tests import datafiles
from tests.running import Running
from tests.training import Trainer

Serve = Callable[..., Running]

OPTIONS = dict(channel.CLIENT)
KEEPALIVE = (OPTIONS["grpc.keepalive_time_ms"] + OPTIONS["grpc.http2.ping_timeout_ms"]) / 1000
WINDOW: dict[str, Any] = {"batch_size": 10, "prefetch": 8}


def sessions(server: Running) -> dict[str, dict[str, Any]]:
    return {s["name"]: s for s in json.loads(server.get("/api/v1/sessions"))["sessions"]}


@pytest.mark.timeout(240)  # keepalive takes its time
def test_stalled_trainers_hold_their_window_and_nobody_up_and_go_on_where_they_were(
    serve: Serve, tmp_path: Path
) -> None:
    """One trainer is stopped, one holds the interpreter's lock in a C call, both for longer than the keepalive."""
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=500))
    with (
        Trainer(server.target, "rows", name="stopped", **WINDOW) as stopped,
        Trainer(server.target, "rows", name="holding", **WINDOW) as holding,
        Trainer(server.target, "rows", name="busy", **WINDOW) as busy,
    ):
        expected = busy.ask("rest")
        assert len(expected) == 200
        got = {trainer: [trainer.step() for _ in range(5)] for trainer in (stopped, holding)}
        began = time.monotonic()
        stopped.process.send_signal(signal.SIGSTOP)
        seconds = int(KEEPALIVE) + 5
        holding.tell("hold", seconds)
        # The others go on at once, with the same rows.
        assert busy.ask("rest") != expected  # another epoch
        assert time.monotonic() - began < 15
        with Trainer(server.target, "rows", name="newcomer", **WINDOW) as newcomer:
            assert newcomer.ask("rest") == expected
        # What is held for those that stall: their window.
        for name in ("stopped", "holding"):
            session = sessions(server)[name]
            assert session["state"] == "waiting for credit"
            assert session["steps_sent"] <= 5 + WINDOW["prefetch"]
        holding.hear()
        held = time.monotonic() - began
        assert held >= seconds
        # Keepalive is answered by C threads, so a trainer that holds the lock keeps its session. A stopped one loses
        # it, and what it held with it.
        assert "holding" in sessions(server)
        deadline = time.monotonic() + KEEPALIVE
        while "stopped" in sessions(server) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert "stopped" not in sessions(server)
        stopped.process.send_signal(signal.SIGCONT)
        for trainer, reconnects in ((stopped, 1), (holding, 0)):
            assert got[trainer] + trainer.ask("rest") == expected
            assert trainer.ask("reconnects") == reconnects


def test_a_trainer_stopped_for_a_moment_notices_nothing(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=500))
    with Trainer(server.target, "rows", name="s", **WINDOW) as trainer:
        got = [trainer.step() for _ in range(5)]
        trainer.process.send_signal(signal.SIGSTOP)
        with Trainer(server.target, "rows", name="other", **WINDOW) as other:
            expected = other.ask("rest")
        trainer.process.send_signal(signal.SIGCONT)
        assert got + trainer.ask("rest") == expected
        assert trainer.ask("reconnects") == 0
