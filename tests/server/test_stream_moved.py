"""What a stream says and does after it was moved: length, seed, plan, run and rows are those of where it is now."""

import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve
from tests.running import Running

MIX = {"web": 0.5, "code": 0.5}
Move = Callable[[penstock.Stream], penstock.Stream]


def made(folder: Path) -> list[Path]:
    return [
        datafiles.parquet(folder / "web", shards=4, rows=250, row_group=250),
        datafiles.parquet(folder / "code", shards=2, rows=100, first=5000, row_group=250),
    ]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("moved")
    with Running(tuple(map(str, made(folder))), folder / "server") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def opened(client: penstock.Client, dataset: Any = "web", **options: Any) -> penstock.Stream:
    settings: dict[str, Any] = {"batch_size": 10, "output": "numpy", "pool_rows": 100, "prefetch": 4}
    return client.stream(dataset, **{**settings, **options})


def mixed(client: penstock.Client, **options: Any) -> penstock.Stream:
    return opened(client, MIX, until="repeat", name="mixed", **options)


def ids(stream: penstock.Stream) -> list[int]:
    return [int(i) for batch in stream for i in batch["id"]]


def answers(client: penstock.Client) -> None:
    """Wait until the channel has noticed that the server is back: gRPC tries it again after a second or so."""
    deadline = time.monotonic() + 30
    while True:
        try:
            client.runs()
        except penstock.ServerUnavailable:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def reset(stream: penstock.Stream) -> penstock.Stream:
    stream.reset()
    return stream


def name_the_epoch(stream: penstock.Stream) -> penstock.Stream:
    stream.set_epoch(stream.epoch)
    return stream


def another_epoch(stream: penstock.Stream) -> penstock.Stream:
    stream.set_epoch(stream.epoch + 3)
    return stream


def skip(stream: penstock.Stream) -> penstock.Stream:
    stream.skip(range(5, 7))
    return stream


def copy(stream: penstock.Stream) -> penstock.Stream:
    found: penstock.Stream = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
    return found


@pytest.mark.parametrize(("last", "steps"), [("short", 4), ("drop", 3), ("pad", 4), ("wrap", 4)])
def test_the_length_is_in_steps_of_the_streams_own_size(client: penstock.Client, last: str, steps: int) -> None:
    with opened(client, batch_size=300, last=last) as stream:
        assert len(stream.get_batch(4)["id"]) == 4
        assert len(stream) == steps
        stream.reset()
        assert len(stream) == steps == sum(1 for _ in stream) == len(stream)


def test_what_a_look_said_is_forgotten_where_a_state_leads_elsewhere(client: penstock.Client) -> None:
    with opened(client, seed=None, name="one") as one, opened(client, seed=None, pool_rows=300, name="two") as two:
        one.get_batch()
        assert (one.seed, one.plan) != (two.seed, two.plan)
        two.load_state_dict(one.state_dict())
        assert (two.seed, two.plan, two.run) == (one.seed, one.plan, one.run)
        assert two.get_batch().metadata.step == 1


def test_a_branch_is_another_run_before_its_first_batch_and_what_is_changed_is_it(client: penstock.Client) -> None:
    with mixed(client) as stream:
        stream.get_batch()
        state, run = stream.state_dict(), stream.run
    with mixed(client) as other:
        assert other.num_rows is not None
        other.load_state_dict(state, branch=True)
        assert other.run != run
        assert other.set_mixture({"web": 0.9, "code": 0.1}).run == other.run
    assert not any(r.entries for r in client.runs() if r.id == run)


@pytest.mark.parametrize("move", [reset, name_the_epoch, another_epoch, skip, copy])
def test_a_branch_that_was_asked_for_is_not_forgotten(client: penstock.Client, move: Move) -> None:
    with mixed(client) as stream:
        stream.get_batch()
        state, run = stream.state_dict(), stream.run
    for looked in (False, True):
        loaded = mixed(client)
        if looked:
            loaded.num_rows  # noqa: B018 - it connects
        loaded.load_state_dict(state, branch=True)
        with move(loaded) as moved:
            next(iter(moved))
            assert moved.run != run
        loaded.close()


def test_a_branch_that_was_taken_back_is_none(client: penstock.Client) -> None:
    with mixed(client) as stream:
        stream.get_batch()
        state, run = stream.state_dict(), stream.run
        with mixed(client) as loaded:
            loaded.load_state_dict(state, branch=True)
            loaded.load_state_dict(state)
            assert loaded.run == run


def test_a_copy_is_forced_where_its_original_was(client: penstock.Client) -> None:
    with opened(client, seed=7) as stream:
        stream.get_batch()
        state = stream.state_dict()
    with opened(client, "code", seed=7) as other:
        other.load_state_dict(state, force=True)
        with copy(other) as same:
            assert next(iter(other))["id"].tolist() == next(iter(same))["id"].tolist()


def test_rows_are_those_of_this_streams_run_without_what_it_skips(client: penstock.Client) -> None:
    with opened(client, seed=None) as stream:
        stream.skip(range(2, 50))
        first = [int(row["id"]) for row in stream.rows()]
        assert first == ids(stream)
        assert len(first) == 520
        stream.get_batch()
        client.quarantine("web", ["0-499"], run=stream.run)
        while not stream.state_dict()["cursor"]["run"]["n"]:
            stream.get_batch()  # until it has heard of it
        stream.set_epoch(stream.epoch + 2)
        left = [int(row["id"]) for row in stream.rows()]
        assert left == ids(stream)
        assert min(left) >= 500


@pytest.mark.parametrize("before", [False, True])
def test_a_mixture_is_changed_though_the_server_began_anew_meanwhile(
    serve: Serve, tmp_path: Path, before: bool
) -> None:
    server = serve(*made(tmp_path))
    with penstock.connect(server.target) as client, mixed(client) as stream:
        stream.get_batch()
        run = stream.run
        if before:  # then the server knows the run, and that nobody reads it
            first = stream.set_mixture({"web": 0.7, "code": 0.3})
            while stream.get_batch().metadata.step < first.complete_step:
                pass
        step = stream.state_dict()["cursor"]["step"]
        server.kill()
        server.start()
        answers(client)
        assert stream.set_mixture({"web": 0.9, "code": 0.1}).run == run
        assert stream.get_batch().metadata.step == step


def test_a_loaded_place_is_kept_until_something_is_taken_from_it(client: penstock.Client) -> None:
    with opened(client) as stream, opened(client) as loaded:
        whole = ids(stream)
        stream.reset()
        stream.get_batch()
        loaded.load_state_dict(stream.state_dict())
        first, second = iter(loaded), iter(loaded)
        with pytest.raises(penstock.PenstockError, match=r"iterated anew.*one live iterator at a time"):
            next(first)
        assert [int(i) for batch in second for i in batch["id"]] == whole[10:]
        # From then on a loop that is left begins the epoch again, and says so.
        loaded.load_state_dict(stream.state_dict())
        next(iter(loaded))
        with pytest.warns(UserWarning, match="left at step 2"):
            iter(loaded)


def test_a_loop_over_a_stream_that_is_closed_meanwhile_says_so(client: penstock.Client) -> None:
    stream = opened(client)
    loop = iter(stream)
    next(loop)
    stream.close()
    with pytest.raises(penstock.PenstockError, match="the stream was closed meanwhile"):
        next(loop)
