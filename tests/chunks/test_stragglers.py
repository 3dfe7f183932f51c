"""A chunk that is late is made by a second worker too; whoever ends first is right, and nothing shows it."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.chunks import stragglers
from penstock_service.chunks.executor import Executor, ThreadExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.stragglers import Pace
from penstock_service.core.errors import DataError, SourceUnreadable
from penstock_service.core.retry import Retry
from tests.chunks import makers
from tests.chunks.conftest import Running
from tests.chunks.makers import ROWS, dataset, marks, order
from tests.chunks.test_chunks import go, until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def impatient(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk is late as soon as it is begun."""
    monkeypatch.setattr(stragglers, "_UNKNOWN", 0.0)
    monkeypatch.setattr(stragglers, "_LEAST", 0.0)
    monkeypatch.setattr(stragglers, "_TIMES", 0.0)
    monkeypatch.setattr(stragglers, "_TIMES_IDLE", 0.0)


@given(st.lists(st.floats(0, 100), max_size=200))
def test_a_chunk_is_late_when_it_takes_some_times_what_is_usual(seconds: list[float]) -> None:
    pace = Pace()
    for took in seconds:
        pace.took(took)
    assert pace.late_after >= min(stragglers._LEAST, stragglers._UNKNOWN)
    if len(seconds) < stragglers._ENOUGH:
        assert pace.late_after == stragglers._UNKNOWN
    else:
        assert pace.late_when_idle <= pace.late_after
        late = sum(took > pace.late_when_idle for took in seconds[-stragglers._REMEMBERED :])
        assert late <= min(len(seconds), stragglers._REMEMBERED) / 2  # never the usual ones


@pytest.mark.usefixtures("impatient")
def test_a_worker_that_hangs_holds_up_nobody(running: Running, root: Path, executor: Executor) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 2])
        async with running(makers.make_hanging_once, executor) as chunks:
            order(root, "hang-0", 1)
            assert (await chunks.info(toy, 0)).rows == ROWS  # the first worker that began it still hangs
            assert chunks.numbers().begun_again == 1
            assert chunks.numbers().starved_seconds > 0
            go(root, 0)
            assert len(await chunks.infos(toy, range(3))) == 3
            await until(lambda: chunks._production.agenda.running == 0)
            assert chunks.numbers().read_ahead.used == 0
        assert marks(root, "hang-0") == 2

    asyncio.run(main())


def test_what_takes_its_usual_time_is_made_once(running: Running, root: Path, executor: Executor) -> None:
    async def main() -> None:
        async with running(makers.make, executor) as chunks:
            await chunks.infos(dataset(root, [1, 3, 2, 1] * 5), range(35))
            assert chunks.numbers().begun_again == 0
            assert chunks.numbers().made == 35
        assert marks(root, "task") == 20

    asyncio.run(main())


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [ThreadExecutor, ProcessExecutor])
def test_making_everything_twice_never_shows(
    running: Running, root: Path, tmp_path: Path, kind: type[ThreadExecutor | ProcessExecutor]
) -> None:
    """Nor do failures and deaths of one of the two."""
    units = [1, 3, 2, 1, 1, 1, 1, 1] * 2
    made: list[list[str]] = []

    async def main(workers: int) -> None:
        async with running(makers.make_badly, kind(workers), retry=Retry(20, 0.002, 0.01)) as chunks:
            infos = await chunks.infos(dataset(root, units), range(22))
            made.append([info.content for info in infos])
            await until(lambda: chunks._production.agenda.running == 0)
            assert chunks.numbers().read_ahead.used == 0
            assert chunks.numbers().store.store.used == sum(e.size for e in chunks._rack.disk.entries.values())
        for path in (tmp_path / "store").iterdir():
            path.unlink()

    asyncio.run(main(1))
    for chunk in (0, 5, 9, 13):
        order(root, f"source-{chunk}", marks(root, f"source-{chunk}") + 3)
    if kind is ProcessExecutor:
        order(root, "kill-2", marks(root, "kill-2") + 1)
    asyncio.run(main(4))
    assert made[0] == made[1]


@pytest.mark.usefixtures("impatient")
def test_a_chunk_that_neither_of_two_can_read_fails_once(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1])
        order(root, "source-0", 1000)
        async with running(makers.make_badly, ThreadExecutor(3), retry=Retry(2, 0.002, 0.01)) as chunks:
            with pytest.raises(SourceUnreadable, match=r"chunk 0 cannot be read now \(3 tries"):
                await chunks.info(toy, 0)
            assert chunks.numbers().failed == 1
            await until(lambda: chunks._production.agenda.running == 0)
            assert chunks.numbers().read_ahead.used == 0

    asyncio.run(main())


@pytest.mark.usefixtures("impatient")
def test_a_task_that_fails_late_on_two_workers_is_given_up(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1])
        async with running(makers.make_failing_when_allowed, ThreadExecutor(3)) as chunks:
            asked = asyncio.ensure_future(chunks.info(toy, 0))
            try:
                await until(lambda: marks(root, "begun") == 2)
                go(root, 0)
                await until(lambda: chunks._production.agenda.running == 1)  # the second has no twin any more
                assert chunks.numbers().begun_again == 1
                go(root, 1)
                with pytest.raises(DataError, match="chunk 0 is no good"):
                    await asked
                assert chunks.numbers().failed == 1
                await until(lambda: chunks._production.agenda.running == 0)
                assert chunks.numbers().read_ahead.used == 0
            finally:
                go(root, *range(10))

    asyncio.run(main())
