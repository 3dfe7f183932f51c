"""A dataset that is indexed, against the real server: what an access costs, what it refuses, who may use it."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

import penstock
from penstock_proto.v1 import rows_pb2 as pb
from penstock_proto.v1 import rows_pb2_grpc
from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("dataset")
    data = datafiles.parquet(folder / "rows", shards=10, rows=300, row_group=100)
    with Running((str(data),), folder / "server", ("--chunk-rows", "100")) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def test_one_access_costs_one_chunk_and_no_scan(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 20, 1000, row_group=100), "--chunk-rows", 100)
    with penstock.connect(server.target) as client:
        ds = client.dataset("rows")
        assert len(ds) == 20_000
        assert server.metric("penstock_chunks_made_total") == 0
        for count, index in enumerate([12_345, 3, -1], 1):
            assert int(ds[index]["id"]) == index % 20_000
            assert server.metric("penstock_chunks_made_total") == count
        assert int(ds[12_399]["id"]) == 12_399  # of a chunk that is there
        assert ds[5000:5250].id.tolist() == list(range(5000, 5250))
        assert server.metric("penstock_chunks_made_total") == 6
        ds.take([19_999, 700, 12_301, 710])
        assert server.metric("penstock_chunks_made_total") == 7


def test_a_bad_row_is_an_error_of_that_row_alone(serve: Serve, tmp_path: Path) -> None:
    lines = [json.dumps({"id": i}) for i in range(50)]
    lines[7], lines[20] = '{"id": }', '{"id": 20'
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(lines) + "\n")
    with penstock.connect(serve(data).target) as client:
        ds = client.dataset("rows", output="numpy")
        assert len(ds) == 50
        for bad in (7, 20, -30):
            with pytest.raises(penstock.DataError, match=rf"row {bad % 50} of rows@.*rows\.jsonl, line {bad % 50 + 1}"):
                ds[bad]
        assert [int(ds[i]["id"]) for i in range(50) if i not in (7, 20)] == [i for i in range(50) if i not in (7, 20)]
        assert ds[8:20]["id"].tolist() == list(range(8, 20))
        assert ds.take([49, 0, 21, 6])["id"].tolist() == [49, 0, 21, 6]
        with pytest.raises(penstock.DataError, match="row 7 of"):
            ds[0:30]
        with pytest.raises(penstock.DataError, match="row 20 of"):
            ds.take([3, 20, 7])
        # Iterating hands out what comes before it.
        rows = iter(ds)
        assert [int(next(rows)["id"]) for _ in range(7)] == list(range(7))
        with pytest.raises(penstock.DataError, match="row 7 of"):
            next(rows)


def test_the_version_is_pinned_when_the_dataset_is_opened(serve: Serve, tmp_path: Path) -> None:
    data = datafiles.jsonl(tmp_path / "rows", 2, 10)
    with penstock.connect(serve(data).target) as client:
        before = client.dataset("rows")
        datafiles.jsonl(tmp_path / "more", 1, 10, first=500)
        (tmp_path / "more" / "0000.jsonl").rename(data / "00000.jsonl")  # sorts first
        client.register("rows", str(data))
        after = client.dataset("rows")
        assert (len(before), len(after)) == (20, 30)
        assert before.sources != after.sources
        assert int(before[0]["id"]) == 0
        assert int(client.dataset(before.sources[0])[0]["id"]) == 0
        assert after.take([0, 29]).id.tolist() == ([500, 19] if int(after[0]["id"]) == 500 else [0, 19])
        assert before.metadata.version in before.sources[0]
        unread = client.register("unread", str(datafiles.jsonl(tmp_path / "unread", 2, 10)))
        ds = client.dataset(f"unread@{unread.version}")
        (tmp_path / "unread" / "0001.jsonl").write_text('{"id": 1}\n')
        with pytest.raises(penstock.SourceChanged, match=r"0001\.jsonl"):
            ds[0]


def test_columns_are_chosen_and_refused_by_name(client: penstock.Client) -> None:
    ds = client.dataset("rows", columns=["y", "id"])
    assert list(ds[3]) == ["y", "id"] == ds.schema.names
    assert list(ds[3:5]) == ["y", "id"]
    for columns, said in (
        (["z"], r"no column 'z' in rows@.*; the columns are \['id', 'x', 'y'\]"),
        (["x", "x"], "column 'x' is named 2 times"),
        ([], r"columns=\[\]: name at least one"),
        ("id", r"must be a list of names, as columns=\['id'\]"),
    ):
        with pytest.raises(penstock.InvalidRequest, match=said):
            client.dataset("rows", columns=columns)
    with pytest.raises(penstock.DatasetNotFound, match="rows"):
        client.dataset("rosw")
    with pytest.raises(penstock.InvalidRequest, match="output='jax': must be one of torch, mlx, numpy, arrow, rows"):
        client.dataset("rows", output="jax")  # type: ignore[arg-type]


def test_what_cannot_be_added_is_refused_with_the_columns(client: penstock.Client) -> None:
    rows = client.dataset("rows")
    with pytest.raises(penstock.InvalidRequest, match=r"differ in 'x' \(double and missing\)"):
        rows + client.dataset("rows", columns=["id", "y"])
    with pytest.raises(penstock.InvalidRequest, match="differ in their order"):
        rows + client.dataset("rows", columns=["x", "id", "y"])
    with pytest.raises(penstock.InvalidRequest, match="must be handed out alike"):
        rows + client.dataset("rows", output="numpy")
    with pytest.raises(TypeError):
        rows + [1]  # type: ignore[operator] # noqa: RUF005


def test_a_type_without_a_form_is_refused_before_a_row_is_asked_for(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    pa.parquet.write_table(pa.table({"id": [1, 2], "deep": [[[1], [2, 3]], []]}), tmp_path / "rows" / "a.parquet")
    with penstock.connect(serve(tmp_path / "rows").target) as client:
        with pytest.raises(penstock.ConversionError, match=r"column 'deep' .*lists of lists"):
            client.dataset("rows")
        assert client.dataset("rows", columns=["id"])[1]["id"] == 2
        assert client.dataset("rows", output="rows")[0] == {"id": 1, "deep": [[1], [2, 3]]}


class Doubled(torch.utils.data.Dataset[dict[str, Any]]):
    """As users wrap one dataset in another."""

    def __init__(self, ds: penstock.Dataset) -> None:
        self.ds = ds

    def __len__(self) -> int:
        return len(self.ds)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.ds[index]
        return {**row, "twice": row["id"] * 2}


@pytest.mark.parametrize("start", ["none", "fork", "spawn"])
def test_a_map_style_dataset_for_a_dataloader_with_workers(client: penstock.Client, start: str) -> None:
    ds = client.dataset("rows")
    assert int(ds[0]["id"]) == 0  # the connection is open: a forked worker must not use it
    workers: dict[str, Any] = {} if start == "none" else {"num_workers": 2, "multiprocessing_context": start}
    random = torch.Generator().manual_seed(7)
    loader: Any = torch.utils.data.DataLoader(ds, batch_size=500, shuffle=True, generator=random, **workers)  # type: ignore[arg-type]
    batches = list(loader)
    assert [len(b["id"]) for b in batches] == [500] * 6
    found = torch.cat([b["id"] for b in batches])
    assert found.tolist() != list(range(3000))
    assert sorted(found.tolist()) == list(range(3000))
    assert torch.equal(torch.cat([b["x"] for b in batches]), found * 0.5)
    if start != "spawn":
        small = torch.utils.data.Subset(Doubled(ds), range(40))
        doubled = list(torch.utils.data.DataLoader(small, batch_size=20, **workers))
        assert torch.equal(doubled[1]["twice"], doubled[1]["id"] * 2)
    assert int(ds[-1]["id"]) == 2999  # the parent's connection is whole


def test_a_forked_child_reads_on_its_own(client: penstock.Client) -> None:
    ds = client.dataset("rows", output="numpy")
    assert int(ds[5]["id"]) == 5
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if ds[100:200]["id"].tolist() == list(range(100, 200)) else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert int(ds[6]["id"]) == 6
    assert pickle.loads(pickle.dumps(ds + ds))[-1]["id"] == 2999  # noqa: S301


def test_rows_larger_than_a_message_and_slices_larger_than_a_page(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    blob = np.random.default_rng(7).integers(0, 255, (12, 3 << 20), np.uint8)
    table = pa.table({"id": range(12), "blob": [row.tobytes() for row in blob]})
    pa.parquet.write_table(table, tmp_path / "big" / "a.parquet", row_group_size=4)
    many = datafiles.parquet(tmp_path / "many", 2, 150_000, row_group=50_000)
    with penstock.connect(serve(tmp_path / "big", many).target) as client:
        big = client.dataset("big", output="numpy")
        assert big[9]["blob"] == blob[9].tobytes()
        assert [hash(b) for b in big[2:11]["blob"]] == [hash(row.tobytes()) for row in blob[2:11]]
        ds = client.dataset("many", output="numpy")
        np.testing.assert_array_equal(ds[:]["id"], np.arange(300_000))
        chosen = np.random.default_rng(7).integers(0, 300_000, 40_000)
        np.testing.assert_array_equal(ds.take(chosen)["id"], chosen)


def test_an_iteration_goes_on_over_a_restart_of_the_server(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", 4, 60_000))
    with penstock.connect(server.target) as client:
        ds = client.dataset("rows", output="numpy", columns=["id"])
        assert int(ds[7]["id"]) == 7
        rows = iter(ds)
        first = [int(next(rows)["id"]) for _ in range(10)]
        server.kill()
        server.start()
        assert first + [int(row["id"]) for row in rows] == list(range(240_000))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (pb.ReadRequest(dataset="rows", range=pb.Range(count=1, step=1)), "rows are read of a version"),
        (pb.ReadRequest(dataset="@", range=pb.Range(count=1, step=1)), "neither a range nor positions"),
        (pb.ReadRequest(dataset="%", range=pb.Range(start=2999, count=2, step=1)), "no row 3000 in rows@"),
        (pb.ReadRequest(dataset="%", range=pb.Range(start=1, count=3, step=-1)), "no row -1 in rows@"),
        (pb.ReadRequest(dataset="%", range=pb.Range(start=0, count=3, step=0)), "no dataset has such"),
        (pb.ReadRequest(dataset="%", range=pb.Range(start=0, count=1 << 63, step=1)), "no dataset has such"),
        (pb.ReadRequest(dataset="%", positions=pb.Positions(at=[5, 3000])), "no row 3000 in rows@"),
        (pb.ReadRequest(dataset="%", positions=pb.Positions(at=[1 << 63])), "no dataset has so many rows"),
        (pb.ReadRequest(dataset="%", columns=["z"], positions=pb.Positions(at=[1])), "no column 'z'"),
    ],
)
def test_requests_that_no_client_of_ours_makes_are_refused(
    server: Running, client: penstock.Client, request_: pb.ReadRequest, said: str
) -> None:
    asked = pb.ReadRequest()
    asked.CopyFrom(request_)
    if asked.dataset == "@":
        asked.ClearField("range")
    if asked.dataset in "@%":
        asked.dataset = client.dataset("rows").sources[0]
    with grpc.insecure_channel(server.target) as channel:
        call = rows_pb2_grpc.RowsStub(channel).Read(asked)
        with pytest.raises(grpc.RpcError, match=said) as caught:
            list(call)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
