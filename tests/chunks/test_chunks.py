"""The facade, with threads as workers: what callers see."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from penstock_service.chunks.chunks import Chunks
from penstock_service.chunks.executor import ThreadExecutor
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.errors import (
    DataError,
    Internal,
    OrderChanged,
    ResourceExhausted,
    SourceChanged,
    SourceUnreadable,
    Unavailable,
)
from tests.chunks import makers
from tests.chunks.conftest import Running
from tests.chunks.makers import ROWS, dataset, marks


def go(root: Path, *chunks: int) -> None:
    """Let `make_when_allowed` give these chunks."""
    for chunk in chunks:
        (root / f"go-{chunk}").touch()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():  # noqa: ASYNC110 - what is waited for happens in other threads
            await asyncio.sleep(0.002)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def toy(root: Path) -> DatasetVersion:
    """Chunks 0 to 2 are read together, 3 alone, 4 and 5 together, 6 to 10 alone; chunk 10 has an error."""
    return dataset(root, [3, 1, 2, 1, 1, 1, 1, 1])


Test = Callable[..., Coroutine[Any, Any, None]]


def test_rows_and_infos_of_chunks_in_any_order(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            infos = await chunks.infos(toy, [10, 0, 4, 0])
            assert [i.stored_rows for i in infos] == [ROWS] * 4
            assert [i.rows for i in infos] == [ROWS - 1, ROWS, ROWS, ROWS]
            assert infos[0].errors[0].where == "s7, line 3"
            assert infos[1] == await chunks.info(toy, 0)
            with await chunks.lease(toy, [4, 1]) as lease:
                assert list(lease.batches) == [4, 1]
                assert lease.batches[1]["text"][0].as_py() == "s0:10"
                assert lease.batches[4].schema.equals(toy.schema, check_metadata=True)

    asyncio.run(main())


def test_a_unit_is_read_once_however_many_ask_at_once(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make_slowly) as chunks:
            infos = asyncio.gather(*(chunks.infos(toy, [c % 3]) for c in range(30)))
            for lease in await asyncio.gather(*(chunks.lease(toy, [0, 1, 2]) for _ in range(10))):
                lease.release()
            await infos
        assert marks(root, "task") == 1
        assert chunks.numbers().made == 3

    asyncio.run(main())


def test_each_is_woken_when_its_own_chunk_is_there(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make_when_allowed) as chunks:
            tasks = [asyncio.create_task(chunks.info(toy, c)) for c in range(3)]
            for made in range(3):
                await asyncio.sleep(0.02)
                assert [t.done() for t in tasks] == [n < made for n in range(3)]
                go(root, made)
                await asyncio.wait_for(tasks[made], 10)
        assert marks(root, "task") == 1

    asyncio.run(main())


def test_a_unit_read_for_one_chunk_gives_all_its_chunks(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            await chunks.info(toy, 2)
            await chunks.infos(toy, [0, 1])
            assert chunks.numbers().made == 3
        assert marks(root, "task") == 1

    asyncio.run(main())


def test_what_was_made_is_found_by_the_next_server(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            before = await chunks.infos(toy, range(10))
        async with running(makers.make) as chunks:
            assert await chunks.infos(toy, range(10)) == before
            assert (chunks.numbers().made, chunks.numbers().hits) == (0, 10)

    asyncio.run(main())


def test_another_version_with_the_same_shards_makes_nothing_again(running: Running, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            await chunks.infos(dataset(root, [2, 1]), range(3))
            await chunks.infos(dataset(root, [2, 1, 1], version="2"), range(4))
            assert chunks.numbers().made == 4

    asyncio.run(main())


def test_an_open_chunk_is_leased_without_waiting(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            assert chunks.lease_now(toy, [0]) is None
            (await chunks.lease(toy, [0, 5])).release()
            waiting = chunks.lease(toy, [0, 5])
            with pytest.raises(StopIteration) as ended:
                waiting.send(None)
            with ended.value.value as lease:
                assert set(lease.batches) == {0, 5}
            lease.release()
            assert chunks.lease_now(toy, [0, 6]) is None

    asyncio.run(main())


def test_a_lease_keeps_chunks_that_other_versions_would_evict(running: Running, root: Path) -> None:
    async def main() -> None:
        size = 2000  # more than a chunk, less than two
        async with running(makers.make, store_bytes=size, memory_bytes=0) as chunks:
            mine, other = dataset(root, [1]), dataset(root / "other", [1, 1], name="other")
            with await chunks.lease(mine, [0]) as lease:
                with pytest.raises(ResourceExhausted, match="raise store_bytes or memory_bytes"):
                    await chunks.lease(other, [1])
                assert lease.batches[0].num_rows == ROWS
            (await chunks.lease(other, [1])).release()
            assert chunks.numbers().store.evicted == 1
            with chunks.hold(other), pytest.raises(ResourceExhausted):
                await chunks.lease(mine, [0])
            (await chunks.lease(mine, [0])).release()

    asyncio.run(main())


def test_what_does_not_fit_on_disk_goes_through_memory(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [6])
        async with running(makers.make, store_bytes=3000, memory_bytes=1 << 20) as chunks:
            with await chunks.lease(toy, range(6)) as lease:
                assert [lease.batches[c]["position"][0].as_py() for c in range(6)] == [ROWS * c for c in range(6)]
            numbers = chunks.numbers().store
            assert 0 < numbers.store.used <= 3000
            assert numbers.memory.used > 0
            with chunks.hold(toy):
                pass
            assert chunks.numbers().store.memory.used == 0

    asyncio.run(main())


def test_a_working_set_above_both_bounds_is_refused_with_the_numbers(running: Running, root: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1] * 6)
        async with running(makers.make, store_bytes=3000, memory_bytes=3000) as chunks:
            with pytest.raises(ResourceExhausted, match=r"toy@1, shard s\d, chunk \d.* of 3,000 .* of 3,000 "):
                await chunks.lease(toy, range(6))
            await chunks.infos(toy, range(6))  # one after the other they fit
            assert chunks.numbers().retried >= 3

    asyncio.run(main())


def test_infos_outlive_the_bytes(running: Running, root: Path) -> None:
    async def main() -> None:
        first, second = dataset(root, [1]), dataset(root / "b", [1, 1], name="b")
        async with running(makers.make, store_bytes=2000, memory_bytes=0) as chunks:
            info = await chunks.info(first, 0)
            await chunks.info(second, 1)
            assert await chunks.info(first, 0) == info
            assert chunks.numbers().made == 2
            (await chunks.lease(first, [0])).release()
            assert chunks.numbers().made == 3

    asyncio.run(main())


def test_a_chunk_made_again_must_be_what_it_was(running: Running, root: Path, tmp_path: Path) -> None:
    async def main() -> None:
        toy = dataset(root, [1])
        async with running(makers.make_with_clock) as chunks:
            before = await chunks.info(toy, 0)
            chunks._store.discard(chunks._versions[("toy", "1", str(root))].key(0))
            with pytest.raises(OrderChanged, match="dataset toy@1, shard s0, chunk 0 is not what it was: 10 "):
                await chunks.lease(toy, [0])
            assert await chunks.info(toy, 0) == before
            await until(lambda: not list((tmp_path / "store").iterdir()))

    asyncio.run(main())


def test_a_stored_chunk_that_was_replaced_is_seen(running: Running, root: Path, tmp_path: Path) -> None:
    """By another server, for one, whose transform gave something else."""

    async def main() -> None:
        toy = dataset(root, [1])
        async with running(makers.make_with_clock) as chunks:
            await chunks.info(toy, 0)
            await asyncio.to_thread(chunks._store.flush)
            [path] = (tmp_path / "store").iterdir()
            kept = path.read_bytes()
        path.unlink()
        async with running(makers.make_with_clock) as chunks:
            await chunks.info(toy, 0)
            await asyncio.to_thread(chunks._store.flush)
            chunks._rack.close_all()
            path.write_bytes(kept)
            with pytest.raises(OrderChanged):
                await chunks.lease(toy, [0])

    asyncio.run(main())


def test_unreadable_sources_are_tried_again(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        makers.order(root, "source-1", 3)
        async with running(makers.make_badly) as chunks:
            await chunks.infos(toy, range(3))
            assert (chunks.numbers().retried, chunks.numbers().failed) == (3, 0)

    asyncio.run(main())


def test_unreadable_sources_fail_in_the_end_and_are_not_remembered(
    running: Running, toy: DatasetVersion, root: Path
) -> None:
    async def main() -> None:
        makers.order(root, "source-1", 5)
        async with running(makers.make_badly) as chunks:
            got = await asyncio.gather(*(chunks.info(toy, c) for c in range(3)), return_exceptions=True)
            assert [type(x).__name__ for x in got] == ["ChunkInfo", "SourceUnreadable", "SourceUnreadable"]
            assert got[1] is not got[2]
            await chunks.infos(toy, range(3))

    asyncio.run(main())


def test_a_data_error_goes_to_all_who_wait_and_is_remembered(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        makers.order(root, "data-4", 1)
        async with running(makers.make_badly) as chunks:
            got = await asyncio.gather(*(chunks.infos(toy, [4, 3]) for _ in range(5)), return_exceptions=True)
            assert [type(x) for x in got] == [DataError] * 5
            for _ in range(2):
                with pytest.raises(DataError, match="chunk 4 is no good"):
                    await chunks.lease(toy, [5])
            await chunks.info(toy, 3)
            assert chunks.numbers().failed == 1

    asyncio.run(main())


@pytest.mark.parametrize(("what", "named"), [("bug", "ZeroDivisionError"), ("exit", "SystemExit")])
def test_an_unforeseen_error_is_internal_and_the_worker_lives(
    running: Running, toy: DatasetVersion, root: Path, what: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        for chunk in range(5):
            makers.order(root, f"{what}-{chunk}", 1)
        async with running(makers.make_badly) as chunks:
            for chunk in (0, 3, 4):
                with pytest.raises(Internal, match=f"failed with {named}"):
                    await chunks.info(toy, chunk)
            await chunks.info(toy, 6)
        assert "Traceback" in caplog.text

    asyncio.run(main())


@pytest.mark.parametrize(
    ("made", "error", "text"),
    [
        (lambda v: [], Internal, "ended without dataset toy@1, shard s1, chunk 3"),
        (lambda v: [(4, v), (3, v)], Internal, "gave chunk 4"),
        (lambda v: [(3, type(v)(9, v.rows[:9]))], SourceChanged, "has 9 stored rows where the dataset version has 10"),
        (
            lambda v: [(3, type(v)(10, v.rows.rename_columns(["position", "other"])))],
            Internal,
            "made to another schema",
        ),
    ],
)
def test_a_reader_that_breaks_its_promise_is_told(
    running: Running, toy: DatasetVersion, made: Callable[[Any], Any], error: type[Exception], text: str
) -> None:
    async def main() -> None:
        def make(task: Any) -> Any:
            return iter(made(makers.value(task.slices[0])))

        async with running(make) as chunks:
            with pytest.raises(error, match=text):
                await chunks.info(toy, 3)

    asyncio.run(main())


def test_hints_are_made_before_anybody_asks(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            chunks.prefetch(toy, range(6))
            await until(lambda: chunks.numbers().made == 6)
            assert chunks.lease_now(toy, range(6)) is not None
            chunks.prefetch(toy, range(6))
            chunks.prefetch(toy, range(8))
            await until(lambda: chunks.numbers().made == 8)

    asyncio.run(main())


def test_hints_are_bounded_and_what_is_demanded_overtakes_them(
    running: Running, toy: DatasetVersion, root: Path
) -> None:
    async def main() -> None:
        async with running(makers.make_when_allowed, ThreadExecutor(1), read_ahead=5000) as chunks:
            go(root, 10)
            await chunks.info(toy, 10)
            chunks.prefetch(toy, [6, 7, 8, 9, 3, 4, 5])
            await until(lambda: chunks.numbers().hints_forgotten == 2)
            demanded = asyncio.create_task(chunks.info(toy, 4))
            await asyncio.sleep(0.01)
            go(root, 4, 5, 6)
            await asyncio.wait_for(demanded, 10)
            assert marks(root, "made-7") == 0
            go(root, 3, 7, 8, 9)
            await until(lambda: chunks.numbers().made == 8)
            assert chunks.numbers().read_ahead.used == 0

    asyncio.run(main())


def test_hints_go_with_whoever_held_the_dataset(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make_when_allowed, ThreadExecutor(1)) as chunks:
            go(root, 10)
            await chunks.info(toy, 10)
            with chunks.hold(toy):
                chunks.prefetch(toy, [6, 7, 8])
                await until(lambda: chunks.numbers().read_ahead.used > 0)
            go(root, 6, 7, 8)
            await until(lambda: chunks.numbers().made == 2)
            await asyncio.sleep(0.05)
            assert chunks.numbers().made == 2

    asyncio.run(main())


def test_who_gives_up_waiting_leaves_nothing_pinned_and_nothing_demanded(
    running: Running, toy: DatasetVersion, root: Path
) -> None:
    async def main() -> None:
        async with running(makers.make_when_allowed, ThreadExecutor(1)) as chunks:
            go(root, 0, 1, 2)
            tasks = [asyncio.create_task(chunks.lease(toy, [0, c])) for c in (3, 6, 7, 8)]
            await until(lambda: chunks.numbers().made == 3)
            await asyncio.sleep(0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert chunks.numbers().waiting == 0
            go(root, 3, 6, 7, 8)
            await until(lambda: chunks.numbers().read_ahead.used == 0)
            await asyncio.sleep(0.02)
            assert chunks.numbers().made <= 5  # what was begun ends, what was queued is not begun
            assert all(entry.pins == 0 for entry in chunks._rack.disk.entries.values())

    asyncio.run(main())


def test_cancelling_while_files_are_opened_leaves_nothing_pinned(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            await chunks.infos(toy, range(8))
            chunks._rack.close_all()
            task = asyncio.create_task(chunks.lease(toy, range(8)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: all(entry.pins == 0 for entry in chunks._rack.disk.entries.values()))

    asyncio.run(main())


def test_stop_ends_those_who_wait(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        async with running(makers.make_slowly, ThreadExecutor(1)) as chunks:
            tasks = [asyncio.create_task(chunks.infos(toy, [c])) for c in range(11)]
            await until(lambda: chunks.numbers().made > 0)
            chunks.prefetch(dataset(root / "new", [1], name="new"), [0])
            await chunks.stop()
            await chunks.stop()
            got = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(x) for x in got} <= {list, Unavailable}
            assert isinstance(got[-1], Unavailable)
            for call in (chunks.info(toy, 0), chunks.lease(toy, [0])):
                with pytest.raises(Unavailable, match="stopping"):
                    await call
            chunks.prefetch(toy, [0])
            assert chunks.lease_now(toy, [0]) is None

    asyncio.run(main())


def test_stop_without_start(running: Running, tmp_path: Path) -> None:
    from penstock_service.chunks.store import Store
    from penstock_service.core.channel import Bound

    async def main() -> None:
        chunks = Chunks(makers.make, Store(tmp_path / "store", 1000), ThreadExecutor(1), Bound("read ahead", 1))
        await chunks.stop()
        assert not (tmp_path / "store").exists()

    asyncio.run(main())


def test_a_stopped_server_may_start_again(running: Running, toy: DatasetVersion) -> None:
    async def main() -> None:
        async with running(makers.make) as chunks:
            await chunks.info(toy, 0)

    asyncio.run(main())
    asyncio.run(main())


def test_thousands_of_chunks_at_once_leave_the_loop_its_turn(running: Running, root: Path) -> None:
    async def main() -> None:
        many = dataset(root, [1] * 1500)
        async with running(makers.make, store_bytes=1 << 30) as chunks:
            turns, ended = 0, False

            async def probe() -> None:
                nonlocal turns
                while not ended:
                    await asyncio.sleep(0)
                    turns += 1

            task = asyncio.create_task(probe())
            await chunks.infos(many, range(1500))
            ended = True
            await task
            assert turns > 100  # the loop went round many times while they were asked for and made
            assert chunks.numbers().made == 1500

    asyncio.run(main())


def test_a_source_error_in_a_hint_harms_nobody(running: Running, toy: DatasetVersion, root: Path) -> None:
    async def main() -> None:
        makers.order(root, "source-6", 1)
        makers.order(root, "data-7", 1)
        async with running(makers.make_badly) as chunks:
            chunks.prefetch(toy, [6, 7])
            await until(lambda: chunks.numbers().failed + chunks.numbers().retried == 2)
            assert (await chunks.info(toy, 6)).rows == ROWS
            with pytest.raises(DataError):
                await chunks.info(toy, 7)
            assert isinstance(SourceUnreadable("x"), Exception)

    asyncio.run(main())
