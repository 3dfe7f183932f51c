"""Steps left out and steps explained, as a training script asks for them."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("inspection")
    data = [
        datafiles.parquet(folder / "rows", shards=4, rows=250),
        datafiles.jsonl(folder / "more", shards=2, rows=150, first=10_000),
    ]
    with Running(tuple(map(str, data)), folder / "server") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def steps(iterator: Any) -> dict[int, list[int]]:
    return {batch.metadata.step: batch["id"].tolist() for batch in iterator}


def opened(client: penstock.Client, **more: Any) -> penstock.Stream:
    wish: dict[str, Any] = {"batch_size": 10, "output": "numpy", "seed": 3, "pool_rows": 300, **more}
    return client.stream("rows", **wish)


# -- skip ---------------------------------------------------------------------------------------------------------


def test_skipped_steps_leave_a_gap_in_the_numbers_and_move_no_other(client: penstock.Client) -> None:
    whole = steps(opened(client))
    with opened(client) as stream:
        stream.skip(range(20, 25))
        stream.skip(range(70, 72))
        assert steps(stream) == {n: rows for n, rows in whole.items() if n not in {20, 21, 22, 23, 24, 70, 71}}
        # Of this epoch alone.
        assert list(steps(stream)) == list(range(100))


def test_skipping_while_iterating_drops_what_is_under_way_and_nothing_else(client: penstock.Client) -> None:
    whole = steps(opened(client))
    with opened(client) as stream:
        found = {}
        for batch in stream:
            found[batch.metadata.step] = batch["id"].tolist()
            if batch.metadata.step == 30:
                assert len(stream) == 100
                stream.skip(range(31, 40))  # from the very next one on; they were sent already
                stream.skip(range(90, 95))
                stream.skip(range(5, 8), epoch=1)
                assert len(stream) == 86
        assert found == {n: rows for n, rows in whole.items() if n not in {*range(31, 40), *range(90, 95)}}
        assert (stream.epoch, len(stream)) == (1, 97)
        assert list(steps(stream)) == [n for n in range(100) if n not in {5, 6, 7}]


def test_state_carries_what_is_skipped(client: penstock.Client) -> None:
    whole = steps(opened(client))
    with opened(client) as never:
        never.skip(range(2, 4))
        unconnected = never.state_dict()
    stream = opened(client)
    stream.skip(range(50, 60))
    for batch in stream:
        if batch.metadata.step == 40:
            break
    state = json.loads(json.dumps(stream.state_dict()))
    assert state["cursor"]["skip"] == [[0, 50, 60]]
    copy = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
    for other in (opened(client), copy):
        other.load_state_dict(state)
        assert steps(other) == {n: rows for n, rows in whole.items() if 40 < n < 50 or n >= 60}
    # On two ranks, and with the steps skipped that the state does not know of.
    for rank in range(2):
        other = opened(client, batch_size=5, rank=rank, world_size=2)
        other.skip(range(99, 100))
        other.load_state_dict(state)
        assert list(steps(other)) == [*range(41, 50), *range(60, 100)]
    fresh = opened(client)
    fresh.load_state_dict(unconnected)
    assert list(steps(fresh)) == [0, 1, *range(4, 100)]


@pytest.mark.parametrize("last", ["short", "drop", "pad", "wrap"])
@pytest.mark.parametrize("first", [0, 5, 14, 15])
def test_an_epoch_that_is_skipped_to_its_end_ends_on_all_ranks(client: penstock.Client, last: str, first: int) -> None:
    def rank(number: int) -> tuple[list[int], list[int], list[int]]:
        with opened(client, batch_size=32, rank=number, world_size=2, last=last, name=f"{last}{first}") as stream:
            stream.skip(range(first, 1000))
            found = list(steps(stream))
            assert stream.epoch == 1
            profile = stream.profile()
            left = [int(profile[name]) for name in ("dropped_rows", "padded_rows", "repeated_rows")]
            return found, left, list(steps(stream))

    with ThreadPoolExecutor(2) as ranks:
        one, other = ranks.map(rank, range(2))
    assert one == other
    full = 15 if last == "drop" else 16
    assert one[0] == list(range(min(first, full)))
    assert one[1] == ([40, 0, 0] if last == "drop" else [0, 0, 0])
    assert one[2] == list(range(full))


def test_a_trainer_that_counts_its_steps_goes_on_behind_a_skipped_end(client: penstock.Client) -> None:
    with opened(client) as stream:
        stream.skip(range(90, 100))
        iterator = iter(stream)
        numbers = [next(iterator).metadata.step for _ in range(len(stream))]
        assert numbers == list(range(90))
        stream.skip(range(3), epoch=1)
        assert [next(iter(stream)).metadata.step, stream.epoch] == [3, 1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((range(2, 5),), r"steps 2 to 4 of epoch 0 cannot be skipped: this stream is at step 4 of epoch 0"),
        ((range(3, 4),), r"step 3 of epoch 0 cannot be skipped"),
        ((range(4, 10, 2),), r"must be a range of steps from 0 on, one after the other"),
        ((range(9, 9),), r"skip\(range\(9, 9\), epoch=0\): must be"),
        (([5, 6],), r"skip\(\[5, 6\], epoch=0\): must be"),
        ((range(5, 6), -1), r"epoch=-1: must be"),
    ],
)
def test_what_cannot_be_skipped_is_refused_with_the_reason(
    client: penstock.Client, arguments: tuple[Any, ...], says: str
) -> None:
    with opened(client) as stream:
        for _ in zip(range(4), stream, strict=False):
            pass
        before = stream.state_dict()
        with pytest.raises(penstock.InvalidRequest, match=says):
            stream.skip(*arguments)
        assert stream.state_dict() == before


def test_ranges_that_no_cursor_can_hold_are_refused(client: penstock.Client) -> None:
    with opened(client) as stream:
        for n in range(73):
            stream.skip(range(1000 + 2 * n, 1001 + 2 * n))
        with pytest.raises(penstock.InvalidRequest, match=r"need \d+ bytes, and a cursor has room for 1024"):
            stream.skip(range(5000, 5001))
        next(iter(stream))
        assert len(json.dumps(stream.state_dict())) < 4096


def test_ranks_that_skip_different_steps_are_told(client: penstock.Client) -> None:
    wish: dict[str, Any] = {"batch_size": 5, "world_size": 2, "name": "apart", "reconnect_timeout": 0.5}
    streams = [opened(client, rank=rank, **wish) for rank in range(2)]
    streams[0].skip(range(3, 5))
    next(iter(streams[0]))
    streams[1].skip(range(3, 6))
    says = "steps to skip: rank 1 asks for steps 3 to 5 of epoch 0, rank 0"
    with pytest.raises(penstock.RanksDisagree, match=says):
        next(iter(streams[1]))
    for stream in streams:
        stream.close()


def test_a_bad_row_is_passed_over_with_its_step(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.jsonl(tmp_path / "broken", shards=2, rows=100)
    lines = (data / "0001.jsonl").read_text().splitlines()
    lines[30] = '{"id": 130, "x": '
    (data / "0001.jsonl").write_text("\n".join(lines) + "\n")
    server = serve(data)
    with penstock.connect(server.target) as client:
        stream = client.stream("broken", batch_size=8, output="numpy", row_ids=True)
        found: list[int] = []
        with pytest.raises(penstock.DataError) as error:
            found.extend(row for batch in stream for row in batch.metadata.ids.tolist())
        step = len(found) // 8
        assert f"It would have come in step {step}" in str(error.value)
        bad = [row for row in stream.explain(step) if row["bad"]]
        assert [(row["shard"], row["shard_row"], row["row"]) for row in bad] == [("0001.jsonl", 30, 130)]
        assert "line 31" in bad[0]["bad"]
        stream.skip(range(step, step + 1))
        rest = [batch.metadata.ids.tolist() for batch in stream.resume()]
        assert sorted(
            [*found, *(row for batch in rest for row in batch), *(r["row"] for r in stream.explain(step, 0))]
        ) == list(range(200))


def test_what_is_skipped_stays_skipped_when_the_server_dies(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=4, rows=250))
    with penstock.connect(server.target) as client, opened(client, prefetch=4) as stream:
        stream.skip(range(10, 90))
        found = {}
        for batch in stream:
            found[batch.metadata.step] = batch["id"].tolist()
            if batch.metadata.step in (3, 91):
                server.kill()
                server.start()
        assert list(found) == [*range(10), *range(90, 100)]
        assert found == {n: rows for n, rows in steps(opened(client)).items() if n in found}


# -- explain ------------------------------------------------------------------------------------------------------


def test_every_step_is_explained_as_it_is_delivered_and_the_loop_goes_on(client: penstock.Client) -> None:
    with client.stream(["rows", "more"], batch_size=40, output="numpy", row_ids=True, pool_rows=400, seed=5) as stream:
        ahead = {n: stream.explain(n) for n in (0, 1, 17, 32)}
        seen = 0
        for batch in stream:
            number = batch.metadata.step
            explained = stream.explain(number)  # behind the stream by now
            table = explained.table
            assert table["row"].to_pylist() == batch.metadata.ids.tolist()
            assert table["source"].to_pylist() == batch.metadata.source.tolist()
            assert table["place"].to_pylist() == list(range(len(batch["id"])))
            if number in ahead:
                assert ahead[number].table.equals(table)
            for row, value in zip(explained, batch["id"].tolist(), strict=True):
                shards = {"rows": 250, "more": 150}
                first = 0 if row["dataset"] == "rows" else 10_000
                assert value == first + int(Path(row["shard"]).stem) * shards[row["dataset"]] + row["shard_row"]
                assert f"{row['dataset']}@{row['version']}" == stream.sources[row["source"]]
            seen += 1
        assert seen == 33
        # The epoch before, from its start; and one that has not begun.
        assert stream.explain(17, epoch=0).table.equals(ahead[17].table)
        coming = stream.explain(3, epoch=4)
        stream.set_epoch(4)
        assert [b.metadata.ids.tolist() for b in stream][3] == coming.table["row"].to_pylist()


def test_an_explanation_is_a_table_json_and_text(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=300, output="numpy", last="pad", rank=1, world_size=2, seed=1) as stream:
        stream.skip(range(1, 2))
        found = stream.explain(1)
        assert isinstance(found, penstock.Explanation)
        assert (len(found), found.epoch, found.step, found.skipped) == (300, 0, 1, True)
        both = stream.explain(1, all_ranks=True)
        assert both.table["rank"].to_pylist() == [0] * 300 + [1] * 300
        assert both.table.slice(300).to_pylist() == found.rows() == list(found)
        assert sum(both.table["valid"].to_pylist()) == 400
        assert json.loads(json.dumps(found.rows())) == found.rows()
        text = str(found).splitlines()
        assert text[0] == "step 1 of epoch 0 (skipped)"
        assert text[1].split() == ["rank", "place", "dataset", "shard", "shard", "row", "row", "segment", "unit"]
        assert len(text) == 302
        assert text[2].split()[:3] == ["1", "0", stream.sources[0]]
        assert text[-1].endswith("padding")


def test_a_step_that_is_not_there_says_how_many_there_are(client: penstock.Client) -> None:
    with opened(client) as stream:
        with pytest.raises(penstock.InvalidRequest, match="no step 100: an epoch has 100 steps"):
            stream.explain(100)
        with pytest.raises(penstock.InvalidRequest, match=r"step=-1"):
            stream.explain(-1)
    with opened(client, rows=[{"filter": "y > 2"}]) as stream:
        count = len(list(stream))
        with pytest.raises(penstock.InvalidRequest, match=f"no step {count}: epoch 0 has {count} steps"):
            stream.explain(count, epoch=0)
    huge = opened(client, global_batch_size=600_000, batch_size=None)
    with pytest.raises(penstock.InvalidRequest, match="step 0 has 600000 rows, and at most 500000 are explained"):
        huge.explain(0)


def test_explaining_leaves_no_trace(server: Running, client: penstock.Client) -> None:
    with opened(client, rank=0, world_size=2, batch_size=5, name="watched") as stream:
        stream.explain(50)
        sessions = [s for s in json.loads(server.get("/api/v1/sessions"))["sessions"] if s["name"] == "watched"]
        assert len(sessions) == 1
        assert stream.state_dict()["cursor"]["step"] == 0
        for _ in zip(range(5), stream, strict=False):
            pass
        state = stream.state_dict()
        stream.explain(2)
        stream.explain(80, all_ranks=True)
        assert stream.state_dict() == state
        assert list(steps(stream.resume())) == list(range(5, 100))


def test_the_command_line_explains_what_a_client_does(server: Running, client: penstock.Client, tmp_path: Path) -> None:
    def penstock_explain(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "penstock_service", "explain", *arguments, "--http", server.http]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    with client.stream(
        {"rows": 2, "more": 1}, batch_size=20, output="numpy", seed=9, pool_rows=500, until="first"
    ) as stream:
        expected = stream.explain(7).rows()
        done = penstock_explain(
            *("rows=2", "more=1", "--batch-size", "20", "--seed", "9", "--pool-rows", "500", "--until", "first"),
            *("--step", "7", "--json"),
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"epoch": 0, "step": 7, "rows": expected}
        for _ in zip(range(4), stream, strict=False):
            pass
        # The state brings seed, pool and batch.
        (tmp_path / "state.json").write_text(json.dumps(stream.state_dict()))
    arguments = ("rows=2", "more=1", "--until", "first", "--state", str(tmp_path / "state.json"), "--step", "7")
    assert json.loads(penstock_explain(*arguments, "--json").stdout)["rows"] == expected
    printed = penstock_explain(*arguments).stdout
    assert printed.startswith("step 7 of epoch 0\n")
    assert expected[0]["shard"] in printed
    refused = penstock_explain("rows=2", "more=1", "--state", str(tmp_path / "state.json"), "--step", "7")
    assert refused.returncode == 1
    assert "belongs to another stream" in refused.stderr
    assert "end (cursor" in refused.stderr
    for wrong, says in (
        (("rows", "--step", "0"), "batch_size is missing"),
        (("rows", "--step", "400", "--batch-size", "100"), "an epoch has 10 steps"),
        (("rows", "--step", "0", "--batch-size", "20000"), "at most 10000 are explained as JSON"),
        (("rows", "--step", "0", "--batch-size", "2", "--global-batch-size", "4"), "give one of them"),
    ):
        done = penstock_explain(*wrong)
        assert done.returncode == 1
        assert says in done.stderr
    assert penstock_explain("rows=x", "--step", "0", "--batch-size", "1").returncode == 2
    assert penstock_explain("rows", "--step", "0", "--batch-size", "1", "--rows", "{").returncode == 2
