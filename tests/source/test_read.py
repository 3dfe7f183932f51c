import multiprocessing
import os
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import ReadTask
from penstock_service.core.errors import DataError, SourceChanged, SourceUnreadable
from penstock_service.source.format import ChunkLimits
from penstock_service.source.place import Expected, LocalPlace, storage_errors
from penstock_service.source.read import read_task
from tests.source.files import SUFFIXES, WRITERS, rot, rows_of, scan_path, tasks

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
    rot(path, (b"x" * size) if suffix.endswith(".gz") else b"{" + b" " * (size - 1))
    with pytest.raises(DataError, match=f"a{suffix}"):
        rows_of(tmp_path, scanned)


CHANGED = pa.table({"n": list(range(999, -1, -1)), "s": [f"y{i}" for i in range(1000)]})  # the same sizes


def rewrite(path: Path, table: pa.Table) -> None:
    """At another time than before, in the same number of bytes."""
    before = path.stat()
    _write_plain(path, table)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))


def _write_plain(path: Path, table: pa.Table) -> None:
    if path.suffix == ".parquet":
        pa.parquet.write_table(
            table, path, row_group_size=250, compression="none", use_dictionary=False, write_statistics=False
        )
    else:
        WRITERS[path.suffix](table, path)


PLAIN = [".parquet", ".arrow", ".jsonl", ".csv"]


@pytest.mark.parametrize("suffix", PLAIN)
def test_a_file_of_the_same_size_with_other_rows_is_refused_and_one_that_was_touched_is_read(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    _write_plain(path, TABLE)
    scanned = scan_path(tmp_path)
    rewrite(path, TABLE)
    assert rows_of(tmp_path, scanned) == TABLE.to_pylist()
    rewrite(path, CHANGED)
    with pytest.raises(SourceChanged, match=rf"a{suffix} holds something else .*the size is the same"):
        rows_of(tmp_path, scanned)
    rewrite(path, TABLE)
    assert rows_of(tmp_path, scanned) == TABLE.to_pylist()


@pytest.mark.parametrize("suffix", PLAIN)
def test_a_file_that_is_written_anew_while_it_is_read_gives_nothing_from_there_on(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    _write_plain(path, TABLE)
    scanned = scan_path(tmp_path, ChunkLimits(rows=250, bytes=1 << 20))
    values = read_task(together(tasks(str(tmp_path), scanned)))
    first = next(values)[1].rows.to_pylist()
    assert first == TABLE.slice(0, len(first)).to_pylist()
    rewrite(path, CHANGED)
    with pytest.raises(SourceChanged, match="holds something else"):
        next(values)


def together(made: list[ReadTask]) -> ReadTask:
    """All chunks in one task."""
    chunks = tuple(chunk for task in made for chunk in task.chunks)
    return replace(made[0], chunks=chunks, slices=tuple(slices for task in made for slices in task.slices))


def test_tiny_files_that_are_read_together_are_looked_at_after_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(20):
        (tmp_path / f"{i:02}.csv").write_text(f"x\n{i % 10}\n")
    scanned = scan_path(tmp_path)
    (task,) = tasks(str(tmp_path), scanned)
    path, opened = tmp_path / "13.csv", LocalPlace.open

    def open_late(place: LocalPlace, name: str, expected: Expected = ()) -> pa.NativeFile:
        if name == "07.csv":  # after the first look at all of them
            path.write_text("x\n4\n")
            os.utime(path, ns=(0, 0))
        return opened(place, name, expected)

    assert len(list(read_task(task))) == 1
    monkeypatch.setattr(LocalPlace, "open", open_late)
    with pytest.raises(SourceChanged, match=r"13\.csv holds something else"):
        list(read_task(task))


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
