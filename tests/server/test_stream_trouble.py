"""Trouble in mid-stream: whatever is raised, the position is that of what the user got, and nothing leaks."""

import gc
import itertools
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import penstock
from penstock.batch import Batch
from tests import datafiles
from tests.running import OVER, Running


@pytest.fixture(scope="module", params=list(OVER))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("trouble")
    data = datafiles.parquet(folder / "rows", shards=4, rows=250)
    holes = folder / "holes"
    holes.mkdir()
    values = [None if i == 900 else i for i in range(1000)]
    pq.write_table(pa.table({"id": values, "valid": np.arange(1000)}), holes / "0.parquet")
    images = folder / "images"
    images.mkdir()
    pq.write_table(pa.table({"id": np.arange(400), "image": [bytes(50_000)] * 400}), images / "0.parquet")
    with Running(
        (str(data), str(holes), str(images)),
        folder / "server",
        ("--max-sessions", "12", *OVER[request.param]),
    ) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def receivers() -> int:
    gc.collect()
    return sum(t.name == "penstock-receiver" and t.is_alive() for t in threading.enumerate())


def sessions(server: Running) -> int:
    return len(json.loads(server.get("/api/v1/sessions"))["sessions"])


def wait_until(server: Running, count: int, threads: int) -> None:
    """What was dropped ends a moment later: on its thread here, and when the server hears of it there."""
    deadline = time.monotonic() + 5
    while (sessions(server) != count or receivers() > threads) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions(server) == count
    assert receivers() <= threads


def test_a_batch_that_cannot_be_converted_stays_next_and_nothing_behind_it_is_lost(client: penstock.Client) -> None:
    stream = client.stream("holes", columns=["id"], batch_size=10, output="numpy", shuffle=False, prefetch=40)
    got = 0
    with pytest.raises(penstock.ConversionError, match="id"):  # noqa: PT012 - how far it gets is the point
        for batch in stream:
            assert batch["id"].tolist() == list(range(got, got + 10))
            got += 10
    assert got <= 900
    # The same again, and never the rows behind it.
    for _ in range(2):
        with pytest.raises(penstock.ConversionError):  # noqa: PT012
            while True:
                assert stream.get_batch()["id"][0] == got
                got += 10
    assert stream.state_dict()["cursor"]["step"] * 10 == got
    assert stream.epoch == 0


def test_a_step_that_cannot_be_placed_is_given_again(client: penstock.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = client.stream("rows", batch_size=10, device="cpu")
    first = next(iter(stream)).id.tolist()

    def full(*_: Any, **__: Any) -> Batch:
        raise torch.OutOfMemoryError("no room on the device")

    with monkeypatch.context() as patch:
        patch.setattr(Batch, "to", full)
        for _ in range(2):
            with pytest.raises(torch.OutOfMemoryError):  # noqa: PT012 - what was on its way before comes first
                while True:
                    first += stream.get_batch().id.tolist()
    assert stream.state_dict()["cursor"]["step"] * 10 == len(first) <= 20
    rest = [int(i) for b in stream.resume() for i in b.id]
    assert sorted(first + rest) == list(range(1000))


def test_an_interrupt_anywhere_loses_nothing(client: penstock.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [int(i) for b in client.stream("rows", batch_size=10, output="numpy") for i in b["id"]]
    stream = client.stream("rows", batch_size=10, output="numpy", prefetch=8)
    puller = stream._puller
    got: list[int] = []
    for name in ("_receive", "_open_bundle", "_take_opened", "_connect"):
        original = getattr(puller, name)

        def interrupted(*arguments: Any, _original: Any = original, **_: Any) -> Any:
            _original(*arguments)
            raise KeyboardInterrupt

        got += stream.get_batch()["id"].tolist()
        stream._puller._drop_receiver()
        with monkeypatch.context() as patch:
            patch.setattr(puller, name, interrupted)
            try:
                while True:
                    got += stream.get_batch()["id"].tolist()
            except KeyboardInterrupt:
                pass
    assert got + [int(i) for b in stream.resume() for i in b["id"]] == whole


def test_a_stream_that_only_the_loop_knows_lives_as_long_as_the_loop(server: Running, client: penstock.Client) -> None:
    before, there = receivers(), sessions(server)
    assert sum(len(b["id"]) for b in client.stream("rows", batch_size=10, output="numpy", prefetch=3)) == 1000
    wait_until(server, there, before)


def test_a_closed_stream_stays_closed(client: penstock.Client) -> None:
    before = receivers()
    stream = client.stream("rows", batch_size=10, output="numpy")
    stream.close()
    for use in (lambda: len(stream), lambda: stream.schema, lambda: next(stream.resume()), stream.get_batch):
        with pytest.raises(penstock.InvalidRequest, match="closed"):
            use()
    assert stream.state_dict()["cursor"] is None
    assert receivers() == before


def test_closing_wakes_a_thread_that_waits(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=10, output="numpy", max_rows_per_s=None, prefetch=1)
    ended: list[str] = []

    def read() -> None:
        try:
            for _ in range(10_000):
                stream.get_batch()
        except penstock.PenstockError as error:
            ended.append(str(error))

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.2)
    stream.close()
    reader.join(10)
    assert not reader.is_alive()
    assert "closed" in ended[0]


def test_a_refusal_when_opened_is_the_same_each_time(client: penstock.Client) -> None:
    stream = client.stream("holes", batch_size=10, output="numpy", last="pad")
    for _ in range(3):
        with pytest.raises(penstock.ConversionError, match="mask that says which rows are data"):
            next(iter(stream))
        with pytest.raises(penstock.ConversionError, match="mask that says which rows are data"):
            len(stream)


def test_a_step_that_no_memory_could_hold_is_refused_and_the_server_lives(client: penstock.Client) -> None:
    for last in ("pad", "wrap", "short"):
        with pytest.raises(penstock.InvalidRequest, match=r"at most \d+ rows per rank"):
            client.stream("rows", batch_size=10**9, last=last, output="numpy").get_batch()
    assert len(client.datasets()) == 3


def test_the_first_bundle_of_big_rows_keeps_to_the_window(server: Running, client: penstock.Client) -> None:
    before = server.metric("penstock_bytes_sent_total")
    stream = client.stream("images", columns=["image"], batch_size=16, output="numpy", prefetch_bytes=1 << 20)
    next(iter(stream))
    time.sleep(0.3)
    sent = server.metric("penstock_bytes_sent_total") - before
    assert sent <= 2 * 16 * 50_100 + (1 << 20)


def test_sessions_never_exceed_their_limit_however_many_knock_at_once(server: Running) -> None:
    refused: list[str] = []
    opened: list[penstock.Stream] = []

    def open_one() -> None:
        with penstock.connect(server.target) as own:
            stream = own.stream("rows", batch_size=10, output="numpy", reconnect_timeout=0.1, prefetch=1)
            try:
                stream.get_batch()
                opened.append(stream)
                done.wait(20)
            except penstock.ResourceExhausted as error:
                refused.append(str(error))
            stream.close()

    done = threading.Event()
    threads = [threading.Thread(target=open_one) for _ in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 15
    while len(opened) + len(refused) < 20 and time.monotonic() < deadline:
        assert sessions(server) <= 12
    done.set()
    for thread in threads:
        thread.join(10)
    assert len(opened) + len(refused) == 20
    assert len(opened) <= 12
    assert all("--max-sessions" in text for text in refused)


def test_a_trainer_that_counts_its_steps_goes_on_with_the_next_epoch(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=100, output="numpy")
    epochs = [[b["id"].tolist() for b in itertools.islice(stream, len(stream))] for _ in range(3)]
    assert stream.epoch == 2
    assert epochs[0] != epochs[1] != epochs[2]
    assert all(sorted(i for step in e for i in step) == list(range(1000)) for e in epochs)


def test_a_dropped_stream_in_a_cycle_holds_nobody_up(client: penstock.Client) -> None:
    other = client.stream("rows", batch_size=10, output="numpy", prefetch=2)
    other.get_batch()

    class Trainer:
        def __init__(self) -> None:
            self.me = self
            self.stream = client.stream("rows", batch_size=10, output="numpy", prefetch=2)
            self.stream.get_batch()

    Trainer()
    began = time.monotonic()
    gc.collect()
    other.get_batch()
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("shared", [False, True])
def test_a_stream_collected_within_its_tensor_pool_waits_for_nobody(client: penstock.Client, shared: bool) -> None:
    pool = penstock.TensorPool() if shared else None

    class Trainer:
        def __init__(self) -> None:
            self.me = self
            self.stream = client.stream("rows", batch_size=10, output="numpy", prefetch=2, tensor_pool=pool)
            self.stream.get_batch()

    def collect_within() -> None:
        used = Trainer().stream._puller._pool
        with used._own(), used._blocks.here().lock:  # as a garbage collection in `take` has it
            gc.collect()
        done.set()

    done = threading.Event()
    threading.Thread(target=collect_within, daemon=True).start()
    assert done.wait(20)


def test_a_state_beyond_the_epoch_is_refused(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=10, output="numpy")
    stream.get_batch()
    state = stream.state_dict()
    state["cursor"]["segment"] = 99
    stream.load_state_dict(state)
    with pytest.raises(penstock.InvalidRequest, match="segment 99"):
        stream.get_batch()


def test_rows_that_come_again_under_wrap_say_where_they_are_from(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=300, output="numpy", last="wrap", row_ids=True) as stream:
        for batch in stream:
            assert np.array_equal(batch["id"], batch.metadata.ids)


def test_an_idle_server_forgets_what_streams_left(server: Running, client: penstock.Client) -> None:
    for seed in range(6):
        with client.stream("rows", batch_size=10, output="numpy", seed=seed, pool_rows=200) as stream:
            stream.get_batch()
    deadline = time.monotonic() + 5
    while server.metric("penstock_mixing_bytes") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.metric("penstock_mixing_bytes") == 0
