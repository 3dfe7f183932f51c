"""Ranks of a job as processes: who takes a rank over, who must agree, and who is left alone."""

import json
import os
import pickle
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import pytest

import penstock
from penstock_proto.v1 import PROTOCOL, channel
from penstock_proto.v1 import data_pb2 as pb
from tests import datafiles
from tests.running import Running
from tests.training import Refused, Trainer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("ranks")
    data = [
        datafiles.parquet(folder / "rows", shards=4, rows=250),
        datafiles.parquet(folder / "more", shards=1, rows=1000),
    ]
    with Running(tuple(map(str, data)), folder / "server") as running:
        yield running


def whole(server: Running) -> list[list[int]]:
    with penstock.connect(server.target) as client:
        return [b["id"].tolist() for b in client.stream("rows", batch_size=10, output="numpy")]


# -- fencing --------------------------------------------------------------------------------------------------------


def test_a_newer_process_takes_a_rank_over_and_the_older_is_told_and_keeps_what_it_got(server: Running) -> None:
    steps = whole(server)
    with (
        Trainer(server.target, "rows", "take", batch_size=10, name="s") as old,
        Trainer(server.target, "rows", "take", batch_size=10, name="s") as new,
    ):
        assert [old.step() for _ in range(3)] == steps[:3]
        assert new.step() == steps[0]
        with pytest.raises(Refused) as caught:  # noqa: PT012 - it hears of it a moment later
            for _ in range(100):  # at once then: not after its window
                old.step()
                time.sleep(0.05)
        assert caught.value.kind == "Fenced"
        for word in ("rank 0", "job 'take'", f"pid {new.process.pid} on ", "job="):
            assert word in caught.value.text
        # What it got stays its own, and asking again changes nothing: it does not reconnect.
        state = old.ask("state")
        assert state["cursor"]["step"] >= 3
        opened = server.metric("penstock_sessions_opened_total")
        with pytest.raises(Refused, match="Fenced"):
            old.step()
        assert old.ask("state") == state
        assert server.metric("penstock_sessions_opened_total") == opened
        # Another object of the fenced process does not take it back while the newcomer has it.
        old.ask("new")
        with pytest.raises(Refused, match="Fenced"):
            old.step()
        assert [new.step() for _ in range(5)] == steps[1:6]
        assert server.metric("penstock_errors_total", code="Fenced") >= 2
        # When the newcomer has gone, the rank is free again.
        new.ask("close")
        wait_for_sessions(server, "take", 0)
        old.ask("new")
        assert old.step() == steps[0]


def test_an_older_process_that_was_stopped_meanwhile_is_refused_when_it_wakes(server: Running) -> None:
    wide = {"batch_size": 10, "name": "s", "prefetch": 4}
    with (
        Trainer(server.target, "rows", "zombie", **wide) as old,
        Trainer(server.target, "rows", "zombie", **wide) as new,
    ):
        old.step()
        old.process.send_signal(signal.SIGSTOP)
        new.step()
        wait_for_sessions(server, "zombie", 1)
        old.process.send_signal(signal.SIGCONT)
        with pytest.raises(Refused, match="Fenced"):  # noqa: PT012 - it has its window in hand
            for _ in range(100):
                old.step()
        new.step()


def test_the_holder_reconnects_and_is_not_fenced(server: Running, tmp_path: object) -> None:
    steps = whole(server)
    with Trainer(server.target, "rows", "holder", batch_size=10, name="s", prefetch=4) as trainer:
        got = [trainer.step() for _ in range(7)]
        server.kill()
        server.start()
        got += trainer.ask("rest")
        assert got == steps
        assert trainer.ask("reconnects") == 1
    assert server.metric("penstock_errors_total", code="Fenced") == 0


def test_a_reconnect_ends_the_session_that_the_same_object_had_before(server: Running) -> None:
    """As after a network that broke without a word: the server still has the old session. By hand, token by token."""
    with grpc.insecure_channel(server.target, options=channel.CLIENT) as wire:
        stream = wire.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=pb.ServerMessage.FromString,
        )
        done = threading.Event()

        def claim(token: str, reopened: bool) -> Iterator[pb.ServerMessage]:
            """What the server says from Opened on; its first word is Opened, or what came instead."""
            view = pb.View(global_batch=10, rank=0, world_size=1)
            spec = pb.StreamSpec(sources=[pb.Source(dataset="rows")], seed=0)
            window = pb.Credit(steps=1, bytes=1 << 20)
            asked = pb.Open(
                protocol=PROTOCOL, stream=spec, view=view, window=window, job="by hand", name="s", token=token
            )
            asked.reopened = reopened

            def says() -> Iterator[pb.ClientMessage]:
                yield pb.ClientMessage(open=asked)
                done.wait(20)

            answers: Iterator[pb.ServerMessage] = stream(says(), timeout=30)
            return (m for m in answers if m.WhichOneof("kind") not in ("filling", "heartbeat"))

        old = claim("process.object", False)
        assert next(old).WhichOneof("kind") == "opened"
        new = claim("process.object", True)
        assert next(new).WhichOneof("kind") == "opened"
        assert "fenced" not in [m.WhichOneof("kind") for m in old]  # it ends, without a word
        # Another object of the process is nobody's rival; another process is told, and told again, whom it lost to.
        assert next(claim("process.other", False)).WhichOneof("kind") == "opened"
        assert next(claim("newer.object", False)).WhichOneof("kind") == "opened"
        kinds = [m.WhichOneof("kind") for m in new]
        assert kinds[-1] == "fenced"
        assert next(claim("process.object", True)).WhichOneof("kind") == "fenced"
        done.set()


def test_train_and_validation_of_one_process_do_not_fence_each_other(server: Running) -> None:
    with penstock.connect(server.target, job="both") as client, penstock.connect(server.target, job="both") as again:
        train = client.stream("rows", batch_size=10, output="numpy")
        validation = client.stream("rows", batch_size=20, output="numpy", seed=1)
        other_client = again.stream("rows", batch_size=50, output="numpy", seed=2)  # a name that there is already
        same = client.stream("rows", batch_size=10, output="numpy", name="rows#0")  # a notebook's cell, run twice
        for _ in range(10):
            for stream in (train, validation, other_client, same):
                stream.get_batch()
        assert all(stream.profile()["reconnects"] == 0 for stream in (train, validation, other_client, same))


def test_a_stream_that_is_pickled_or_copied_in_one_process_is_no_second_process(server: Running) -> None:
    with penstock.connect(server.target, job="copied") as client:
        stream = client.stream("rows", batch_size=10, output="numpy")
        stream.get_batch()
        twin: penstock.Stream = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
        assert twin.get_batch()["id"].tolist() == stream.get_batch()["id"].tolist()
        stream.get_batch()
        twin.close()


@pytest.mark.parametrize("job", [None, "forked"])
def test_a_forked_child_is_another_process_and_of_another_job_unless_one_was_named(
    server: Running, job: str | None
) -> None:
    """Without a launcher both read on undisturbed. In a named job the child has claimed the parent's rank."""
    with penstock.connect(server.target, job=job) as client:
        stream = client.stream("rows", batch_size=10, output="numpy", prefetch=4)
        stream.get_batch()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for _ in range(10):  # more than was in hand
                    stream.get_batch()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        if job is None:
            for _ in range(20):
                stream.get_batch()
        else:
            with pytest.raises(penstock.Fenced):  # noqa: PT012 - it may have some of its window in hand
                for _ in range(50):
                    stream.get_batch()
                    time.sleep(0.02)


def test_replicas_and_ranks_of_a_job_are_different_places(server: Running) -> None:
    with (
        Trainer(server.target, "rows", "places", batch_size=10, name="s", rank=0, world_size=2) as a,
        Trainer(server.target, "rows", "places", batch_size=10, name="s", rank=1, world_size=2) as b,
        Trainer(server.target, "rows", "places", batch_size=10, name="s", rank=0, world_size=2, replica=1) as c,
    ):
        for _ in range(5):
            first, second, third = a.step(), b.step(), c.step()
            assert first == third != second


# -- agreement ------------------------------------------------------------------------------------------------------

FAST = {"output": "numpy", "name": "s", "reconnect_timeout": 0.3}


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ({"world_size": 4, "global_batch_size": 20}, "world size: rank 1 asks for 4, rank 0 for 2"),
        ({"world_size": 2, "global_batch_size": 40}, "global batch: rank 1 asks for 40, rank 0 for 20"),
        ({"world_size": 2, "global_batch_size": 20, "seed": 9}, "seed: rank 1 asks for 9, rank 0 for 0"),
        ({"world_size": 2, "global_batch_size": 20, "last": "drop"}, "last: rank 1 asks for drop, rank 0 for short"),
        ({"world_size": 2, "global_batch_size": 20, "pool_rows": 77}, "pool: rank 1 asks for {'pool_rows': 77"),
    ],
)
def test_ranks_that_disagree_are_refused_with_the_difference(
    server: Running, wish: dict[str, object], says: str
) -> None:
    with penstock.connect(server.target, job=f"differ {wish}") as client:
        first = client.stream("rows", global_batch_size=20, rank=0, world_size=2, **FAST)  # type: ignore[arg-type]
        first.get_batch()
        wrong = client.stream("rows", rank=1, **{**FAST, **wish})  # type: ignore[arg-type]
        with pytest.raises(penstock.RanksDisagree) as caught:
            wrong.get_batch()
        assert says in str(caught.value)
        assert caught.value.retryable
        # Another stream of the job is nobody's business.
        client.stream("rows", rank=1, **{**FAST, **wish, "name": "other"}).get_batch()  # type: ignore[arg-type]
        first.get_batch()


def test_ranks_of_other_dataset_versions_are_refused_with_both(server: Running) -> None:
    with penstock.connect(server.target, job="versions") as client:
        first = client.stream("rows", batch_size=10, rank=0, world_size=2, **FAST)  # type: ignore[arg-type]
        first.get_batch()
        with pytest.raises(
            penstock.RanksDisagree, match=r"datasets: rank 1 asks for \('more@\w+',\), rank 0 for \('rows@"
        ):
            client.stream("more", batch_size=10, rank=1, world_size=2, **FAST).get_batch()  # type: ignore[arg-type]


@pytest.mark.parametrize("looks", [False, True])
def test_ranks_that_begin_at_different_states_are_refused_with_both_positions(server: Running, looks: bool) -> None:
    with penstock.connect(server.target, job=f"starts {looks}") as client:

        def rank(number: int) -> penstock.Stream:
            return client.stream("rows", batch_size=10, rank=number, world_size=2, **FAST)  # type: ignore[arg-type]

        with client.stream("rows", global_batch_size=20, name="elsewhere", output="numpy") as before:
            for _ in range(4):
                before.get_batch()
            state = before.state_dict()
        first, second = rank(0), rank(1)
        first.load_state_dict(state)
        first.get_batch()
        if looks:
            assert len(second) == 50  # to look is no disagreement
        with pytest.raises(penstock.RanksDisagree) as caught:  # noqa: PT012 - after a look it is told in mid-stream
            for _ in range(100):
                second.get_batch()
        assert "start: rank 1 asks for epoch 0, segment 0 after 0 units" in str(caught.value)
        assert "rank 0 for epoch 0, segment " in str(caught.value)
        # A new object of the process is judged as the first one was, and so is the same one with the right state.
        with pytest.raises(penstock.RanksDisagree, match="start: rank 1"):  # noqa: PT012 - as above
            third = rank(1)
            for _ in range(100):
                third.get_batch()
        second.load_state_dict(state)
        second.get_batch()


def test_a_look_of_one_rank_before_it_loads_its_state_disturbs_nobody(server: Running) -> None:
    with penstock.connect(server.target, job="looker") as client:
        with client.stream("rows", global_batch_size=20, name="elsewhere", output="numpy") as before:
            before.get_batch()
            state = before.state_dict()
        ranks = [client.stream("rows", batch_size=10, rank=r, world_size=2, **FAST) for r in range(2)]  # type: ignore[arg-type]
        assert len(ranks[0]) == 50
        ranks[1].load_state_dict(state)
        ranks[1].get_batch()
        ranks[0].load_state_dict(state)
        for rank in ranks:
            rank.get_batch()


def test_a_job_that_is_restarted_with_another_world_size_is_let_in_whatever_lingers(server: Running) -> None:
    """The old ranks are stopped, not dead: their sessions linger, as those of a lost host do."""
    wish = {"global_batch_size": 24, "name": "s", "prefetch": 2}
    old = [Trainer(server.target, "rows", "elastic", rank=r, world_size=4, **wish) for r in range(4)]
    try:
        parts = [trainer.step() for trainer in old]
        state = old[0].ask("state")
        for trainer in old:
            trainer.process.send_signal(signal.SIGSTOP)
        with (
            Trainer(server.target, "rows", "elastic", rank=0, world_size=2, **wish) as a,
            Trainer(server.target, "rows", "elastic", rank=1, world_size=2, **wish) as b,
        ):
            for trainer in (a, b):
                trainer.ask("load", state)
            began = time.monotonic()
            second = a.step() + b.step()
            assert time.monotonic() - began < 15  # the stopped ones would be waited for
            assert not set(second) & {i for part in parts for i in part}
            rest = [x + y for x, y in zip(a.ask("rest"), b.ask("rest"), strict=True)]
            seen = [i for part in parts for i in part] + second + [i for step in rest for i in step]
            assert sorted(seen) == list(range(1000))
    finally:
        for trainer in old:
            trainer.kill()


def test_ranks_that_make_their_streams_anew_at_their_own_pace_are_not_refused(server: Running) -> None:
    """Each rank opens stream after stream under one name, from its own state, with a seed of its own each time."""
    with penstock.connect(server.target, job="anew") as client:
        for seed in range(3):
            streams = [
                client.stream("rows", batch_size=10, rank=r, world_size=2, seed=seed, **FAST)  # type: ignore[arg-type]
                for r in range(2)
            ]
            for count, stream in enumerate(streams):
                for _ in range(1 + count):
                    stream.get_batch()
            for old in streams:
                with client.stream("rows", batch_size=10, rank=old.rank, world_size=2, seed=seed, **FAST) as moved:  # type: ignore[arg-type]
                    moved.load_state_dict(old.state_dict())
                    moved.get_batch()


def wait_for_sessions(server: Running, job: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        sessions = json.loads(server.get("/api/v1/sessions"))["sessions"]
        if sum(s["job"] == job for s in sessions) == count:
            return
        time.sleep(0.05)
    raise AssertionError(f"not {count} sessions of job {job!r}: {sessions}")
