"""Idle sessions cost next to nothing: the event loop is woken a few times a second, whoever is connected."""

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import datafiles
from tests.conftest import Serve
from tests.running import Running
from tests.training import Trainer

SESSIONS = 8
MOST_A_SECOND = 60.0  # 20 of them are the lag probe's and the HTTP server's; benchmarks/idle.py says what that costs


def wakes(server: Running) -> int:
    """How often the main thread, which runs the loop, was woken; a busy machine makes that fewer, never more."""
    pid = server.process.pid
    lines = Path(f"/proc/{pid}/task/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_eight_idle_sessions_hardly_wake_the_loop(serve: Serve, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("counts what the kernel counts, which only Linux does")
    server = serve(datafiles.parquet(tmp_path / "rows", shards=2, rows=500))
    with ExitStack() as stack:
        for n in range(SESSIONS):
            trainer = stack.enter_context(Trainer(server.target, "rows", f"job-{n}", batch_size=10, prefetch=8))
            trainer.step()
        time.sleep(1)  # look-ahead comes to its end
        began, before = time.monotonic(), wakes(server)
        time.sleep(3)
        rate = (wakes(server) - before) / (time.monotonic() - began)
        assert 0 < rate < MOST_A_SECOND
