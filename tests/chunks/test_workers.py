"""The same laws for threads and processes, and what only processes must bear."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from penstock_service.chunks.executor import Executor, ThreadExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.core.errors import DataError, Internal, SourceGone, SourceUnreadable, Unavailable
from penstock_service.core.retry import Retry
from tests.chunks import makers
from tests.chunks.conftest import Running
from tests.chunks.makers import ROWS, dataset, marks, order
from tests.chunks.test_chunks import go, until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


SECONDS = re.compile(rb'"seconds": "[0-9.]{12}"')  # what making it took: all that depends on who made it


def test_threads_and_processes_write_the_same_files(running: Running, root: Path, tmp_path: Path) -> None:
    written: list[dict[str, bytes]] = []

    async def main(executor: Executor) -> None:
        async with running(makers.make, executor) as chunks:
            await chunks.infos(dataset(root, [1, 3, 2, 1, 1, 1, 1, 1]), range(11))
        written.append({p.name: SECONDS.sub(b"", p.read_bytes()) for p in (tmp_path / "store").iterdir()})
        for path in (tmp_path / "store").iterdir():
            path.unlink()

    for executor in (ThreadExecutor(1), ThreadExecutor(4), ProcessExecutor(2)):
        asyncio.run(main(executor))
    assert len(written[0]) == 11
    assert written[0] == written[1] == written[2]


def test_chunks_are_made_leased_and_read_once(running: Running, root: Path, executor: Executor) -> None:
    async def main() -> None:
        toy = dataset(root, [3, 1, 2])
        async with running(makers.make_slowly, executor) as chunks:
            await asyncio.gather(*(chunks.infos(toy, [c]) for c in range(6) for _ in range(3)))
            with await chunks.lease(toy, range(6)) as lease:
                assert [batch.num_rows for batch in lease.batches.values()] == [ROWS] * 6
            assert chunks.numbers().made == 6
            assert chunks.numbers().workers == 2
        assert marks(root, "task") == 3

    asyncio.run(main())


def test_errors_are_what_they_were(
    running: Running, root: Path, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        toy = dataset(root, [1] * 5)
        for what, chunk, times in (("data", 0, 1), ("source", 1, 9), ("source", 2, 2), ("bug", 3, 1), ("exit", 4, 1)):
            order(root, f"{what}-{chunk}", times)
        async with running(makers.make_badly, executor) as chunks:
            with pytest.raises(DataError, match=r"^chunk 0 is no good$"):
                await chunks.info(toy, 0)
            with pytest.raises(SourceUnreadable, match=r"^chunk 1 cannot be read now \(4 tries in 0\.\d s\)$"):
                await chunks.info(toy, 1)
            assert (await chunks.info(toy, 2)).rows == ROWS
            with pytest.raises(Internal, match="ZeroDivisionError: chunk 3 divides by zero"):
                await chunks.info(toy, 3)
            with pytest.raises(Internal, match="SystemExit"):
                await chunks.info(toy, 4)
            assert chunks.numbers().workers_restarted == 0
        assert "_go_wrong" in caplog.text  # the traceback

    asyncio.run(main())


def test_what_cannot_be_made_again_is_not_known_any_more(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 1])
        async with running(makers.make_badly, store_bytes=0) as chunks:
            with chunks.hold(toy):
                before = await chunks.infos(toy, [0, 1])
            order(root, "gone-1", 1000)
            assert await chunks.infos(toy, [0, 1]) == before  # remembered
            with pytest.raises(SourceGone):
                await chunks.lease(toy, [0, 1])
            with pytest.raises(SourceGone):
                await chunks.infos(toy, [0, 1])
            assert await chunks.info(toy, 0) == before[0]
            order(root, "gone-1", 0)
            assert await chunks.infos(toy, [0, 1]) == before

    asyncio.run(main())


def test_a_file_that_was_missing_is_looked_for_whenever_it_is_wanted(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1])
        order(root, "gone-0", 1000)
        async with running(makers.make_badly, retry=Retry(2, 0.002, 0.01)) as chunks:
            for tries in (3, 4, 5):  # waited for once, then only looked for
                with pytest.raises(SourceGone):
                    await chunks.info(toy, 0)
                assert marks(root, "gone-0") == tries
            order(root, "gone-0", 0)
            assert (await chunks.info(toy, 0)).rows == ROWS

    asyncio.run(main())


def test_the_disk_full_is_answered_with_memory(running: Running, root: Path, executor: Executor) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 2, 1])
        async with running(makers.make, executor, store_bytes=2000) as chunks:
            with await chunks.lease(toy, range(4)) as lease:
                assert lease.batches[3]["text"][9].as_py() == "s2:9"
            assert chunks.numbers().store.memory.used > 0

    asyncio.run(main())


def test_a_read_only_disk_is_answered_with_memory(
    running: Running, root: Path, tmp_path: Path, executor: Executor, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder in the place of the temporary file's folder cannot be written even by root."""

    async def main() -> None:
        toy = dataset(root, [1, 2])
        async with running(makers.make, executor) as chunks:
            (tmp_path / "store").rmdir()
            (tmp_path / "store").touch()
            await chunks.infos(toy, range(3))
            numbers = chunks.numbers().store
            assert (numbers.store.used, numbers.memory.used > 0) == (0, True)
            assert "Not a directory" in numbers.trouble
            (tmp_path / "store").unlink()
        assert "handed over in memory" in caplog.text

    asyncio.run(main())


def test_user_code_in_processes_draws_the_same_for_the_same_chunk(running: Running, root: Path, tmp_path: Path) -> None:
    async def main(workers: int, *order: int) -> list[str]:
        toy = dataset(root, [1, 2, 1])
        async with running(makers.make_at_random, ProcessExecutor(workers)) as chunks:
            for chunk in order:
                await chunks.info(toy, chunk)
            infos = await chunks.infos(toy, range(4))
        for path in (tmp_path / "store").iterdir():
            path.unlink()
        return [info.content for info in infos]

    first = asyncio.run(main(1, 0, 1, 3))
    assert asyncio.run(main(2, 3, 1, 0)) == first
    assert len(set(first)) == 4


def test_a_killed_worker_is_replaced_and_its_chunks_are_made_again(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [4, 1])
        order(root, "kill-2", 2)
        executor = ProcessExecutor(2)
        async with running(makers.make_badly, executor) as chunks:
            infos = await chunks.infos(toy, range(5))
            assert [i.rows for i in infos] == [ROWS] * 5
            assert chunks.numbers().workers_restarted == 2
            assert chunks.numbers().made == 5
            assert marks(root, "kill-0") == 1  # what was made before the kill is not made again

    asyncio.run(main())


def test_a_chunk_that_kills_every_worker_fails_and_is_named(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [3, 1])
        order(root, "kill-1", 100)
        async with running(makers.make_badly, ProcessExecutor(1)) as chunks:
            with pytest.raises(Internal, match=r"toy@1, shard s0, chunk 1: .* died 3 times, .* was killed by SIGKILL"):
                await chunks.infos(toy, [1])
            assert (await chunks.info(toy, 0)).rows == ROWS
            assert (await chunks.info(toy, 3)).rows == ROWS
            with pytest.raises(Internal, match="chunk 1"):  # remembered: no more workers die of it
                await chunks.info(toy, 2)
            assert marks(root, "kill-1") == 3
            assert chunks.numbers().workers_restarted == 3
            assert chunks.numbers().store.store.used == sum(e.size for e in chunks._rack.disk.entries.values())

    asyncio.run(main())


def test_workers_killed_from_outside_at_any_time(running: Running, root: Path, tmp_path: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [2] * 30)
        executor = ProcessExecutor(2, max_deaths=10)
        async with running(makers.make_slowly, executor) as chunks:
            waiting = asyncio.create_task(chunks.infos(toy, range(60)))
            for kill in range(6):
                await until(lambda kill=kill: chunks.numbers().made > 5 * kill)  # type: ignore[misc]
                for pid in executor.processes()[:1]:
                    os.kill(pid, signal.SIGKILL)
            assert len(await waiting) == 60
            for pid in executor.processes():  # while they have nothing to do
                os.kill(pid, signal.SIGKILL)
            assert (await chunks.info(dataset(root / "b", [1], name="b"), 0)).rows == ROWS
            store = chunks.numbers().store.store
            assert store.used == sum(p.stat().st_size for p in (tmp_path / "store").iterdir())
            assert chunks.numbers().workers_restarted >= 5

    asyncio.run(main())


def test_stop_ends_processes_in_the_middle_of_a_chunk(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 1, 1])
        async with running(makers.make_when_allowed, ProcessExecutor(2)) as chunks:
            waiting = asyncio.create_task(chunks.infos(toy, range(3)))
            await until(lambda: marks(root, "task") == 2)
            began = time.monotonic()
            await chunks.stop()
            assert time.monotonic() - began < 30
            with pytest.raises(Unavailable):
                await waiting

    asyncio.run(main())


def test_a_reader_that_cannot_be_imported_is_told_at_the_start(running: Running, tmp_path: Path) -> None:
    class Unknown:
        """What pickles, but cannot be found by a process that does not know this test."""

    Unknown.__qualname__ = "no_such_reader"
    Unknown.__module__ = "tests.chunks.makers"
    makers.no_such_reader = Unknown  # type: ignore[attr-defined]

    async def main() -> None:
        with pytest.raises(Internal, match=r"a worker process cannot begin: AttributeError.*no_such_reader"):
            async with running(Unknown, ProcessExecutor(2)):
                pass

    try:
        asyncio.run(main())
    finally:
        del makers.no_such_reader  # type: ignore[attr-defined]


ORPHANS = """
import asyncio, os, sys
from pathlib import Path
from penstock_service.chunks.chunks import Chunks
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.store import Store
from penstock_service.core.channel import Bound
from penstock_service.core.retry import Retry
from tests.chunks import makers

async def main():
    root = Path(sys.argv[1])
    executor = ProcessExecutor(2)
    chunks = Chunks(makers.make_when_allowed, Store(root / "store", 1 << 20), executor, Bound("b", 1 << 20))
    await chunks.start()
    print(*executor.processes(), flush=True)
    await chunks.info(makers.dataset(root / "data", [1]), 0)  # for ever: nobody allows it

asyncio.run(main())
"""


def test_workers_end_with_a_server_that_is_killed_busy_or_not(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", ORPHANS, str(tmp_path)], stdout=subprocess.PIPE, env=env) as server:
        assert server.stdout
        workers = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
        assert len(workers) == 2
        log = tmp_path / "data" / "task.log"
        deadline = time.monotonic() + 20
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        server.kill()
    gone, alive = psutil.wait_procs(workers, timeout=10)
    assert len(gone) == 2
    assert not alive


def test_a_worker_process_ignores_ctrl_c(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 1])
        executor = ProcessExecutor(2)
        async with running(makers.make_when_allowed, executor) as chunks:
            waiting = asyncio.create_task(chunks.infos(toy, range(2)))
            await until(lambda: marks(root, "task") == 2)
            for pid in executor.processes():
                os.kill(pid, signal.SIGINT)
            go(root, 0, 1)
            assert len(await waiting) == 2
            assert chunks.numbers().workers_restarted == 0

    asyncio.run(main())


@pytest.mark.parametrize("kind", [ThreadExecutor, ProcessExecutor])
def test_the_number_of_workers_is_checked(kind: type[ThreadExecutor | ProcessExecutor]) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        kind(0)
    kind(1).stop()
