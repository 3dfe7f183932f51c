"""A stream as torch's IterableDataset, in a DataLoader."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import penstock
from tests import datafiles
from tests.running import Running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("as_dataset")
    data = datafiles.parquet(folder / "rows", shards=4, rows=250)
    with Running((str(data),), folder / "server") as running:
        yield running


@pytest.fixture
def stream(server: Running) -> Iterator[penstock.Stream]:
    with penstock.connect(server.target) as client, client.stream("rows", batch_size=64) as found:
        yield found


def test_a_dataloader_hands_out_the_batches_of_the_stream(stream: penstock.Stream) -> None:
    ds = stream.as_dataset()
    kind: type[Any] = IterableDataset
    assert isinstance(ds, kind)
    loader: Any = DataLoader(ds, batch_size=None)
    assert len(loader) == len(ds) == len(stream) == 16
    epochs = []
    for epoch in range(2):
        batches = list(loader)
        assert all(isinstance(b, penstock.Batch) and b.metadata.epoch == epoch for b in batches)
        epochs.append(torch.cat([b.id for b in batches]).tolist())
        assert sorted(epochs[-1]) == list(range(1000))
    assert epochs[0] != epochs[1]
    ds.set_epoch(0)
    assert torch.cat([b.id for b in loader]).tolist() == epochs[0]


@pytest.mark.parametrize(("start", "workers"), [("fork", 2), ("spawn", 1)])
def test_inside_workers_it_refuses_and_never_doubles(stream: penstock.Stream, start: str, workers: int) -> None:
    loader: Any = DataLoader(
        stream.as_dataset(), batch_size=None, num_workers=workers, multiprocessing_context=start, timeout=60
    )
    with pytest.raises(penstock.InvalidRequest, match="use num_workers=0: the server prefetches"):
        next(iter(loader))


def test_a_loop_that_counts_steps_and_never_asks_for_the_end_goes_on_with_the_next_epoch(
    stream: penstock.Stream,
) -> None:
    found = []
    for _ in range(3):
        batches = iter(stream)
        found.append([next(batches).id.tolist() for _ in range(len(stream))])
    assert all(sorted(i for ids in epoch for i in ids) == list(range(1000)) for epoch in found)
    assert stream.epoch == 2  # until the next iterator begins: a state saved now is one of the end of epoch 2
    stream.set_epoch(3)
    assert stream.epoch == 3
    assert next(iter(stream)).metadata.epoch == 3
    stream.set_epoch(1)
    again = iter(stream)
    assert [next(again).id.tolist() for _ in range(len(stream))] == found[1]
    stream.set_epoch(1)  # by name: this one, and no warning
    assert next(iter(stream)).id.tolist() == found[1][0]


def test_its_state_is_that_of_the_stream(stream: penstock.Stream) -> None:
    ds = stream.as_dataset()
    whole = [b.id.tolist() for b in DataLoader(ds, batch_size=None)]
    ds.set_epoch(0)
    for batch in DataLoader(ds, batch_size=None):
        if batch.metadata.step == 4:
            break
    state = ds.state_dict()
    assert state == stream.state_dict()
    ds.load_state_dict(state)
    assert [b.id.tolist() for b in DataLoader(ds, batch_size=None)] == whole[5:]


def test_without_torch_it_is_refused_and_the_client_stays_light(tmp_path: Path) -> None:
    script = """
import sys
sys.modules["torch"] = None
import penstock
stream = penstock.connect("127.0.0.1:1").stream("rows", batch_size=8, output="numpy")
try:
    stream.as_dataset()
except penstock.InvalidRequest as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("as_dataset() needs torch")
    assert 'pip install "penstock[torch]"' in done.stdout
