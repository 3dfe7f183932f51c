"""Chunks that are made before anybody reads them: demand goes first, and nothing gives way to a preload."""

import asyncio
from pathlib import Path

import pytest

from penstock_service.chunks.ahead import Plan
from penstock_service.chunks.executor import ThreadExecutor
from penstock_service.core.errors import ResourceExhausted, Unavailable
from tests.chunks import makers
from tests.chunks.conftest import Running
from tests.chunks.makers import ROWS, dataset, marks, order
from tests.chunks.test_chunks import go, until


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def over(plan: Plan) -> None:
    async with asyncio.timeout(30):
        while not plan.over:
            plan.changed.clear()
            await plan.changed.wait()


def test_all_chunks_are_made_once_and_the_first_use_is_a_hit(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 3, 2])
        async with running(makers.make) as chunks:
            plan = await chunks.make_ahead(toy, "warm")
            await over(plan)
            status = plan.status()
            assert (status.state, status.chunks, status.there, status.made) == ("done", 6, 0, 6)
            assert status.made_bytes == chunks.status().used
            await chunks.infos(toy, range(6))
            numbers = chunks.numbers()
            assert (numbers.hits, numbers.misses, numbers.ahead, numbers.made) == (6, 0, 6, 6)
            again = await chunks.make_ahead(toy, "preload")
            assert (again.state, again.status().there) == ("done", 6)

    asyncio.run(main())


def test_what_a_session_needs_goes_first(running: Running, root: Path) -> None:
    """One worker makes a unit of four chunks ahead; a demand comes while it makes the first."""

    async def main() -> None:
        toy, wanted = dataset(root, [4, 1]), dataset(root / "wanted", [1], name="wanted", files="w")
        async with running(makers.make_when_allowed, ThreadExecutor(1)) as chunks:
            plan = await chunks.make_ahead(toy, "preload")
            await until(lambda: marks(root, "task") == 1)
            demand = asyncio.ensure_future(chunks.info(wanted, 0))
            await until(lambda: chunks.numbers().waiting == 1)
            go(root / "wanted", 0)
            go(root, 0)
            assert (await demand).rows == ROWS
            # The worker let go after its chunk: it did not make the other three first.
            assert not plan.over
            assert marks(root, "made-1") == 0
            go(root, 1, 2, 3, 4)
            await over(plan)
            assert plan.status().state == "done"
            assert chunks.status().chunks == 6

    asyncio.run(main())


def test_nothing_gives_way_to_a_preload_and_unread_versions_to_a_warm(running: Running, root: Path) -> None:
    async def main() -> None:
        mine, other = dataset(root, [1, 1]), dataset(root / "other", [1, 1], name="other", files="o")
        async with running(makers.make, store_bytes=2 * 1500 + 100, memory_bytes=0) as chunks:
            await over(await chunks.make_ahead(mine, "warm"))
            refused = await chunks.make_ahead(other, "preload")
            assert refused.state == "stopped"
            assert "more bytes in the chunk store" in refused.reason
            assert (chunks.numbers().store.evicted, chunks.numbers().ahead) == (0, 2)
            with chunks.hold(mine), pytest.raises(ResourceExhausted, match="raise --store-bytes by 1MiB"):
                await chunks.make_ahead(other, "warm")
            await over(await chunks.make_ahead(other, "warm"))
            assert chunks.numbers().store.evicted == 2

    asyncio.run(main())


def test_a_preload_whose_estimate_was_too_low_stops_at_the_cap(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1] * 8, size=100)  # more than ten times as large in truth
        async with running(makers.make, store_bytes=4 * 1500, memory_bytes=0) as chunks:
            plan = await chunks.make_ahead(toy, "preload")
            await over(plan)
            assert plan.state == "stopped"
            assert "the store is full" in plan.reason
            status = chunks.status()
            assert 0 < status.used <= status.limit
            assert status.evicted == 0

    asyncio.run(main())


def test_what_cannot_be_read_is_told_and_stops_nothing_else(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1, 1, 1])
        order(root, "data-1", 99)
        async with running(makers.make_badly) as chunks:
            plan = await chunks.make_ahead(toy, "warm")
            await over(plan)
            assert (plan.state, plan.made) == ("stopped", 2)
            assert "chunk 1 is no good" in plan.reason

    asyncio.run(main())


def test_stop_does_not_wait_for_what_is_made_ahead(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [50])
        async with running(makers.make_when_allowed) as chunks:
            plan = await chunks.make_ahead(toy, "preload")
            await until(lambda: marks(root, "task") == 1)
            go(root, *range(50))
            chunks.stop_ahead(plan, "interrupted")
            assert plan.status().reason == "interrupted"
        with pytest.raises(Unavailable):
            await chunks.make_ahead(toy, "preload")

    asyncio.run(main())


def test_an_interrupted_plan_makes_no_more(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1] * 20)
        async with running(makers.make_when_allowed, ThreadExecutor(1)) as chunks:
            plan = await chunks.make_ahead(toy, "warm")
            await until(lambda: marks(root, "task") == 1)
            chunks.stop_ahead(plan, "interrupted")
            go(root, *range(20))
            other = dataset(root / "other", [1], name="other", files="o")
            go(root / "other", 0)
            await chunks.info(other, 0)  # the one worker is through with what it had in hand
            assert marks(root, "task") == 1

    asyncio.run(main())


def test_no_plan_that_is_not_over_is_forgotten_however_many_there_are(running: Running, root: Path) -> None:
    async def main() -> None:
        many = [dataset(root / f"{n}", [1], name=f"toy{n}", files=f"{n}-") for n in range(50)]
        async with running(makers.make_when_allowed, ThreadExecutor(1)) as chunks:
            plans = [await chunks.make_ahead(one, "preload") for one in many]
            for n in range(50):
                go(root / f"{n}", 0)
            for plan in plans:
                await over(plan)
            assert {plan.state for plan in plans} == {"done"}
            assert chunks.status().chunks == 50
            await chunks.make_ahead(many[0], "preload")
            assert len(chunks._production.ahead.statuses()) == 33  # of those that are over the latest

    asyncio.run(main())


def test_a_warm_of_what_is_being_preloaded_needs_its_room_once(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1] * 10)
        async with running(makers.make_when_allowed, ThreadExecutor(1), store_bytes=15 * 1000) as chunks:
            preloaded = await chunks.make_ahead(toy, "preload")
            warmed = await chunks.make_ahead(toy, "warm")
            assert not warmed.over
            other = dataset(root / "other", [1] * 6, name="other", files="o")
            with pytest.raises(ResourceExhausted, match=r"needs about 6,000 more bytes .* has 5,000 of 15,000 left"):
                await chunks.make_ahead(other, "warm")
            assert not preloaded.over
            go(root, *range(10))

    asyncio.run(main())


def test_a_warm_is_refused_only_while_a_full_disk_is_left_alone(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1])
        async with running(makers.make) as chunks:
            chunks._store._refused("No space left on device")
            with pytest.raises(ResourceExhausted) as refused:
                await chunks.make_ahead(toy, "warm")
            assert str(refused.value).endswith("the chunk store cannot be written: No space left on device")
            chunks._store._rests_until = 0.0
            plan = await chunks.make_ahead(toy, "warm")
            await over(plan)
            assert (plan.state, plan.made, chunks.numbers().store.trouble) == ("done", 1, "")

    asyncio.run(main())
