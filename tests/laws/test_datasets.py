"""One law for every dataset that can be indexed, of whatever format, sums of them included: the index is the stored
order, and types, errors and metadata are the same everywhere."""

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

import penstock
from tests.running import Running
from tests.source.files import SUFFIXES, WRITERS

SHARDS = 3
ROWS = 40  # of a shard
SUMS = ["csv+parquet", "parquet+csv+parquet", "(csv+tsv)+(json+arrow)", "arrow+arrow"]


def name_of(suffix: str) -> str:
    return suffix.removeprefix(".").replace(".", "-")


def table(first: int) -> pa.Table:
    ids = np.arange(first, first + ROWS)
    return pa.table({"id": ids, "x": ids * 0.25 + 0.125, "word": [f"w{i}" for i in ids]})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("datasets")
    named = []
    for number, suffix in enumerate(SUFFIXES):
        data = folder / name_of(suffix)
        data.mkdir()
        for shard in range(SHARDS):
            WRITERS[suffix](table(number * 1000 + shard * ROWS), data / f"{shard}{suffix}")
        named.append(f"{name_of(suffix)}={data}")
    with Running(tuple(named), folder / "server", ("--chunk-rows", "16")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def opened(client: penstock.Client, expression: str, **options: Any) -> penstock.Dataset:
    names = {name_of(suffix).replace("-", "_"): name_of(suffix) for suffix in SUFFIXES}
    values = {word: client.dataset(name, **options) for word, name in names.items() if word in expression}
    return eval(expression, {}, values)  # type: ignore[no-any-return] # noqa: S307 - the expressions stand above


def ids_of(expression: str) -> list[int]:
    words = expression.replace("(", "").replace(")", "").split("+")
    numbers = [[name_of(s).replace("-", "_") for s in SUFFIXES].index(word) for word in words]
    return [n * 1000 + i for n in numbers for i in range(SHARDS * ROWS)]


@pytest.mark.parametrize("expression", [*(name_of(s).replace("-", "_") for s in SUFFIXES), *SUMS])
def test_the_law_of_datasets(client: penstock.Client, expression: str) -> None:
    ids = ids_of(expression)
    n = len(ids)
    ds = opened(client, expression)

    # Types: a row is a dict of 0-d tensors and strings, several rows are a Batch.
    assert len(ds) == n
    for i in (0, 1, ROWS, n // 2, n - 1, -1, -n):
        row = ds[i]
        assert list(row) == ["id", "x", "word"]
        assert (row["id"].dtype, row["x"].dtype, row["id"].shape) == (torch.int64, torch.float64, ())
        assert (int(row["id"]), float(row["x"])) == (ids[i], ids[i] * 0.25 + 0.125)
        assert row["word"] == f"w{ids[i]}"

    # Index meaning: that of a list.
    for cut in (
        slice(3, 9),
        slice(n - 5, n + 5),
        slice(-4, None),
        slice(None, None, 17),
        slice(None, None, -13),
        slice(n - 2, 2, -29),
        slice(5, 5),
        slice(9, 3),
    ):
        batch = ds[cut]
        assert isinstance(batch, penstock.Batch)
        assert batch.id.dtype == torch.int64
        assert batch.id.tolist() == ids[cut]
        assert batch.word == [f"w{i}" for i in ids[cut]]
    chosen = [n - 1, 0, 7, 7, -2, ROWS + 1, n // 2]
    assert ds.take(chosen).id.tolist() == [ids[i] for i in chosen]
    assert ds.take(np.array(chosen)).id.tolist() == ds.take(torch.tensor(chosen)).id.tolist()
    assert ds.take([]).id.tolist() == []
    assert [int(row["id"]) for row in ds] == ids
    assert [int(row["id"]) for row in ds.__getitems__(chosen)] == [ids[i] for i in chosen]

    # Errors: named index and length; a column is no index.
    for wrong in (n, -n - 1, 10**12):
        with pytest.raises(IndexError, match=f"index {wrong} of .*: it has {n} rows, so indices are 0 to {n - 1}, or"):
            ds[wrong]
        with pytest.raises(IndexError, match=f"index {wrong} of"):
            ds.take([0, wrong])
    with pytest.raises(TypeError, match=r"by an integer or a slice, not by str \('x'\)"):
        ds["x"]

    # Metadata: the registry's facts, of the version that is read.
    assert ds.schema.names == ["id", "x", "word"]
    assert (ds.metadata.rows, ds.metadata.shards) == (n, len(ds.sources) * SHARDS)
    assert ds.metadata.schema.names == ds.schema.names
    assert all("@" in source for source in ds.sources)
    assert repr(ds).startswith(f"<penstock.Dataset {' + '.join(ds.sources)}: {n} rows of id: int64, x: double, word:")

    # A copy is the same dataset.
    copy = pickle.loads(pickle.dumps(ds))  # noqa: S301 - our own bytes
    assert (len(copy), copy.sources, copy.metadata) == (n, ds.sources, ds.metadata)
    assert copy[n // 2]["word"] == ds[n // 2]["word"]


@pytest.mark.parametrize("expression", ["jsonl", *SUMS[:1]])
@pytest.mark.parametrize("output", ["numpy", "mlx", "arrow", "rows"])
def test_the_law_of_outputs(client: penstock.Client, expression: str, output: str) -> None:
    ids = ids_of(expression)
    ds = opened(client, expression, output=output)
    row, several, none = ds[5], ds[118:122], ds[3:3]
    assert isinstance(row, dict)
    if output == "arrow":
        assert isinstance(several, pa.RecordBatch)
        assert several.schema.names == none.schema.names == ["id", "x", "word"]
        several = several.to_pydict()
    elif output == "rows":
        assert isinstance(several, list)
        assert none == []
        several = pa.RecordBatch.from_pylist(several).to_pydict()
    else:
        assert isinstance(several, penstock.Batch)
        assert none["id"].shape == (0,)
    assert {name: getattr(value, "item", lambda v=value: v)() for name, value in row.items()} == {
        "id": ids[5],
        "x": ids[5] * 0.25 + 0.125,
        "word": f"w{ids[5]}",
    }
    assert list(several["id"]) == ids[118:122]
    assert list(several["word"]) == [f"w{i}" for i in ids[118:122]]


def test_a_sum_is_read_in_order_whatever_is_asked(client: penstock.Client, tmp_path: Path) -> None:
    ds = opened(client, "csv+parquet+csv", output="numpy")
    ids = ids_of("csv+parquet+csv")
    random = np.random.default_rng(7)
    for _ in range(5):
        chosen = random.integers(-len(ids), len(ids), 200)
        assert ds.take(chosen)["id"].tolist() == [ids[i] for i in chosen]
    for _ in range(20):
        start, stop = random.integers(-400, 400, 2)
        step = int(random.choice([-50, -7, -1, 1, 3, 119, 120, 121]))
        assert ds[start:stop:step]["id"].tolist() == ids[start:stop:step]
