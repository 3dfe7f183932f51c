"""One law over all formats: what was written is what is read, however it is cut."""

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from penstock_service.core.errors import DataError
from penstock_service.source.format import ChunkLimits
from penstock_service.source.read import read_task
from tests.source.files import SUFFIXES, WRITERS, check_manifest, read_all, rows_of, scan_path, tasks

# CSV knows no difference between null and an empty string, and no white space but its own is special anywhere
TEXT = st.text(st.sampled_from("ab ,;\t\"\n\r'\\{}[]:0é\N{GRINNING FACE}"), min_size=1, max_size=12).map(
    lambda s: "t" + s
)
ROWS = st.lists(
    st.tuples(st.integers(-(2**53), 2**53), TEXT, st.floats(allow_nan=False, allow_infinity=False), st.booleans()),
    min_size=1,
    max_size=40,
)
LIMIT = st.builds(ChunkLimits, rows=st.integers(1, 50), bytes=st.integers(1, 3000))
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def table_of(rows: list[tuple[int, str, float, bool]]) -> pa.Table:
    # a float that JSON and CSV write with a point or exponent: otherwise it would be an integer to them
    floats = [value + 0.5 if value.is_integer() and abs(value) < 2**50 else value for _, _, value, _ in rows]
    floats[0] = 0.25
    columns = [[r[0] for r in rows], [r[1] for r in rows], floats, [r[3] for r in rows]]
    return pa.table([pa.array(c) for c in columns], names=["n", "text", "x", "b"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(rows=ROWS, limits=LIMIT)
@example(rows=[(1, 't"a"\r\n""', 0.5, True)] * 3, limits=ChunkLimits(rows=1))
@QUICK
def test_what_was_written_is_read_in_order_however_it_is_cut(
    suffix: str, rows: list[tuple[int, str, float, bool]], limits: ChunkLimits
) -> None:
    table = table_of(rows)
    with tempfile.TemporaryDirectory() as folder:
        WRITERS[suffix](table, Path(folder) / f"a{suffix}")
        scanned = scan_path(Path(folder), limits)
        check_manifest(scanned.manifest, limits)
        assert scanned.schema == table.schema
        assert rows_of(Path(folder), scanned) == table.to_pylist()


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(rows=ROWS, limits=LIMIT, data=st.data())
@QUICK
def test_any_subset_of_chunks_is_read_as_in_the_whole(
    suffix: str, rows: list[tuple[int, str, float, bool]], limits: ChunkLimits, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("a", "b"):
            WRITERS[suffix](table_of(rows), Path(folder) / f"{name}{suffix}")
        scanned = scan_path(Path(folder), limits)
        whole = read_all(Path(folder), scanned)
        subset = data.draw(st.sets(st.integers(0, scanned.manifest.chunks - 1)))
        read = {c: v for task in tasks(folder, scanned, subset) for c, v in read_task(task)}
        assert set(read) == subset
        for chunk, value in read.items():
            assert value.rows.equals(whole[chunk].rows)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_chunk_is_one_contiguous_batch_in_the_column_order_of_the_schema(suffix: str, tmp_path: Path) -> None:
    table = table_of([(i, f"t{i}", i / 3, i % 2 == 0) for i in range(1000)])
    WRITERS[suffix](table, tmp_path / f"a{suffix}")
    WRITERS[suffix](table.select(["b", "x", "text", "n"]), tmp_path / f"b{suffix}")
    scanned = scan_path(tmp_path, ChunkLimits(rows=300))
    assert scanned.schema.names == ["n", "text", "x", "b"]
    values = read_all(tmp_path, scanned)
    assert all(isinstance(v.rows, pa.RecordBatch) and v.rows.schema == scanned.schema for v in values.values())
    assert rows_of(tmp_path, scanned) == table.to_pylist() * 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nulls_come_back_as_nulls(suffix: str, tmp_path: Path) -> None:
    table = pa.table({"n": [None, 1, None, 2], "x": [0.5, None, 2.5, None]})
    WRITERS[suffix](table, tmp_path / f"a{suffix}")
    scanned = scan_path(tmp_path, ChunkLimits(rows=1))
    assert rows_of(tmp_path, scanned) == table.to_pylist()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_refused_or_its_cut_row_is_an_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    WRITERS[suffix](table_of([(i, f"t{i}", i / 3, True) for i in range(1000)]), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    try:
        scanned = scan_path(tmp_path)
    except DataError as error:
        said = str(error)
    else:
        assert suffix in (".jsonl", ".csv", ".tsv")
        assert sum(len(v.errors) for v in read_all(tmp_path, scanned).values()) <= 1
        return
    assert str(path) in said
    assert "truncated" in said or "footer" in said
