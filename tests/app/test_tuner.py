"""The tuner with real chunks and workers: it measures, decides, and carries it out."""

import asyncio
import logging
from pathlib import Path

import pytest

from penstock_service.app import tuner as module
from penstock_service.app.tuner import Tuner, tuning_for
from penstock_service.chunks.chunks import Chunks
from penstock_service.chunks.executor import ThreadExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.store import Store
from penstock_service.config import MiB, Settings
from penstock_service.core import tuning as rules
from penstock_service.core.channel import Bound
from penstock_service.core.tuning import Limits, Tuning
from tests.chunks import makers
from tests.chunks.makers import dataset, marks
from tests.chunks.test_chunks import go, until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EVERY", 0.01)
    monkeypatch.setattr(rules, "_HOLD", 0.02)


def test_sessions_that_wait_get_workers_and_the_log_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def main() -> None:
        toy = dataset(tmp_path / "data", [1] * 6)
        store = Store(tmp_path / "store", 1 << 20)
        chunks = Chunks(makers.make_when_allowed, store, ThreadExecutor(1), Bound("read_ahead", MiB))
        tuned = Tuning(Limits(3, 3, MiB, MiB), 1, MiB)
        tuner = Tuner(tuned, chunks, "threads", lambda: 0.1)
        await chunks.start()
        tuner.start()
        waiting = asyncio.create_task(chunks.infos(toy, range(6)))
        await until(lambda: marks(tmp_path / "data", "task") == 3)
        status = tuner.status()
        assert (status.workers, status.workers_pinned, tuner.decided["workers"]) == (3, False, 2)
        assert [(d.what, d.before, d.after) for d in status.decisions] == [("workers", 1, 2), ("workers", 2, 3)]
        assert "sessions waited for chunks" in status.decisions[0].reason
        assert f"workers: 2, were 1: {status.decisions[0].reason}" in caplog.text
        go(tmp_path / "data", *range(6))
        assert len(await waiting) == 6
        await tuner.stop()
        await tuner.stop()
        await chunks.stop()

    asyncio.run(main())


def test_memory_that_runs_short_narrows_the_look_ahead(tmp_path: Path) -> None:
    async def main() -> None:
        chunks = Chunks(
            makers.make, Store(tmp_path / "store", 1 << 20), ThreadExecutor(1), Bound("read_ahead", 8 * MiB)
        )
        tuner = Tuner(Tuning(Limits(1, 1, 4 * MiB, 8 * MiB), 1, 8 * MiB), chunks, "threads", lambda: 0.99)
        await chunks.start()
        tuner.start()
        await until(lambda: chunks.numbers().read_ahead.limit == 4 * MiB)
        assert tuner.status().decisions[0].reason == "the server holds 99% of the memory it may"
        await tuner.stop()
        await chunks.stop()

    asyncio.run(main())


def test_a_worker_that_cannot_begin_is_told_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        toy = dataset(tmp_path / "data", [1, 1])
        store = Store(tmp_path / "store", 1 << 20)
        executor = ProcessExecutor(1)
        chunks = Chunks(makers.make_when_allowed, store, executor, Bound("read_ahead", MiB))
        tuned = Tuning(Limits(2, 2, MiB, MiB), 1, MiB)
        tuner = Tuner(tuned, chunks, "processes", lambda: 0.1)
        await chunks.start()
        monkeypatch.setattr("sys.executable", "/bin/false")
        tuner.start()
        waiting = asyncio.create_task(chunks.infos(toy, range(2)))
        await until(lambda: "there are 1 workers, not 2: a worker process cannot begin" in caplog.text)
        assert (tuned.workers, tuner.status().workers) == (1, 1)
        go(tmp_path / "data", 0, 1)
        assert len(await waiting) == 2
        await tuner.stop()
        await chunks.stop()

    asyncio.run(main())


def test_numbers_pin_and_auto_begins_with_one_worker_for_each_cpu() -> None:
    auto = tuning_for(Settings())
    assert (auto.workers, auto.read_ahead) == (auto.limits.cpus, 512 * MiB)
    assert auto.limits.most_workers >= 4 * auto.limits.cpus
    pinned = tuning_for(Settings(workers=3, read_ahead_bytes=8 * MiB))
    assert (pinned.workers, pinned.read_ahead) == (3, 8 * MiB)
    assert pinned.limits.workers_pinned
    assert pinned.limits.read_ahead_pinned
