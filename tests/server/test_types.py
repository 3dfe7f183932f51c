"""Every line of docs/types.md through a real server: stored, scanned, mixed, gathered, sent, converted."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch

import penstock
from tests.client.tensors.test_types import LINES
from tests.running import Running

Output = Literal["torch", "mlx", "numpy", "arrow"]

ROWS = 60
MARK = {"penstock.dtype": "bfloat16"}
BITS = torch.arange(ROWS).bfloat16().view(torch.uint16).numpy()
SPARSE = pa.struct([("indices", pa.list_(pa.int32())), ("values", pa.list_(pa.float32()))])


def lines() -> pa.Table:
    """A column for each line of the table of types, twenty times its three rows."""
    arrays = {line.name: pa.concat_arrays([line.array] * (ROWS // 3)) for line in LINES if line.name != "empty_block"}
    return pa.table({"id": pa.array(range(ROWS)), **arrays})


def others() -> pa.Table:
    """What is marked, varying, nested or no tensor."""
    fields = {
        pa.field("id", pa.int64()): list(range(ROWS)),
        pa.field("brain", pa.uint16(), metadata=MARK): BITS.tolist(),
        pa.field("sparse", SPARSE, metadata={"penstock.sparse": "9"}): [
            {"indices": [i % 9, (i + 4) % 9], "values": [float(i), -1.0]} for i in range(ROWS)
        ],
        pa.field("list", pa.list_(pa.int16())): [list(range(i % 4)) for i in range(ROWS)],
        pa.field("place", pa.struct([("lat", pa.float32()), ("day", pa.int8())])): [
            {"lat": i / 2, "day": i % 7} for i in range(ROWS)
        ],
        pa.field("pairs", pa.map_(pa.string(), pa.int64())): [[("a", i), ("b", 2 * i)] for i in range(ROWS)],
        pa.field("word", pa.string()): [f"w{i}" for i in range(ROWS)],
        pa.field("blob", pa.binary()): [b"b%d" % i for i in range(ROWS)],
    }
    schema = pa.schema(list(fields))
    return pa.table([pa.array(values, field.type) for field, values in fields.items()], schema=schema)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("types")
    for name, table in (("lines", lines()), ("others", others())):
        (folder / name).mkdir()
        for shard in range(2):
            with pa.ipc.new_file(folder / name / f"{shard}.arrow", table.schema) as writer:
                writer.write_table(table.slice(shard * ROWS // 2, ROWS // 2), max_chunksize=10)
    (folder / "parquet").mkdir()
    pa.parquet.write_table(others(), folder / "parquet" / "a.parquet", row_group_size=20)
    (folder / "deep").mkdir()
    deep = pa.table({"id": range(ROWS), "deep": [[[1], [2, 3]]] * ROWS})
    pa.parquet.write_table(deep, folder / "deep" / "a.parquet")
    paths = tuple(str(folder / name) for name in ("lines", "others", "parquet", "deep"))
    with Running(paths, folder / "server") as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[penstock.Client]:
    with penstock.connect(server.target) as found:
        yield found


def whole(client: penstock.Client, name: str, output: Output, **options: Any) -> Any:
    """All rows as one batch, through the mixing pool, and in the order they came."""
    with client.stream(name, batch_size=ROWS, output=output, **options) as stream:
        return next(iter(stream))


def array_of(found: Any) -> Any:
    return found.numpy() if isinstance(found, torch.Tensor) else np.array(found)


@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_every_line_of_the_table_arrives_as_it_says(client: penstock.Client, output: Output) -> None:
    batch = whole(client, "lines", output)
    ids = array_of(batch.id)
    for line in LINES:
        if line.name == "empty_block":
            continue
        found = batch[line.name]
        kind = {"torch": line.torch, "mlx": line.mlx, "numpy": np.dtype(line.numpy)}[output]
        assert found.dtype == kind, line.name
        np.testing.assert_array_equal(array_of(found), np.array(line.values)[ids % 3], err_msg=line.name)


def test_arrow_hands_out_what_the_server_read(client: penstock.Client) -> None:
    batch = whole(client, "lines", "arrow", shuffle=False)
    table = lines()
    for name in table.schema.names:
        stored = table[name].combine_chunks()
        if isinstance(stored, pa.DictionaryArray):  # decoded when read
            stored = stored.dictionary_decode()
        elif pa.types.is_run_end_encoded(stored.type):
            continue
        assert batch[name].equals(stored), name


@pytest.mark.parametrize("name", ["others", "parquet"])
@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_marks_lists_structs_maps_and_strings(client: penstock.Client, name: str, output: Output) -> None:
    columns = ["id", "brain", "sparse", "list", "place", "pairs", "word", "blob"]
    batch = whole(client, name, output, columns=columns)
    ids = [int(i) for i in batch.id]
    if output == "numpy":
        assert batch.brain.tolist() == BITS[ids].tolist()
    else:
        assert batch.brain.dtype == (torch.bfloat16 if output == "torch" else mx.bfloat16)
        assert batch.brain.tolist() == [float(np.float32(i)) for i in ids]
    dense = np.zeros((ROWS, 9), np.float32)
    for row, i in enumerate(ids):
        dense[row, i % 9], dense[row, (i + 4) % 9] = i, -1
    if output == "torch":
        np.testing.assert_array_equal(batch.sparse.to_dense().numpy(), dense)
    else:
        rows = np.repeat(np.arange(ROWS), np.diff(np.array(batch.sparse_indptr)))
        np.testing.assert_array_equal(np.array(batch.sparse), dense[rows, np.array(batch.sparse_indices)])
    assert [sum(mask) for mask in batch.list_mask.tolist()] == [i % 4 for i in ids]
    assert batch["place.lat"].tolist() == [i / 2 for i in ids]
    assert batch.pairs == [[("a", i), ("b", 2 * i)] for i in ids]
    assert batch.word == [f"w{i}" for i in ids]
    assert batch.blob == [b"b%d" % i for i in ids]
    # Without names, what is no tensor stays away.
    assert not {"pairs", "word", "blob"} & set(whole(client, name, output))


@pytest.mark.parametrize("output", ["torch", "mlx", "numpy", "arrow"])
def test_layout_rows_gives_a_list_of_dicts_per_step(client: penstock.Client, output: Output) -> None:
    columns = ["id", "list", "word", "place"]
    with client.stream("others", batch_size=25, output=output, layout="rows", columns=columns) as stream:
        steps = list(stream)
    assert [len(step) for step in steps] == [25, 25, 10]
    rows = [row for step in steps for row in step]
    assert all(isinstance(step, list) for step in steps)
    assert all(isinstance(row, dict) for row in rows)
    assert sorted(int(row["id"]) for row in rows) == list(range(ROWS))
    for row in rows:
        i = int(row["id"])
        assert row["word"] == f"w{i}"
        if output == "arrow":
            assert row == {"id": i, "list": list(range(i % 4)), "word": f"w{i}", "place": {"lat": i / 2, "day": i % 7}}
        else:
            assert row["list"].tolist() == list(range(i % 4))
            assert float(row["place.lat"]) == i / 2


def test_layout_rows_says_which_rows_are_data_and_is_refused_with_a_device(client: penstock.Client) -> None:
    with client.stream("lines", batch_size=40, columns=["id"], layout="rows", last="pad") as stream:
        rows = [row for step in stream for row in step]
    assert sorted(int(row["id"]) for row in rows if row["valid"]) == list(range(ROWS))
    assert len(rows) == 80
    with client.stream("lines", batch_size=40, columns=["id"], layout="rows") as stream:
        assert sorted(int(row["id"]) for row in stream.rows()) == list(range(ROWS))
    with pytest.raises(penstock.InvalidRequest, match='layout=\'wide\': must be "columns" or "rows"'):
        client.stream("lines", batch_size=4, layout="wide")  # type: ignore[arg-type]
    with pytest.raises(penstock.InvalidRequest, match='for layout="columns"'):
        client.stream("lines", batch_size=4, layout="rows", device="cpu")


@pytest.mark.parametrize("output", ["torch", "mlx", "numpy"])
def test_what_cannot_be_converted_is_refused_when_the_stream_is_opened(client: penstock.Client, output: Output) -> None:
    stream = client.stream("deep", batch_size=4, output=output)
    with pytest.raises(penstock.ConversionError, match=r"column 'deep' .*lists of lists of varying length"):
        _ = stream.schema
    stream = client.stream("others", batch_size=4, output=output, sparse={"list": 5})
    with pytest.raises(penstock.ConversionError, match="a sparse column must be struct"):
        len(stream)


def test_a_dataset_that_is_indexed_has_the_same_types(client: penstock.Client, tmp_path: Path) -> None:
    ds = client.dataset("others")
    row, batch = ds[7], ds[3:9]
    assert (row["brain"].dtype, float(row["brain"])) == (torch.bfloat16, 7.0)
    assert row["sparse"].to_dense().tolist() == [0, 0, -1, 0, 0, 0, 0, 7, 0]
    assert row["list"].tolist() == [0, 1, 2]
    assert row["pairs"] == [("a", 7), ("b", 14)]
    assert tuple(batch.sparse.shape) == (6, 9)
    arrays = client.dataset("others", output="numpy", ragged=True)[7]
    assert (arrays["sparse_indices"].tolist(), arrays["list"].tolist()) == ([2, 7], [0, 1, 2])
    assert (ds + client.dataset("parquet"))[ROWS + 7]["brain"].dtype == torch.bfloat16


def test_files_whose_marks_differ_are_refused(server: Running, client: penstock.Client, tmp_path: Path) -> None:
    plain = others().select(["brain"])
    bare = plain.cast(pa.schema([("brain", pa.uint16())]))
    (tmp_path / "bare").mkdir()
    pa.parquet.write_table(bare, tmp_path / "bare" / "a.parquet")
    client.register("bare", str(tmp_path / "bare"))
    marked = client.dataset("others", columns=["brain"])
    with pytest.raises(penstock.InvalidRequest, match=r"'brain' \(uint16 marked penstock.dtype=bfloat16 and uint16\)"):
        marked + client.dataset("bare")
    (tmp_path / "mixed").mkdir()
    for name, table in (("a", plain), ("b", bare)):
        pa.parquet.write_table(table, tmp_path / "mixed" / f"{name}.parquet")
    with pytest.raises(penstock.DataError, match=r"brain.*bfloat16.*marked as nothing"):
        client.register("mixed", str(tmp_path / "mixed"))
