"""A run that is changed while it is read, by real clients of real servers: replayed, lost, restored, branched."""

import json
import pickle
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]
Steps = list[tuple[int, int, list[int]]]  # epoch, step, ids

NEW = {"web": 1, "code": 5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        datafiles.parquet(folder / "web", 4, 750, row_group=250),
        datafiles.parquet(folder / "code", 4, 750, first=100_000, row_group=250),
    ]


@pytest.fixture(scope="module")
def server(data: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tuple(map(str, data)), tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def open_stream(client: penstock.Client, **options: Any) -> penstock.Stream:
    settings: dict[str, Any] = {"batch_size": 10, "pool_rows": 400, "prefetch": 2, "output": "numpy", "row_ids": True}
    dataset = options.pop("dataset", {"web": 0.5, "code": 0.5})
    return client.stream(dataset, **{**settings, **options})


def read(stream: penstock.Stream, steps: int) -> Steps:
    return [step_of(stream.get_batch()) for _ in range(steps)]


def step_of(batch: Any) -> tuple[int, int, list[int]]:
    return batch.metadata.epoch, batch.metadata.step, batch["id"].tolist()


def rest(stream: penstock.Stream) -> Steps:
    return [step_of(batch) for batch in stream.resume()]


def ask(server: Running, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        f"http://{server.http}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        return json.loads(answer.read())


def refused(server: Running, path: str, body: object) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(server, path, body)
    with caught.value as error:
        return error.code, json.loads(error.read())["message"]


def run_of(state: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = state["cursor"]["run"]
    return found


def code_share(steps: Steps) -> float:
    ids = [i for _, _, rows in steps for i in rows]
    return sum(i >= 100_000 for i in ids) / len(ids)


def test_a_change_begins_at_the_step_that_the_reply_says_and_is_complete_later(client: penstock.Client) -> None:
    with open_stream(client) as undisturbed:
        expected = [step_of(b) for b in undisturbed]
    with open_stream(client) as stream:
        got = read(stream, 30)
        change = stream.set_mixture(NEW)
        assert change.exact
        assert change.epoch == 0
        assert change.step >= 30
        assert change.complete_segment == change.segment + 15
        assert str(change.step) in str(change)
        got += rest(stream)
        differing = next(i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b)
        assert change.step <= differing <= change.step + 10
        # until="all": every row once, and the new shares until one of them has run out
        assert sorted(i for _, _, ids in got for i in ids) == sorted(i for _, _, ids in expected for i in ids)
        assert abs(code_share(got[change.complete_step : change.complete_step + 60]) - 5 / 6) < 0.07
        second = [step_of(b) for b in stream]
        assert code_share(second[5:150]) > 0.75
        assert run_of(stream.state_dict())["n"] == 1
        # From the start, and from a state of before: the change is met at the same row.
        stream.reset()
        assert [step_of(b) for b in stream] == got
    assert stream.state_dict()["cursor"]["run"]["entries"][0]["weights"] == NEW


def test_a_state_of_before_the_change_meets_it_again_on_any_world_after_a_restart(
    serve: Serve, data: list[Path]
) -> None:
    server = serve(*data)
    with penstock.connect(server.target) as client:
        stream = open_stream(client, batch_size=12)
        got = read(stream, 20)
        before = stream.state_dict()
        got += read(stream, 5)
        stream.set_mixture(NEW)
        after = stream.state_dict()
        got += rest(stream)
        stream.close()
    assert (run_of(before)["n"], run_of(after)["n"]) == (0, 1)
    server.kill()
    server.start()
    with penstock.connect(server.target, job="again") as client:
        for state, steps in ((before, 20), (after, 25)):
            for world in (1, 2, 3):
                ranks = [
                    open_stream(client, batch_size=12 // world, rank=r, world_size=world, name=f"{steps}/{world}")
                    for r in range(world)
                ]
                for stream in ranks:
                    stream.load_state_dict(state)
                parts = [rest(stream) for stream in ranks]
                together = [(p[0][0], p[0][1], [i for part in p for i in part[2]]) for p in zip(*parts, strict=True)]
                assert together == got[steps:]
                assert all(run_of(stream.state_dict())["n"] == 1 for stream in ranks)
                for stream in ranks:
                    stream.close()


def test_a_lost_state_folder_and_an_old_one_are_no_loss(serve: Serve, data: list[Path], tmp_path: Path) -> None:
    server = serve(*data)
    state_dir, old = server.folder / "state", tmp_path / "old"
    client = penstock.connect(server.target)
    stream = open_stream(client)
    got = read(stream, 20)
    stream.set_mixture(NEW)
    got += read(stream, 30)
    client.close()
    server.stop()
    shutil.copytree(state_dir, old)  # a backup with one entry
    server.start()
    client = penstock.connect(server.target)
    got += read(stream, 5)
    stream.set_mixture({"web": 5, "code": 1})
    got += read(stream, 5)
    state = json.loads(json.dumps(stream.state_dict()))
    assert run_of(state)["n"] == 2
    tail = rest(stream)
    stream.close()
    client.close()
    for backup in (None, old):
        server.stop()
        shutil.rmtree(state_dir)
        if backup is not None:
            shutil.copytree(backup, state_dir)
        server.start()
        with penstock.connect(server.target) as client, open_stream(client) as resumed:
            resumed.load_state_dict(state)
            assert rest(resumed) == tail
            (run,) = client.runs()
            assert (run.id, len(run.entries), run.head) == (run_of(state)["id"], 2, run_of(state)["head"])
            # And the taken-over entries are on disk: a state of before them meets them.
            early = {**state, "cursor": {**state["cursor"], "run": {**run_of(state), "n": 0, "entries": []}}}
            early["cursor"]["run"].update(head=head_of_nothing(client))
            del early["cursor"]["run"]["entries"]
            early["cursor"].update(epoch=0, segment=0, taken=0, step=0, digest="0" * 16)
            resumed.load_state_dict(early)
            assert rest(resumed) == got + tail


def head_of_nothing(client: penstock.Client) -> str:
    with open_stream(client, name="fresh") as fresh:
        fresh.get_batch()
        return str(run_of(fresh.state_dict())["head"])


def test_a_rollback_and_another_change_need_a_branch_and_parted_journals_are_refused(
    serve: Serve, data: list[Path], tmp_path: Path
) -> None:
    server = serve(*data)
    state_dir, old = server.folder / "state", tmp_path / "old"
    client = penstock.connect(server.target)
    stream = open_stream(client)
    head = read(stream, 20)
    before = stream.state_dict()
    read(stream, 40)
    stream.set_mixture(NEW)
    read(stream, 5)
    one_way = stream.state_dict()
    first = rest(stream)
    stream.load_state_dict(before)
    read(stream, 1)
    with pytest.raises(penstock.InvalidRequest, match=r"rolled back.*branch=True"):
        stream.set_mixture({"web": 5, "code": 1})
    stream.load_state_dict(before, branch=True)
    got = read(stream, 1)
    assert stream.run != run_of(before)["id"]
    stream.set_mixture({"web": 5, "code": 1})
    got += rest(stream)
    assert run_of(stream.state_dict())["n"] == 1
    assert code_share(got[40:120]) < 0.35
    assert sorted(i for _, _, ids in head + got for i in ids) == [*range(3000), *range(100_000, 103_000)]
    # The run it branched off is what it was.
    stream.load_state_dict(one_way)
    assert rest(stream) == first
    stream.close()
    client.close()
    # Two servers that were given the same state, and each of them changed the run.
    server.stop()
    shutil.rmtree(state_dir)
    server.start()
    with penstock.connect(server.target) as client, open_stream(client) as other:
        other.load_state_dict(before)
        read(other, 1)
        other.set_mixture({"web": 1, "code": 1})
        head_here = run_of(other.state_dict())["head"]
        other.load_state_dict(one_way)
        with pytest.raises(penstock.JournalConflict, match=r"branch=True") as caught:
            read(other, 1)
        assert head_here in str(caught.value)
        assert run_of(one_way)["head"] in str(caught.value)
        other.load_state_dict(one_way, branch=True)
        assert rest(other) == first
    assert not old.exists()


def test_a_state_that_was_left_behind_by_a_rollback_is_refused(client: penstock.Client) -> None:
    with open_stream(client) as stream:
        read(stream, 5)
        before = stream.state_dict()
        read(stream, 60)
        abandoned = stream.state_dict()
        stream.load_state_dict(before)
        read(stream, 1)
        stream.set_mixture(NEW)
        stream.load_state_dict(abandoned)
        with pytest.raises(penstock.JournalConflict, match=r"order that was left.*branch=True"):
            read(stream, 1)
        stream.load_state_dict(abandoned, branch=True)
        assert read(stream, 1)[0][1] == 65


def test_all_ranks_must_be_there_and_all_see_the_change_at_the_same_row(server: Running) -> None:
    with penstock.connect(server.target, job="two") as client:
        ranks = [open_stream(client, rank=r, world_size=2, name="train") for r in range(2)]
        got = [read(ranks[0], 3), []]
        with pytest.raises(penstock.InvalidRequest, match=r"read by 2 ranks, and of ranks 1 no session is open"):
            ranks[0].set_mixture(NEW)
        got[1] += read(ranks[1], 20)  # further than the other
        assert ranks[0].run == ranks[1].run
        change = client.set_mixture(NEW, job="two", stream="train")
        assert change.step > 20
        for rank, stream in enumerate(ranks):
            got[rank] += rest(stream)
            # Nobody told this client: the server did, before rows that the change made different.
            assert run_of(stream.state_dict())["n"] == 1
        together = [(a[0], a[1], a[2] + b[2]) for a, b in zip(*got, strict=True)]
        (run,) = [r for r in client.runs() if r.job == "two"]
        assert (run.world_size, run.ranks, run.stream) == (2, (0, 1), "train")
        replay = open_stream(client, batch_size=20, name="replay")
        start = ranks[0].state_dict()
        start["cursor"].update(epoch=0, segment=0, taken=0, step=0, digest="0" * 16)
        replay.load_state_dict({**start, "epoch": 0})
        assert rest(replay) == together
        for stream in (*ranks, replay):
            stream.close()


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"web": 1}, r"name every dataset.*web, code; not of it: none; missing: code"),
        ({"web": 1, "code": 1, "books": 1}, "not of it: books; missing: none"),
        ({"web": -1, "code": 1}, "must be a finite number"),
        ({"web": float("nan"), "code": 1}, "must be a finite number"),
        ({"web": 0, "code": 0}, "weight 0 of web, code"),
        ({"web": 0, "code": 1}, r"weight 0 of web: with until='all' every row comes"),
    ],
)
def test_weights_that_cannot_be_are_refused(client: penstock.Client, weights: dict[str, float], text: str) -> None:
    with open_stream(client) as stream:
        read(stream, 1)
        with pytest.raises(penstock.InvalidRequest, match=text):
            stream.set_mixture(weights)
        assert run_of(stream.state_dict())["n"] == 0


def test_what_has_no_mixture_and_what_is_not_read_cannot_be_changed(client: penstock.Client) -> None:
    stored = open_stream(client, dataset=["web", "code"], shuffle=False)
    with stored, pytest.raises(penstock.InvalidRequest, match="shuffle=False has no mixture"):
        stored.set_mixture(NEW)
    with open_stream(client, dataset="web") as stream:
        with pytest.raises(penstock.InvalidRequest, match="reads one dataset, 'web'"):
            stream.set_mixture({"web": 1})
        with pytest.raises(penstock.InvalidRequest, match="must be numbers by dataset"):
            stream.set_mixture({"web": "much"})  # type: ignore[dict-item]
    with pytest.raises(penstock.DatasetNotFound, match="there is no run 'zz'"):
        client.set_mixture(NEW, run="zz")
    with pytest.raises(penstock.InvalidRequest, match="which run"):
        client.set_mixture(NEW)
    with pytest.raises(penstock.InvalidRequest, match="of the runs being read these fit: none"):
        client.set_mixture(NEW, job="nobody")


def test_a_run_that_nobody_reads_any_more_is_listed_and_cannot_be_changed(server: Running) -> None:
    with penstock.connect(server.target, job="gone") as client:
        with open_stream(client) as stream:
            read(stream, 1)
            run = stream.set_mixture(NEW).run
        wait_until_nobody_reads(server, run)
        with pytest.raises(penstock.InvalidRequest, match=r"no trainer reads run .*job 'gone'"):
            client.set_mixture(NEW, run=run)


def wait_until_nobody_reads(server: Running, run: str) -> None:
    for _ in range(200):
        if not ask(server, f"/api/v1/runs/{run}")["ranks"]:
            return
        urllib.request.urlopen(f"http://{server.http}/livez", timeout=10).close()
    raise AssertionError("the session did not end")


def test_under_repeat_a_dataset_may_lose_its_share_at_once(client: penstock.Client) -> None:
    with open_stream(client, until="repeat", epoch_rows=4000) as stream:
        read(stream, 5)
        change = stream.set_mixture({"web": 0, "code": 1})
        got = rest(stream)
        assert len(stream) == 400
        assert code_share(got[change.complete_step :]) == 1.0
        assert len(got) == 395
        assert code_share([step_of(b) for b in stream]) == 1.0


def test_epochs_that_differ_in_length_have_no_length(client: penstock.Client) -> None:
    with open_stream(client, until="first") as stream:
        assert len(stream) == 600
        read(stream, 5)
        stream.set_mixture({"web": 1, "code": 5})
        read(stream, 60)
        with pytest.raises(TypeError, match="changed mixture"):
            len(stream)
        first = len(rest(stream))
        second = len([step_of(b) for b in stream])
        assert second == 360  # 3,000 rows of code, and a fifth of that of web
        assert first + 65 != second


def test_rows_in_quarantine_are_gone_and_no_other_row_moves(server: Running, client: penstock.Client) -> None:
    with open_stream(client) as undisturbed:
        whole = [i for b in undisturbed for i in b["id"].tolist()]
        second = [i for b in undisturbed for i in b["id"].tolist()]
    with open_stream(client) as stream:
        got = read(stream, 20)
        run = stream.run
        answer = ask(server, f"/api/v1/runs/{run}/quarantine", {"dataset": "code", "rows": ["0-99", 700]})
        client.quarantine("web", [5], run=run, reason="nonsense")
        gone = {*range(100_000, 100_100), 100_700, 5}
        got += rest(stream)
        ids = [i for _, _, rows in got for i in rows]
        begins = answer["step"] * 10
        assert ids == whole[:begins] + [i for i in whole[begins:] if i not in gone]
        assert gone & set(whole[begins:])
        with pytest.raises(TypeError, match="quarantine"):
            len(stream)
        again = [i for b in stream for i in b["id"].tolist()]
        assert again == [i for i in second if i not in gone]
        found = ask(server, f"/api/v1/runs/{run[:10]}")
        assert [(e["kind"], e["rows"], e["reason"]) for e in found["entries"]] == [
            ("quarantine", {"code": [[0, 100], [700, 701]]}, ""),
            ("quarantine", {"web": [[5, 6]]}, "nonsense"),
        ]
        stream.reset()
        assert [step_of(b) for b in stream] == got


def test_entries_too_long_for_a_state_need_the_folder_they_were_written_in(serve: Serve, data: list[Path]) -> None:
    server = serve(*data)
    with penstock.connect(server.target) as client:
        stream = open_stream(client)
        read(stream, 5)
        change = client.quarantine("web", list(range(0, 3000, 3)), run=stream.run)
        read(stream, 10)
        state = stream.state_dict()
        tail = rest(stream)
        assert "entries" not in run_of(state)
        assert len(json.dumps(state["cursor"])) < 4096
        stream.close()
    server.kill()
    server.start()
    with penstock.connect(server.target) as client, open_stream(client) as stream:
        stream.load_state_dict(state)
        assert rest(stream) == tail
    server.stop()
    (server.folder / "state" / "journal.sqlite").unlink()
    server.start()
    with penstock.connect(server.target) as client, open_stream(client) as stream:
        stream.load_state_dict(state)
        with pytest.raises(
            penstock.JournalConflict, match=r"too long for the state.*restore the state folder"
        ) as caught:
            stream.get_batch()
        assert run_of(state)["head"] in str(caught.value)
        assert change.run in str(caught.value)


def test_http_says_what_is_wrong(server: Running, client: penstock.Client) -> None:
    with open_stream(client) as stream:
        read(stream, 1)
        path = f"/api/v1/runs/{stream.run}"
        assert refused(server, f"{path}/mixture", {"weights": {"web": 1}})[0] == 400
        assert refused(server, f"{path}/quarantine", {"dataset": "books", "rows": [1]}) == (
            400,
            f"run {stream.run} does not read a dataset 'books'; it reads web, code",
        )
        assert refused(server, f"{path}/quarantine", {"dataset": "web", "rows": [3000]})[1].endswith("as stored")
        said = refused(server, f"{path}/quarantine", {"dataset": "web@123zz", "rows": [1]})
        assert said[0] == 400
        assert re.match(rf"run {stream.run} reads web@[0-9a-f]+, not web@123zz: rows of one version", said[1])
        ask(server, f"{path}/quarantine", {"dataset": client.datasets("web")[0].reference, "rows": [2999]})
        assert refused(server, "/api/v1/runs/nobody/mixture", {"weights": NEW})[0] == 404
        answer = ask(server, f"{path}/mixture", {"weights": NEW})
        assert (answer["run"], answer["n"], answer["exact"]) == (stream.run, 2, True)


def test_ranks_must_agree_to_branch(client: penstock.Client) -> None:
    with open_stream(client) as stream:
        read(stream, 5)
        state = stream.state_dict()
    ranks = [open_stream(client, batch_size=5, rank=r, world_size=2, name="parted") for r in range(2)]
    ranks[0].load_state_dict(state, branch=True)
    ranks[1].load_state_dict(state)
    read(ranks[0], 1)
    with pytest.raises(penstock.RanksDisagree, match=r"disagree .*branch=True on all ranks"):
        read(ranks[1], 1)
    ranks[1].load_state_dict(state, branch=True)
    copy = pickle.loads(pickle.dumps(ranks[1]))  # noqa: S301 - our own bytes
    read(ranks[1], 1)
    assert ranks[0].run == ranks[1].run != run_of(state)["id"]
    read(copy, 1)  # another object of that rank takes it over, in the same run
    assert copy.run == ranks[0].run
    for opened in (*ranks, copy):
        opened.close()


def test_steps_behind_a_change_are_explained_and_skipped_as_they_come(client: penstock.Client) -> None:
    with open_stream(client) as stream:
        got = read(stream, 10)
        change = stream.set_mixture(NEW)
        client.quarantine("code", ["0-499"], run=stream.run)
        state = stream.state_dict()
        got += rest(stream)
        late = change.complete_step + 5
        for step in (3, change.step + 1, late):
            expected = [i % 100_000 for i in got[step][2]]
            assert stream.explain(step, 0).table["row"].to_pylist() == expected
        stream.load_state_dict(state)
        stream.skip(range(change.step + 2, late))
        assert rest(stream) == [*got[10 : change.step + 2], *got[late:]]
