"""What no byte explains: files that are missing or cannot be read, chunks that kill their worker. Under `fail` it is
raised at the step of its first row; else it is left out through the journal of the run, and stays left out."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve
from tests.running import Running

SHARDS, ROWS = 8, 100
MODULE = "tests.transform.rows_module"
QUICK = ("--read-retries", 1, "--read-retry-base", 0.01)
WISH: dict[str, Any] = {"batch_size": 10, "output": "numpy", "seed": 5, "pool_rows": 100, "prefetch": 1}


def ids(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch["id"]]


def of(shard: int) -> range:
    return range(shard * ROWS, (shard + 1) * ROWS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return datafiles.jsonl(tmp_path / "rows", SHARDS, ROWS)


def forgetful(serve: Serve, data: Path, *flags: object) -> Running:
    """Each shard is a chunk of its own. Registered once: another start does not look at the folder again."""
    server = serve("--chunk-rows", ROWS, "--chunk-bytes", "64KiB", *QUICK, *flags)
    with penstock.connect(server.target) as client:
        client.register("rows", str(data))
    return server


def forget(server: Running) -> None:
    """Another start, with nothing that was read before."""
    server.kill()
    shutil.rmtree(server.folder / "store")
    server.start()


def entries(server: Running) -> list[dict[str, Any]]:
    runs = json.loads(server.get("/api/v1/runs"))["runs"]
    return [entry for run in runs for entry in run["entries"]]


def test_a_file_that_is_missing_when_opened_is_refused_or_left_out(serve: Serve, data: Path) -> None:
    server = forgetful(serve, data)
    with penstock.connect(server.target) as client:
        order = ids(client.stream("rows", **WISH))
        kept = (data / "0003.jsonl").read_bytes()
        (data / "0003.jsonl").unlink()
        forget(server)
        with pytest.raises(penstock.SourceChanged, match=r"0003\.jsonl \(gone\)"):
            client.stream("rows", **WISH).get_batch()
        for policy in ("skip", "quarantine", "substitute"):
            stream = client.stream("rows", on_error=policy, **WISH)
            assert ids(stream) == [row for row in order if row not in of(3)]
        assert {entry["kind"] for entry in entries(server)} == {"unreadable"}
        assert any("0003.jsonl" in entry["reason"] and "is gone" in entry["reason"] for entry in entries(server))
        found = json.loads(server.get("/api/v1/bad-rows"))["rows"]
        assert {(row["row"], row["rows"]) for row in found} == {(300, 100)}
        assert all("0003.jsonl" in row["where"] and "is gone" in row["reason"] for row in found)
        # One that holds something else is refused, whatever the policy.
        (data / "0003.jsonl").write_bytes(kept[:-20])
        with pytest.raises(penstock.SourceChanged, match=r"0003\.jsonl"):
            client.stream("rows", on_error="skip", **WISH).get_batch()


def test_small_files_of_one_chunk_are_lost_together_and_nothing_else_is_blamed(
    serve: Serve, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(*QUICK)
    with penstock.connect(server.target) as client:
        client.register("rows", str(data))
        (data / "0003.jsonl").unlink()
        for policy in ("skip", "substitute"):
            stream = client.stream("rows", on_error=policy, **WISH)
            with pytest.raises(penstock.InvalidRequest) as caught:
                stream.get_batch()
            said = str(caught.value)
            assert "by the journal of the run" in said
            assert "0003.jsonl is gone" in said
            assert "filters" not in said
            others = f"1 of 8 files of .*0003.jsonl.*, and so are {7 * ROWS} rows of other files that lie in chunks"
            assert re.search(others, caplog.text)
            caplog.clear()
    (folder,) = {row["where"] for row in json.loads(server.get("/api/v1/bad-rows"))["rows"]}
    assert folder == "0000.jsonl, from row 0 on"


def test_a_file_that_goes_while_it_is_read_fails_at_its_step_on_every_rank_and_skip_goes_on(
    serve: Serve, data: Path
) -> None:
    server = forgetful(serve, data)
    with penstock.connect(server.target) as client:
        wish = {**WISH, "shuffle": False}
        streams = [client.stream("rows", rank=r, world_size=2, name="two", **wish | {"batch_size": 5}) for r in (0, 1)]
        for stream in streams:
            stream.get_batch()
        (data / "0005.jsonl").rename(data / "away")
        texts, got = [], []
        for stream in streams:
            with pytest.raises(penstock.DataError) as caught:
                for _ in stream.resume():
                    pass
            texts.append(str(caught.value))
            assert not caught.value.retryable
            got.append(stream.state_dict()["cursor"]["step"])
        assert got == [50, 50]
        assert texts[0] == texts[1]
        assert "0005.jsonl is gone" in texts[0]
        assert "step 50" in texts[0]
        assert ".." not in texts[0]
        rest = client.stream("rows", on_error="skip", **wish)
        rest.load_state_dict(streams[0].state_dict())
        first = [rest.get_batch()["id"].tolist() for _ in range(3)]
        state = json.loads(json.dumps(rest.state_dict()))
        assert state["cursor"]["run"]["n"] == 1
        assert [i for step in first for i in step] == list(of(6))[:30]
        # The file is back, and the run's order stays what it was: nothing of that comes later.
        (data / "away").rename(data / "0005.jsonl")
        again = client.stream("rows", on_error="skip", **wish)
        again.load_state_dict(state)
        assert ids(again) == [*list(of(6))[30:], *of(7)]
        assert len(ids(again)) == SHARDS * ROWS - ROWS  # in later epochs of the run too


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("policy", ["skip", "substitute", "quarantine"])
def test_what_is_lost_in_the_middle_of_a_segment_is_left_out_of_its_tail(
    serve: Serve, data: Path, world: int, policy: Any
) -> None:
    """The whole epoch is one segment: the run stops under `fail`, goes on under another, and is what it is then."""
    server = forgetful(serve, data)
    with penstock.connect(server.target, job="tail") as client:
        wish = {**WISH, "pool_rows": 10_000, "batch_size": 10 // world, "prefetch": 4}

        def ranks(on_error: Any, state: Any = None) -> list[penstock.Stream]:
            streams = [
                client.stream("rows", rank=r, world_size=world, name="s", on_error=on_error, **wish)
                for r in range(world)
            ]
            for stream in streams:
                if state is not None:
                    stream.load_state_dict(state)
                assert stream.plan  # connects
            return streams

        def together(streams: list[penstock.Stream], steps: int = 10_000) -> list[int]:
            found: list[int] = []
            loops = [stream.resume() for stream in streams]
            for _, parts in zip(range(steps), zip(*loops, strict=True), strict=False):
                found += ids(parts)
            return found

        def closed(streams: list[penstock.Stream]) -> Any:
            state = json.loads(json.dumps(streams[0].state_dict()))
            for stream in streams:
                stream.close()
            return state

        order = together(ranks("fail"))
        # Some steps are read and then all is forgotten: the rows of the file that goes are among them.
        begun = ranks("fail")
        got = together(begun, 20)
        state = closed(begun)
        assert set(got) & set(of(2))
        (data / "0002.jsonl").rename(data / "away")
        forget(server)
        goes_on = ranks(policy, state)
        more = together(goes_on, 15)
        later = closed(goes_on)
        assert later["cursor"]["run"]["n"] == 1
        assert got == order[:200]
        rest = [row for row in order[200:] if row not in of(2)]
        assert more == rest[:150]
        # The file is back, the server has forgotten what it read: the order of the run stays.
        (data / "away").rename(data / "0002.jsonl")
        forget(server)
        assert together(ranks(policy, later)) == rest[150:]
        for again in ("fail", policy):  # also for a state that is older than the loss
            streams = ranks(again, state)
            assert together(streams) == rest
            closed(streams)


def test_two_ranks_leave_the_same_out(serve: Serve, data: Path) -> None:
    server = forgetful(serve, data)
    with penstock.connect(server.target, job="two") as client:
        order = ids(client.stream("rows", **WISH))
        (data / "0002.jsonl").unlink()
        forget(server)
        wish = {**WISH, "batch_size": 5, "on_error": "skip"}
        streams = [client.stream("rows", rank=r, world_size=2, name="s", **wish) for r in range(2)]
        for stream in streams:
            assert stream.plan  # connects: nothing is left out before all ranks are there
        found: list[int] = []
        for parts in zip(*streams, strict=True):
            found += ids(parts)
        assert found == [row for row in order if row not in of(2)]


def test_a_chunk_that_kills_its_worker_fails_or_is_left_out_and_never_loops(serve: Serve, data: Path) -> None:
    server = forgetful(serve, data, "--python-modules", MODULE, "--workers", 2)
    rows = [{"python": f"{MODULE}:kills_its_worker_at_300"}]
    with penstock.connect(server.target) as client:
        wish = {**WISH, "shuffle": False, "rows": rows}
        stream = client.stream("rows", **wish)
        got: list[int] = []
        with pytest.raises(penstock.DataError, match=r"0003\.jsonl.*died 3 times.*step 30"):  # noqa: PT012
            for batch in stream:
                got += batch["id"].tolist()
        assert got == list(range(300))
        rest = client.stream("rows", on_error="quarantine", **wish)
        rest.load_state_dict(stream.state_dict())
        assert ids(rest) == list(range(400, 800))
        deaths = server.metric("penstock_workers_restarted_total")
        assert 3 <= deaths <= 9
        (quarantined,) = [
            r for r in json.loads(server.get("/api/v1/bad-rows"))["rows"] if r["on_error"] == "quarantine"
        ]
        assert (quarantined["row"], quarantined["rows"]) == (300, 100)
        # The second epoch does not ask for it.
        assert len(ids(rest)) == 700
        assert server.metric("penstock_workers_restarted_total") == deaths


def test_places_that_data_is_read_from_are_told(serve: Serve, data: Path) -> None:
    server = forgetful(serve, data)
    with penstock.connect(server.target) as client:
        client.stream("rows", **WISH).get_batch()
        (place,) = json.loads(server.get("/api/v1/places"))["places"]
        assert (place["place"], place["state"], place["failures"]) == (str(data), "closed", 0)
        assert server.metric("penstock_places_open") == 0


@pytest.mark.parametrize("policy", ["skip", "substitute", "quarantine"])
def test_a_file_that_goes_after_its_chunk_was_made_and_evicted_is_left_out(
    serve: Serve, data: Path, policy: Any
) -> None:
    """What is known of the chunk is remembered, so that segments are planned with it until it is found missing."""
    server = forgetful(serve, data, "--store-bytes", 0)
    with penstock.connect(server.target) as client:
        order = ids(client.stream("rows", **WISH))
        (data / "0003.jsonl").rename(data / "away")
        rest = [row for row in order if row not in of(3)]
        stream = client.stream("rows", on_error=policy, name="first", **WISH)
        assert ids(stream) == rest  # connects again where it found out
        assert len(ids(stream)) == len(rest)
        again = client.stream("rows", on_error=policy, name="again", **WISH)
        assert ids(again) == rest
        with pytest.raises(penstock.SourceChanged, match=r"0003\.jsonl \(gone\)"):
            client.stream("rows", **WISH).get_batch()
        (data / "away").rename(data / "0003.jsonl")
        assert ids(client.stream("rows", **WISH)) == order
