from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.core.dataset import ReadTask
from penstock_service.core.errors import DataError
from penstock_service.source.arrow_layout import layout_of
from penstock_service.source.format import ChunkLimits
from penstock_service.source.read import read_task
from tests.source.files import check_manifest, read_all, rot, rows_of, scan_path, tasks

BIG = pa.table({"n": np.arange(100_000), "s": [f"row {i}" for i in range(100_000)]})


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.arrows"])
def test_a_big_unit_gives_several_even_chunks_in_one_reading(name: str, tmp_path: Path) -> None:
    if name == "a.parquet":
        pq.write_table(BIG, tmp_path / name, row_group_size=100_000)
    else:
        make = pa.ipc.new_file if name == "a.arrow" else pa.ipc.new_stream
        with make(tmp_path / name, BIG.schema) as writer:
            writer.write_table(BIG)
    limits = ChunkLimits(rows=1 << 20, bytes=500_000)
    scanned = scan_path(tmp_path, limits)
    check_manifest(scanned.manifest, limits)
    assert 4 <= scanned.manifest.chunks <= 7
    (task,) = tasks(str(tmp_path), scanned)
    values = [value for _, value in read_task(task)]
    assert max(v.rows.nbytes for v in values) < 700_000
    assert pa.Table.from_batches([v.rows for v in values]).equals(BIG)


def test_many_small_units_share_a_chunk(tmp_path: Path) -> None:
    for i in range(50):
        pq.write_table(BIG.slice(i * 10, 10), tmp_path / f"{i:02}.parquet", row_group_size=5)
    scanned = scan_path(tmp_path, ChunkLimits(rows=100))
    assert scanned.manifest.chunks == 5
    assert scanned.manifest.slices.num_rows == 100
    assert rows_of(tmp_path, scanned) == BIG.slice(0, 500).to_pylist()


def test_the_size_of_a_chunk_is_that_of_decoded_values(tmp_path: Path) -> None:
    table = pa.table({"s": pa.array(["x" * 1000] * 20_000)})  # a few kilobytes as stored
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(tmp_path / "b.arrow", pa.schema([("s", pa.dictionary(pa.int8(), pa.string()))])) as writer:
        writer.write_table(pa.table({"s": table["s"].dictionary_encode()}).cast(writer_schema()))
    scanned = scan_path(tmp_path, ChunkLimits(bytes=2_000_000))
    assert 20 <= scanned.manifest.chunks <= 24
    assert all(v.rows.nbytes <= 2_100_000 for v in read_all(tmp_path, scanned).values())


def writer_schema() -> pa.Schema:
    return pa.schema([("s", pa.dictionary(pa.int8(), pa.string()))])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=6), st.booleans(), st.sampled_from([None, "zstd"]))
@settings(max_examples=50, deadline=None)
def test_the_layout_of_arrow_files_and_streams_is_found_without_reading_bodies(
    sizes: list[int], stream: bool, codec: str | None
) -> None:
    sink = pa.BufferOutputStream()
    schema = pa.schema([("a", pa.int64()), ("s", pa.string())])
    options = pa.ipc.IpcWriteOptions(compression=codec)
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with make(sink, schema, options=options) as writer:
        for size in sizes:
            writer.write_batch(pa.record_batch([list(range(size)), ["x"] * size], schema=schema))
    data = sink.getvalue()
    layout = layout_of(pa.BufferReader(data), data.size, lambda _: pa.BufferReader(data))
    assert [span.rows for span in layout.batches] == sizes
    assert not layout.dictionaries


@pytest.mark.parametrize("name", ["a.arrow", "a.arrows"])
def test_dictionary_columns_are_decoded(name: str, tmp_path: Path) -> None:
    schema = writer_schema()
    make = pa.ipc.new_file if name == "a.arrow" else pa.ipc.new_stream
    dictionaries = [["a", "b"], ["a", "b"] if name == "a.arrow" else ["b", "c"]]  # a stream may replace them
    with make(tmp_path / name, schema) as writer:
        for words in dictionaries:
            array = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), pa.array(words))
            writer.write_batch(pa.record_batch([array], schema=schema))
    scanned = scan_path(tmp_path, ChunkLimits(rows=2))
    assert scanned.schema == pa.schema([("s", pa.string())])
    expected = [words[i] for words in dictionaries for i in (0, 1, 0)]
    assert [r["s"] for r in rows_of(tmp_path, scanned)] == expected


def test_tensors_and_embeddings_keep_their_types(tmp_path: Path) -> None:
    tensor = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2))
    table = pa.table({"t": tensor, "e": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.float16(), 2))})
    pq.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table)
    scanned = scan_path(tmp_path, ChunkLimits(rows=2))
    assert scanned.schema == table.schema
    read = pa.Table.from_batches([v.rows for _, v in sorted(read_all(tmp_path, scanned).items())])
    assert read.equals(pa.concat_tables([table, table]))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.feather", "a.arrows"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"not such a file" * 100, b"ARROW1\0\0", b"\xff\xff\xff\xff"])
def test_a_file_that_is_not_what_its_name_says_is_refused_by_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        scan_path(tmp_path)
    assert str(tmp_path / name) in str(error.value)


def test_a_feather_v1_file_says_how_to_convert_it(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + b"\0" * 100)
    with pytest.raises(DataError, match="Feather V1"):
        scan_path(tmp_path)


def test_a_corrupt_row_group_is_an_error_that_names_file_and_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(BIG, path, row_group_size=50_000, compression="zstd")
    group = pq.read_metadata(path).row_group(1).column(1)
    scanned = scan_path(tmp_path, ChunkLimits(rows=20_000))
    data = bytearray(path.read_bytes())
    middle = group.data_page_offset + group.total_compressed_size // 2
    data[middle : middle + 5000] = b"\x55" * 5000
    rot(path, data)
    good, bad = tasks(str(tmp_path), scanned)
    assert sum(v.rows.num_rows for _, v in read_task(good)) == 50_000
    with pytest.raises(DataError, match=r"a\.parquet, row group 1 "):
        list(read_task(bad))


def test_corrupt_offsets_in_an_arrow_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.arrows"
    with pa.ipc.new_stream(path, pa.schema([("s", pa.string())])) as writer:
        writer.write_table(pa.table({"s": ["abcdefgh"] * 100}))
    scanned = scan_path(tmp_path)
    data = bytearray(path.read_bytes())
    offsets = np.arange(0, 808, 8, dtype=np.int32).tobytes()
    at = bytes(data).find(offsets)
    data[at + 40 : at + 44] = b"\xff\xff\xff\x7f"
    rot(path, data)
    with pytest.raises(DataError, match=r"a\.arrows, record batch 0"):
        rows_of(tmp_path, scanned)


def test_a_narrower_schema_reads_only_its_columns(tmp_path: Path) -> None:
    pq.write_table(BIG.slice(0, 10), tmp_path / "a.parquet")
    scanned = scan_path(tmp_path)
    (task,) = tasks(str(tmp_path), scanned)
    narrow = ReadTask(task.root, pa.schema([("s", pa.string())]).serialize().to_pybytes(), task.chunks, task.slices)
    ((_, value),) = read_task(narrow)
    assert value.rows.schema.names == ["s"]
    assert value.rows.num_rows == 10
