"""The stream as a training script uses it: epochs, iterators, states, copies of it in other processes."""

import gc
import json
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pyarrow as pa
import pytest
import torch

import penstock
from tests import datafiles
from tests.running import OVER, Running

Serve = Callable[..., Running]


@pytest.fixture(scope="module", params=list(OVER))
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("stream")
    data = datafiles.parquet(folder / "rows", shards=4, rows=250)
    with Running((str(data),), folder / "server", OVER[request.param]) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def ids(stream: penstock.Stream) -> list[int]:
    return [int(i) for batch in stream for i in batch["id"]]


def test_each_epoch_has_every_row_in_an_order_of_its_own(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=64, output="numpy") as stream:
        first, second = ids(stream), ids(stream)
        assert sorted(first) == sorted(second) == list(range(1000))
        assert first != second
        assert stream.epoch == 2
        stream.set_epoch(0)
        assert ids(stream) == first
        assert stream.epoch == 1
        stream.sampler.set_epoch(0)
        assert ids(stream) == first
        stream.reset()
        assert ids(stream) == first


def test_without_shuffling_rows_come_as_stored(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=64, output="numpy", shuffle=False) as stream:
        assert ids(stream) == list(range(1000))


def test_a_loop_left_by_break_begins_again_with_a_warning_and_resume_goes_on(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=10, output="numpy") as stream:
        whole = ids(stream)
        stream.reset()
        for batch in stream:
            if batch.metadata.step == 6:
                break
        assert stream.epoch == 0
        with pytest.warns(UserWarning, match=r"left at step 7.*resume"):
            again = next(iter(stream))
        assert again["id"].tolist() == whole[:10]
        assert stream.get_batch()["id"].tolist() == whole[10:20]
        rest = [int(i) for batch in stream.resume() for i in batch["id"]]
        assert rest == whole[20:]
        assert stream.epoch == 1


def test_get_batch_goes_on_into_the_next_epoch(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=300, output="numpy") as stream:
        found = [stream.get_batch().metadata for _ in range(6)]
        assert [(m.epoch, m.step, m.rows) for m in found] == [
            (0, 0, 300),
            (0, 1, 300),
            (0, 2, 300),
            (0, 3, 100),
            (1, 0, 300),
            (1, 1, 300),
        ]


def test_a_second_iterator_ends_the_first(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=10, output="numpy") as stream:
        first = iter(stream)
        next(first)
        with pytest.warns(UserWarning, match="left at step 1"):
            second = iter(stream)
        with pytest.raises(penstock.PenstockError, match="one live iterator"):
            next(first)
        assert len(list(second)) == 100


def test_a_state_survives_json_torch_save_and_a_change_of_batch_size(client: penstock.Client, tmp_path: Path) -> None:
    stream = client.stream("rows", batch_size=30, output="numpy")
    before = stream.state_dict()
    whole = ids(stream)
    stream.reset()
    seen = 0
    for batch in stream:
        seen += len(batch["id"])
        if seen == 300:
            break
    state = stream.state_dict()
    torch.save(state, tmp_path / "state.pt")
    for loaded in (json.loads(json.dumps(state)), torch.load(tmp_path / "state.pt", weights_only=True)):
        other = client.stream("rows", batch_size=7, output="numpy")
        other.load_state_dict(loaded)
        assert other.epoch == 0
        assert ids(other) == whole[300:]
        # Once: the next epoch begins at its start.
        assert len(ids(other)) == 1000
        other.close()
    fresh = client.stream("rows", batch_size=30, output="numpy")
    fresh.load_state_dict(before)
    assert ids(fresh) == whole


def test_a_state_taken_at_the_last_step_ends_its_epoch_and_one_between_epochs_begins_the_next(
    client: penstock.Client,
) -> None:
    stream = client.stream("rows", batch_size=100, output="numpy")
    states = [stream.state_dict() for _ in stream]
    between = stream.state_dict()
    second = ids(stream)
    at_last = client.stream("rows", batch_size=100, output="numpy")
    at_last.load_state_dict(states[-1])
    assert at_last.epoch == 0
    assert ids(at_last) == []
    assert at_last.epoch == 1
    assert ids(at_last) == second
    later = client.stream("rows", batch_size=100, output="numpy")
    later.load_state_dict(between)
    assert later.epoch == 1
    assert ids(later) == second


def test_set_epoch_of_the_loaded_epoch_keeps_the_state(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=100, output="numpy")
    for _ in zip(range(4), stream, strict=False):
        pass
    state = stream.state_dict()
    other = client.stream("rows", batch_size=100, output="numpy")
    other.load_state_dict(state)
    other.set_epoch(0)
    assert len(ids(other)) == 600
    other.load_state_dict(state)
    other.set_epoch(1)
    assert len(ids(other)) == 1000


@pytest.mark.parametrize("prefetch", [1, 2, 3, 1000])
@pytest.mark.parametrize("size", [1, 500, 1 << 20])
def test_any_window_delivers_everything(client: penstock.Client, prefetch: int, size: int) -> None:
    with client.stream("rows", batch_size=9, output="numpy", prefetch=prefetch, prefetch_bytes=size) as stream:
        assert sorted(ids(stream)) == list(range(1000))
        assert len(ids(stream)) == 1000


@pytest.mark.parametrize("batch", [999, 1000, 1001, 5000])
def test_a_batch_about_as_large_as_the_epoch(client: penstock.Client, batch: int) -> None:
    with client.stream("rows", batch_size=batch, output="numpy") as stream:
        assert [len(b["id"]) for b in stream] == ([999, 1] if batch == 999 else [1000])
        assert [len(b["id"]) for b in stream] == ([999, 1] if batch == 999 else [1000])


def test_padding_has_a_mask_and_is_counted(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=300, output="torch", last="pad") as stream:
        batches = list(stream)
        assert [int(b.valid.sum()) for b in batches] == [300, 300, 300, 100]
        assert all(len(b.valid) == 300 == len(b.id) for b in batches)
        assert sorted(int(i) for b in batches for i in b.id[b.valid]) == list(range(1000))
        assert stream.profile()["padded_rows"] == 200
    with client.stream("rows", batch_size=300, output="numpy", last="drop") as stream:
        assert [len(b["id"]) for b in stream] == [300, 300, 300]
        assert stream.profile()["dropped_rows"] == 100
        assert stream.drop_last
        assert len(stream) == 3
    with client.stream("rows", batch_size=300, output="numpy", last="wrap") as stream:
        found = ids(stream)
        assert found[1000:] == found[:200]
        assert stream.profile()["repeated_rows"] == 200


def test_outputs_are_what_was_asked_for(client: penstock.Client) -> None:
    kinds = {"torch": torch.Tensor, "numpy": np.ndarray, "mlx": mx.array}
    for output, kind in kinds.items():
        with client.stream("rows", batch_size=10, output=output) as stream:  # type: ignore[arg-type]
            batch = next(iter(stream))
            assert isinstance(batch.id, kind)
            assert set(batch) == {"id", "x", "y"}
            assert batch.metadata.rows == 10
    with client.stream("rows", batch_size=10, output="arrow", columns=["y", "id"]) as stream:
        table = next(iter(stream))
        assert isinstance(table, pa.RecordBatch)
        assert table.schema.names == ["y", "id"]
        assert stream.schema == table.schema


def test_tensors_may_be_written_to_without_a_warning(client: penstock.Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with client.stream("rows", batch_size=10) as stream:
            for batch in stream:
                batch.x.add_(1)
                assert torch.equal(batch.x, batch.id * 0.5 + 1)


def test_batches_that_are_kept_stay_what_they_were(client: penstock.Client) -> None:
    with client.stream("rows", batch_size=10) as stream:
        kept = [(batch, batch.x.clone()) for batch in stream]
    gc.collect()
    assert all(torch.equal(batch.x, copy) for batch, copy in kept)


def test_a_pickled_stream_goes_on_in_its_copy(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=100, output="numpy")
    whole = ids(stream)
    stream.reset()
    iterator = iter(stream)
    next(iterator)
    copy = pickle.loads(pickle.dumps(stream))  # noqa: S301 - our own bytes
    assert ids(copy) == whole[100:]
    assert [int(i) for b in iterator for i in b["id"]] == whole[100:]
    assert pickle.loads(pickle.dumps(client)).target == client.target  # noqa: S301


def test_a_forked_child_reads_on_its_own_and_leaves_the_parent_alone(client: penstock.Client) -> None:
    stream = client.stream("rows", batch_size=100, output="numpy")
    whole = ids(stream)
    stream.reset()
    iterator = iter(stream)
    first = next(iterator)["id"].tolist()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            rest = [int(i) for b in stream.resume() for i in b["id"]]
            os.write(write, b"same" if rest == whole[100:] else b"other")
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as answer:
        assert answer.read() == "same"
    assert os.waitpid(child, 0)[1] == 0
    assert first + [int(i) for b in iterator for i in b["id"]] == whole


def test_inside_a_dataloader_worker_iteration_is_refused(client: penstock.Client) -> None:
    class Wrapped(torch.utils.data.IterableDataset[object]):
        def __init__(self, stream: penstock.Stream) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[object]:
            return iter(self.stream)

    stream = client.stream("rows", batch_size=10, output="numpy")
    loader = torch.utils.data.DataLoader(Wrapped(stream), batch_size=None, num_workers=1)
    with pytest.raises(Exception, match="use num_workers=0: the server prefetches"):
        next(iter(loader))
    loader = torch.utils.data.DataLoader(Wrapped(stream), batch_size=None, num_workers=0)
    assert len(list(loader)) == 100


def test_closed_and_dropped_streams_leave_no_thread_and_no_session(server: Running, client: penstock.Client) -> None:
    def receivers() -> int:
        return sum(t.name == "penstock-receiver" for t in threading.enumerate())

    gc.collect()
    before = receivers()
    for i in range(5):
        stream = client.stream("rows", batch_size=10, output="numpy")
        next(iter(stream))
        if i % 2:
            stream.close()
            stream.close()
            with pytest.raises(penstock.InvalidRequest, match="closed"):
                iter(stream)
        del stream
    gc.collect()
    deadline = time.monotonic() + 5
    while (
        receivers() > before or json.loads(server.get("/api/v1/sessions"))["sessions"]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)  # what was dropped ends, and the server hears of it, a moment later
    assert receivers() <= before
    assert json.loads(server.get("/api/v1/sessions"))["sessions"] == []


def test_registry_calls_of_the_client(server: Running, client: penstock.Client, tmp_path: Path) -> None:
    data = datafiles.csv(tmp_path / "more", 1, 30)
    info = client.register("extra", str(data), description="thirty rows", tags=["small", "csv"])
    assert (info.name, info.rows, info.shards, info.formats) == ("extra", 30, 1, ("csv",))
    assert [d.name for d in client.datasets()] == ["extra", "rows"]
    assert [d.name for d in client.datasets(text="thirty")] == ["extra"]
    assert [d.name for d in client.datasets(tag="csv")] == ["extra"]
    assert client.datasets(tag="nothing") == []
    assert client.get("rows").schema.names == ["id", "x", "y"]
    assert client.get(f"rows@{client.get('rows').version}").rows == 1000
    stream = client.stream("extra", batch_size=10, output="numpy")
    next(iter(stream))
    with pytest.raises(penstock.InvalidRequest, match="in use"):
        client.remove("extra")
    stream.close()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            assert client.remove("extra").name == "extra"
            break
        except penstock.InvalidRequest:
            time.sleep(0.05)  # the server hears of the closed stream a moment later
    with pytest.raises(penstock.DatasetNotFound):
        client.get("extra")
    with pytest.raises(penstock.InvalidRequest, match="no/such"):
        client.register("bad", "/no/such/folder")
