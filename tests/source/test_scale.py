"""What issue 3 says of sizes, at those sizes: a row 3,000,000, ten million rows, a hundred thousand shards."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, Manifest
from penstock_service.core.errors import DataError
from penstock_service.source.manifest import load_manifest, save_splits
from penstock_service.source.read import read_task
from penstock_service.source.scan import ScannedSplit
from tests.source.files import check_manifest, read_all, scan_path, tasks

LATE = 3_000_000


def late(path: Path, row: str) -> None:
    """Rows {"x": 1}, of which number LATE (from 0) is `row`."""
    block = b'{"x": 1}\n' * 1000
    with path.open("wb") as file:
        for _ in range(LATE // 1000):
            file.write(block)
        file.write(row.encode() + b"\n" + block)


def test_a_column_that_turns_to_float_or_appears_in_row_3_000_000_is_a_declared_widening(tmp_path: Path) -> None:
    late(tmp_path / "a.jsonl", '{"x": 0.5, "new": "here"}')
    scanned = scan_path(tmp_path)
    assert scanned.schema == pa.schema([("x", pa.float64()), ("new", pa.string())])
    (note,) = (n for n in scanned.notes if "'x'" in n)
    assert note.startswith("column 'x': int64 widened to double in a.jsonl, rows ")
    first, last = (int(n) for n in re.findall(r"rows (\d+) to (\d+)", note)[0])
    assert first <= LATE < last
    assert scanned.manifest.rows == LATE + 1001
    chunk = int(np.searchsorted(scanned.manifest.chunk_start, LATE, side="right")) - 1
    (task,) = tasks(str(tmp_path), scanned, [chunk])
    ((_, value),) = read_task(task)
    row = LATE - int(scanned.manifest.chunk_start[chunk])
    assert value.rows.slice(row, 1).to_pylist() == [{"x": 0.5, "new": "here"}]
    assert not value.errors


def test_a_column_that_turns_to_text_in_row_3_000_000_is_an_error_with_file_line_and_column(tmp_path: Path) -> None:
    late(tmp_path / "a.jsonl", '{"x": "one"}')
    with pytest.raises(
        DataError, match=r"a\.jsonl, line 3000001: column 'x' is string here and int64 in the rows before"
    ):
        scan_path(tmp_path)


def test_files_of_one_row_and_of_ten_million_are_one_dataset(tmp_path: Path) -> None:
    many = 10_000_000
    pq.write_table(pa.table({"n": np.arange(many)}), tmp_path / "a.parquet", row_group_size=many, use_dictionary=False)
    pq.write_table(pa.table({"n": np.array([-1])}), tmp_path / "b.parquet")
    scanned = scan_path(tmp_path)
    check_manifest(scanned.manifest)
    assert scanned.manifest.shard_rows.tolist() == [many, 1]
    big, small = tasks(str(tmp_path), scanned)
    assert len(big.chunks) >= 10  # one row group, read once
    assert [len(task.chunks) for task in (big, small)] == [scanned.manifest.chunks - 1, 1]
    at = 0
    for _, value in read_task(big):
        numbers = value.rows.column(0).to_numpy()
        assert (numbers[0], numbers[-1]) == (at, at + len(numbers) - 1)
        at += len(numbers)
    assert at == many
    assert read_all(tmp_path, scanned)[small.chunks[0]].rows.to_pylist() == [{"n": -1}]


def test_a_manifest_of_a_million_shards_is_mapped_not_read(tmp_path: Path) -> None:
    count = 1_000_000
    numbers = np.arange(count)
    ones, zeros = np.ones(count, np.int64), np.zeros(count, np.int64)
    names = pa.array(np.char.add("part-", numbers.astype("U7")))
    shards = pa.table([names, pa.repeat("csv", count), ones, zeros, ones, names], schema=SHARDS_SCHEMA)
    slices = pa.table([numbers, zeros, zeros, ones, zeros, ones, ones, numbers // 1000], schema=SLICES_SCHEMA)
    split = ScannedSplit("train", pa.schema([("x", pa.int64())]), Manifest(shards, slices), ())
    save_splits([split], {}, tmp_path / "m")
    before = pa.total_allocated_bytes()
    loaded = load_manifest(tmp_path / "m", "train")
    assert pa.total_allocated_bytes() - before < 1 << 20
    assert (loaded.rows, loaded.chunks) == (count, 1000)
    assert loaded.locate(999_999) == ("part-999999", 0)
