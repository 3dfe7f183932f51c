"""More workers, and fewer, while chunks are being made."""

import asyncio
import itertools
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from penstock_service.chunks.executor import Executor, ThreadExecutor
from penstock_service.chunks.mixed import MixedExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.core.errors import Internal
from tests.chunks import makers
from tests.chunks.conftest import Running
from tests.chunks.makers import ROWS, dataset, marks
from tests.chunks.test_chunks import go, until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def hands(executor: Executor) -> int:
    """Workers that there are."""
    assert isinstance(executor, ThreadExecutor | ProcessExecutor)
    return len(executor._threads if isinstance(executor, ThreadExecutor) else executor._seats)


def test_new_workers_take_what_waits_and_the_first_to_be_free_go(
    running: Running, root: Path, executor: Executor
) -> None:
    async def main() -> None:
        toy = dataset(root, [1] * 6)
        async with running(makers.make_when_allowed, executor) as chunks:
            await chunks.resize(1)
            await until(lambda: hands(executor) == 1)
            waiting = asyncio.create_task(chunks.infos(toy, range(6)))
            await until(lambda: marks(root, "task") == 1)
            await chunks.resize(4)
            await until(lambda: marks(root, "task") == 4)
            assert (executor.workers, hands(executor), chunks.numbers().workers) == (4, 4, 4)
            await chunks.resize(2)
            assert executor.workers == 2
            go(root, *range(6))
            assert [info.rows for info in await waiting] == [ROWS] * 6
            await until(lambda: hands(executor) == 2)
            assert marks(root, "task") == 6
            assert chunks.numbers().workers_restarted == 0

    asyncio.run(main())


def test_busy_workers_finish_their_chunk_when_there_are_to_be_fewer(
    running: Running, root: Path, executor: Executor
) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 1])
        async with running(makers.make_when_allowed, executor) as chunks:
            waiting = asyncio.create_task(chunks.infos(toy, range(2)))
            await until(lambda: marks(root, "task") == 2)
            await chunks.resize(1)
            go(root, 0, 1)
            assert len(await waiting) == 2
            await until(lambda: hands(executor) == 1)
            assert marks(root, "task") == 2

    asyncio.run(main())


def test_how_many_workers_there_are_and_which_never_shows(running: Running, root: Path, tmp_path: Path) -> None:
    written: list[dict[str, bytes]] = []

    async def main(executor: Executor, sizes: list[int]) -> None:
        async with running(makers.make_at_random, executor) as chunks:
            toy = dataset(root, [1, 3, 2] * 6)
            for n, chunk in enumerate(range(0, 36, 4)):
                waiting = asyncio.create_task(chunks.infos(toy, range(chunk, chunk + 4)))
                await chunks.resize(sizes[n % len(sizes)])
                await waiting
        written.append({p.name: p.read_bytes() for p in (tmp_path / "store").iterdir()})
        for path in (tmp_path / "store").iterdir():
            path.unlink()

    asyncio.run(main(ProcessExecutor(1), [1]))
    asyncio.run(main(ProcessExecutor(3), [3, 1, 4, 2]))
    assert len(written[0]) == 36
    assert written[0] == written[1]


def test_workers_killed_while_their_number_changes(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [2] * 30)
        executor = ProcessExecutor(2, max_deaths=10)
        async with running(makers.make_slowly, executor) as chunks:
            waiting = asyncio.create_task(chunks.infos(toy, range(60)))
            sizes = itertools.cycle([4, 1, 3, 2])
            for kill in range(6):
                await until(lambda kill=kill: chunks.numbers().made > 5 * kill)  # type: ignore[misc]
                changing = asyncio.create_task(chunks.resize(next(sizes)))
                for pid in executor.processes():
                    with suppress(ProcessLookupError):  # it was free and has just ended
                        os.kill(pid, signal.SIGKILL)
                await changing
            assert len(await waiting) == 60
            await chunks.resize(2)
            await until(lambda: hands(executor) == 2)
            assert chunks.numbers().workers_restarted > 0

    asyncio.run(main())


def test_a_worker_that_cannot_begin_leaves_those_that_are_there(
    running: Running, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 1])
        executor = ProcessExecutor(1)
        async with running(makers.make, executor) as chunks:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "executable", "/bin/false")
                with pytest.raises(Internal, match="cannot begin"):
                    await chunks.resize(3)
            assert (executor.workers, hands(executor), chunks.numbers().workers) == (1, 1, 1)
            assert len(await chunks.infos(toy, range(2))) == 2
            await chunks.resize(2)
            assert hands(executor) == 2

    asyncio.run(main())


@pytest.mark.parametrize("kind", [ThreadExecutor, ProcessExecutor, MixedExecutor])
def test_a_number_given_before_the_start_is_the_number_started(
    running: Running, root: Path, kind: type[ThreadExecutor | ProcessExecutor | MixedExecutor]
) -> None:
    executor = kind(1)
    executor.resize(3)

    async def main() -> None:
        toy = dataset(root, [1] * 3)
        async with running(makers.make_when_allowed, executor) as chunks:
            waiting = asyncio.create_task(chunks.infos(toy, range(3)))
            await until(lambda: marks(root, "task") == 3)
            go(root, 0, 1, 2)
            await waiting
        await chunks.resize(2)  # it has stopped: nothing begins

    asyncio.run(main())
    with pytest.raises(ValueError, match="workers is 0"):
        executor.resize(0)
