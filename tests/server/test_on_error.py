"""Bad rows by policy, through the real server and client: the order is that of the same files without errors."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve
from tests.running import Running

SHARDS, ROWS = 4, 150
BAD = (20, 21, 22, 140, 310, 449)  # 449 is the last row of its shard
NEAREST = {20: 19, 21: 19, 22: 23, 140: 139, 310: 309, 449: 448}  # the lower of two that are equally far

Ids = list[int]


def spoil(folder: Path) -> Path:
    """Lines that are no JSON in place of the rows in BAD."""
    for shard in range(SHARDS):
        file = folder / f"{shard:04}.jsonl"
        lines = file.read_text().splitlines()
        for row in BAD:
            if row // ROWS == shard:
                lines[row % ROWS] = '{"id": ' + str(row)
        file.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("policy")
    clean = datafiles.jsonl(folder / "clean", SHARDS, ROWS)
    spoiled = spoil(datafiles.jsonl(folder / "spoiled", SHARDS, ROWS))
    hopeless = folder / "hopeless"
    hopeless.mkdir()
    (hopeless / "0.jsonl").write_text('{"id": 0, "x": 0.5, "y": 1}\n' * 30)
    (hopeless / "1.jsonl").write_text('{"id": 1, "x": 0.5, "y": 1}\n' + '{"id": 1, \n' * 9)
    with Running((str(clean), str(spoiled), str(hopeless)), folder / "server", ("--chunk-rows", "64")) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def open_stream(client: penstock.Client, dataset: str = "spoiled", **wish: Any) -> penstock.Stream:
    return client.stream(dataset, **{"batch_size": 8, "output": "numpy", "seed": 5, "pool_rows": 200, **wish})


def ids(batches: Any) -> Ids:
    return [int(i) for batch in batches for i in batch["id"]]


def clean_order(client: penstock.Client, **wish: Any) -> Ids:
    return ids(open_stream(client, "clean", **wish))


# -- each policy -------------------------------------------------------------------------------------------------------


def test_fail_stops_every_rank_at_the_same_step_with_the_same_error_and_skip_goes_on_from_there(
    client: penstock.Client, server: Running
) -> None:
    order = clean_order(client)
    first = min(order.index(row) for row in BAD)
    texts, states = [], []
    for rank in range(2):
        stream = open_stream(client, batch_size=4, rank=rank, world_size=2, name="two", pool_rows=200)
        steps = 0
        with pytest.raises(penstock.DataError) as caught:  # noqa: PT012 - how far the loop gets is the point
            for _ in stream:
                steps += 1
        assert steps == first // 8
        texts.append(str(caught.value))
        states.append(stream.state_dict())
    assert texts[0] == texts[1]
    line = order[first] % ROWS + 1
    for part in (f"000{order[first] // ROWS}.jsonl", f"line {line}", f"step {first // 8}", "on_error='skip'"):
        assert part in texts[0]
    # The server and other streams live on.
    assert len(clean_order(client)) == SHARDS * ROWS
    # What was left after the error comes under another policy: nothing is lost, nothing doubled.
    rest = open_stream(client, on_error="skip")
    rest.load_state_dict(states[0])
    assert ids(rest) == [row for row in order[first // 8 * 8 :] if row not in BAD]


@pytest.mark.parametrize("policy", ["skip", "quarantine"])
@pytest.mark.parametrize("wish", [{}, {"shuffle": False}, {"last": "drop", "batch_size": 7}])
def test_bad_rows_are_left_out_and_no_other_moves(client: penstock.Client, policy: Any, wish: dict[str, Any]) -> None:
    order = clean_order(client, last="short", **{k: v for k, v in wish.items() if k == "shuffle"})
    expected = [row for row in order if row not in BAD]
    stream = open_stream(client, on_error=policy, **wish)
    left = len(expected) % 7 if wish.get("last") == "drop" else 0
    assert ids(stream) == expected[: len(expected) - left]
    assert stream.profile()["skipped_rows"] == len(BAD)
    with pytest.raises(TypeError, match=f"on_error='{policy}' leaves out bad rows"):
        len(stream)
    with pytest.raises(TypeError, match=f"on_error='{policy}' leaves out bad rows"):
        stream.get_num_batches()
    assert stream.num_rows is None


def test_the_nearest_good_row_of_the_shard_stands_for_a_bad_one_and_is_marked(client: penstock.Client) -> None:
    order = clean_order(client)
    stream = open_stream(client, on_error="substitute", row_ids=True)
    assert len(stream) == -(-SHARDS * ROWS // 8)
    at = 0
    for batch in stream:
        wanted = order[at : at + 8]
        assert batch["id"].tolist() == [NEAREST.get(row, row) for row in wanted]
        assert batch.metadata.ids.tolist() == wanted  # where the bad rows themselves are
        marked = [row in BAD for row in wanted]
        if any(marked):
            assert batch.metadata.substituted.tolist() == marked
        else:
            assert batch.metadata.substituted is None
        at += 8
    assert at == SHARDS * ROWS
    profile = stream.profile()
    assert (profile["substituted_rows"], profile["skipped_rows"]) == (len(BAD), 0)


def test_a_declared_row_stands_for_bad_ones_in_every_kind_of_output(client: penstock.Client) -> None:
    order = clean_order(client)
    placeholder = {"id": -1, "x": np.float32(0.25), "y": 99}
    expected = [-1 if row in BAD else row for row in order]
    numpy = open_stream(client, on_error={"substitute": placeholder})
    found = [(int(i), float(x), int(y)) for b in numpy for i, x, y in zip(b["id"], b["x"], b["y"], strict=True)]
    assert [row[0] for row in found] == expected
    assert {row for row in found if row[0] == -1} == {(-1, 0.25, 99)}
    at = 0
    for batch in open_stream(client, on_error={"substitute": placeholder}, output="arrow"):
        told = json.loads((batch.schema.metadata or {}).get(b"penstock.substituted", b"[]"))
        assert told == [i for i, row in enumerate(expected[at : at + 8]) if row == -1]
        at += batch.num_rows
    rows = [row for step in open_stream(client, on_error="substitute", layout="rows") for row in step]
    assert [order[i] for i, row in enumerate(rows) if row.get("__substituted__")] == [r for r in order if r in BAD]
    only = open_stream(client, columns=["id"], on_error={"substitute": {"id": -1}})
    assert ids(only) == expected


def test_a_shard_without_a_good_row_is_told_with_the_cure(client: penstock.Client, server: Running) -> None:
    # 1.jsonl has a good row; a filter that leaves it out leaves none to stand for the others.
    rows = [{"filter": "id == 0"}]
    stream = open_stream(client, "hopeless", rows=rows, shuffle=False, on_error="substitute")
    got = 0
    with pytest.raises(penstock.DataError, match=r"1\.jsonl.*no row of its shard is good.*placeholder") as caught:  # noqa: PT012
        for batch in stream:
            got += len(batch["id"])
    assert got == 24  # the step that holds the first of them does not come
    assert "line 2" in str(caught.value)
    assert str(caught.value).startswith("1.jsonl, row 1: no row of its shard is good")


def test_any_history_of_policies_gives_good_rows_once_and_in_order(client: penstock.Client) -> None:
    order = clean_order(client)
    history: list[tuple[Any, int, int]] = [
        ("skip", 3, 8),
        ("substitute", 9, 5),
        ("quarantine", 11, 6),
        ("fail", 4, 3),
        ({"substitute": {"id": -1, "x": 0, "y": 0}}, 7, 9),
        ("skip", 10_000, 10),
    ]
    got: Ids = []
    state = None
    for policy, steps, size in history:
        stream = open_stream(client, on_error=policy, batch_size=size)
        if state is not None:
            stream.load_state_dict(state)
        try:
            for _, batch in zip(range(steps), stream, strict=False):
                marks = batch.metadata.substituted
                got += [
                    int(i) for i, m in zip(batch["id"], [False] * 99 if marks is None else marks, strict=False) if not m
                ]
        except penstock.DataError:
            assert policy == "fail"
        state = json.loads(json.dumps(stream.state_dict()))
        assert state["cursor"]["on_error"] in ("fail", "skip", "substitute", "quarantine")
    assert got == [row for row in order if row not in BAD]


def test_a_state_saved_before_the_first_batch_is_the_one_that_was_loaded(client: penstock.Client) -> None:
    order = [row for row in clean_order(client) if row not in BAD]
    stream = open_stream(client, on_error="skip")
    got = ids(batch for _, batch in zip(range(20), stream, strict=False))
    other = open_stream(client, on_error="substitute")
    other.load_state_dict(stream.state_dict())
    assert len(other) > 0  # connects
    third = open_stream(client, on_error="skip")
    third.load_state_dict(other.state_dict())
    assert got + ids(third) == order


# -- counts and reasons ------------------------------------------------------------------------------------------------


def test_counts_and_reasons_are_told_everywhere(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(spoil(datafiles.jsonl(tmp_path / "rows", SHARDS, ROWS)), "--chunk-rows", 64)
    caplog.set_level(logging.WARNING, "penstock")
    with penstock.connect(server.target, job="counted") as client:
        for rank in range(2):  # once for all ranks
            stream = client.stream(
                "rows", batch_size=8, output="numpy", on_error="quarantine", rank=rank, world_size=2, name="train"
            )
            for _ in stream:
                pass
    assert caplog.text.count(f"epoch 0: {len(BAD)} bad rows were left out") == 2
    counted = server.metric("penstock_bad_rows_total", policy="quarantine")
    assert counted >= len(BAD)
    assert counted % len(BAD) == 0  # an epoch ahead may be counted
    assert server.metric("penstock_bad_rows_total", policy="skip") == 0
    found = json.loads(server.get("/api/v1/bad-rows?job=counted&stream=train"))["rows"]
    assert sorted(row["row"] for row in found) == list(BAD)
    for row in found:
        assert row["where"].endswith(f"000{row['row'] // ROWS}.jsonl, line {row['row'] % ROWS + 1}")
        assert row["reason"]
        assert (row["rows"], row["on_error"], row["dataset"].partition("@")[0]) == (1, "quarantine", "rows")
    assert json.loads(server.get("/api/v1/bad-rows?job=other"))["rows"] == []
    # The list outlives the server.
    assert server.stop() == 0
    server.start()
    assert len(json.loads(server.get("/api/v1/bad-rows"))["rows"]) == len(BAD)
    command = [sys.executable, "-m", "penstock_service", "bad-rows", "--http", server.http]
    shown = subprocess.run([*command, "--job", "counted"], capture_output=True, text=True, check=True).stdout
    assert "0000.jsonl, line 21" in shown
    listed = subprocess.run([*command, "--most", "2", "--json"], capture_output=True, text=True, check=True).stdout
    assert len(json.loads(listed)["rows"]) == 2


# -- wrong arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ("ignore", "on_error='ignore': allowed are 'fail', 'skip', 'substitute', 'quarantine' or"),
        ({"skip": {"x": 0}}, "allowed are"),
        ({"substitute": {}}, "a value for every column"),
        ({"substitute": {"id": 0, "x": 0.0}}, "no value for ['y']"),
        ({"substitute": {"id": 0, "x": 0.0, "y": 0, "z": 0}}, "names 'z', which is no column"),
        ({"substitute": {"id": "none", "x": 0.0, "y": 0}}, "does not fit column 'id' (int64)"),
        ({"substitute": {"id": 0.5, "x": 0.0, "y": 0}}, "does not fit column 'id' (int64)"),
        ({"substitute": {"id": object(), "x": 0.0, "y": 0}}, "no number, string, list or dict"),
    ],
)
def test_a_wrong_policy_says_what_is_wrong_and_what_is_allowed(client: penstock.Client, policy: Any, text: str) -> None:
    with pytest.raises(penstock.InvalidRequest) as caught:
        open_stream(client, on_error=policy).get_batch()
    assert text in str(caught.value)


def test_ranks_that_disagree_on_the_policy_are_refused(client: penstock.Client, server: Running) -> None:
    with penstock.connect(server.target, job="apart") as one:
        first = open_stream(one, on_error="skip", rank=0, world_size=2, name="s")
        first.get_batch()
        second = open_stream(one, on_error="substitute", rank=1, world_size=2, name="s", reconnect_timeout=0.2)
        with pytest.raises(penstock.RanksDisagree, match=r"on_error: rank 1 asks for substitute, rank 0 for skip"):
            second.get_batch()


def test_strict_ends_the_server_with_a_code_of_its_own(serve: Serve, tmp_path: Path) -> None:
    data = spoil(datafiles.jsonl(tmp_path / "rows", SHARDS, ROWS))
    server = serve(data, datafiles.jsonl(tmp_path / "good", 1, 50), "--strict", "true")
    with penstock.connect(server.target) as client:
        assert len(ids(client.stream("rows", batch_size=8, output="numpy", on_error="skip"))) == SHARDS * ROWS - len(
            BAD
        )
        other = client.stream("good", batch_size=5, output="numpy", prefetch=2, reconnect_timeout=0.5)
        other.get_batch()
        with pytest.raises(penstock.DataError, match="jsonl, line"):
            ids(client.stream("rows", batch_size=8, output="numpy"))
        server.process.wait(30)  # by itself
        assert server.stop() == 3
        with pytest.raises(penstock.RetryableError):
            for _ in other.resume():
                pass
    assert "--strict" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
