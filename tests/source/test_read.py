import multiprocessing
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import ReadTask
from penstock_service.core.errors import DataError, SourceChanged, SourceUnreadable
from penstock_service.source.format import ChunkLimits
from penstock_service.source.place import storage_errors
from penstock_service.source.read import read_task
from tests.source.files import SUFFIXES, WRITERS, rows_of, scan_path, tasks

TABLE = pa.table({"n": list(range(1000)), "s": [f"x{i}" for i in range(1000)]})


def read_list(task: ReadTask) -> list[tuple[int, ChunkValue]]:
    return list(read_task(task))


def test_a_task_can_be_read_in_another_process(tmp_path: Path) -> None:
    WRITERS[".jsonl"](TABLE, tmp_path / "a.jsonl")
    scanned = scan_path(tmp_path, ChunkLimits(rows=400))
    made = tasks(str(tmp_path), scanned)
    assert pickle.loads(pickle.dumps(made)) == made  # noqa: S301  our own bytes
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        read = [pair for pairs in pool.map(read_list, made) for pair in pairs]
    assert [chunk for chunk, _ in read] == [0, 1, 2]
    assert pa.Table.from_batches([value.rows for _, value in read]).equals(TABLE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_gone_or_has_another_size_is_refused_by_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](TABLE, path)
    scanned = scan_path(tmp_path)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"\n")
    with pytest.raises(SourceChanged) as error:
        rows_of(tmp_path, scanned)
    assert str(error.value).startswith(f"{path} has {size + 1} bytes now and had {size}")
    path.unlink()
    with pytest.raises(SourceChanged, match="is gone"):
        rows_of(tmp_path, scanned)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".csv", ".json"])
def test_a_file_of_the_same_size_with_fewer_rows_is_an_error_and_never_hangs(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](TABLE, path)
    scanned = scan_path(tmp_path)
    size = path.stat().st_size
    path.write_bytes((b"x" * size) if suffix.endswith(".gz") else b"{" + b" " * (size - 1))
    with pytest.raises(DataError, match=f"a{suffix}"):
        rows_of(tmp_path, scanned)


def test_what_the_operating_system_refuses_is_unreadable_and_what_bytes_say_is_a_data_error() -> None:
    with pytest.raises(SourceUnreadable, match=r"/d/a\.csv could not be read \(EIO: "), storage_errors("/d/a.csv"):
        raise OSError(5, "Input/output error")
    with pytest.raises(SourceUnreadable, match="permissions"), storage_errors("/d/a.csv"):
        raise PermissionError(13, "no")
    with pytest.raises(DataError, match="corrupt or truncated: zlib inflate failed"), storage_errors("/d/a.csv"):
        raise OSError("zlib inflate failed")
    assert SourceUnreadable.retryable
    assert not DataError.retryable


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz", ".csv.zst"])
def test_a_big_unit_is_read_in_bounded_memory(suffix: str, tmp_path: Path) -> None:
    rows = 400_000
    table = pa.table({"n": list(range(rows)), "s": ["some text that repeats " * 4] * rows})
    if suffix == ".parquet":
        pa.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=rows)
    else:
        WRITERS[suffix](table, tmp_path / f"a{suffix}")
    scanned = scan_path(tmp_path, ChunkLimits(bytes=1 << 20))
    (task,) = tasks(str(tmp_path), scanned)
    assert len(task.chunks) > 30
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    worst = 0
    tracemalloc.start()
    for _, value in read_task(task):
        del value
        worst = max(worst, pool.bytes_allocated() - before + tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert worst < 30 << 20  # all rows are 40 MB as decoded, and 50 MB or more as text
