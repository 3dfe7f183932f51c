from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings

from penstock_service.chunks.file import BadFile, Place, open_file, seal, write
from penstock_service.core.chunk import REASON_LENGTH, TOLD, ChunkValue, RowError
from penstock_service.core.dataset import Slice
from tests.chunks.makers import SCHEMA, value

VALUE = value((Slice("s7", "toy", "f7", 0, 0, 0, 10, 0, 0),))


def write_to(folder: Path, made: ChunkValue = VALUE, key: str = "k") -> Path:
    sealed = seal(key, made)
    place = Place(key, str(folder / "t.tmp"), str(folder / f"{key}.arrow"), sealed.size, durable=True)
    write(sealed, place)
    return Path(place.temp).replace(place.final)


def test_a_file_alone_gives_rows_and_info(tmp_path: Path) -> None:
    info, rows, size, _ = open_file(write_to(tmp_path), "k")
    assert rows.equals(VALUE.rows)
    assert rows.schema.equals(SCHEMA, check_metadata=True)
    assert info == seal("k", VALUE).info
    assert (info.stored_rows, info.rows, info.errors[0].where) == (10, 9, "s7, line 3")
    assert size == (tmp_path / "k.arrow").stat().st_size == seal("k", VALUE).size
    assert [p.name for p in tmp_path.iterdir()] == ["k.arrow"]


def test_rows_are_mapped_and_no_descriptor_stays_open(tmp_path: Path) -> None:
    path = write_to(tmp_path)
    before = pa.total_allocated_bytes()
    descriptors = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    opened = [open_file(path, "k") for _ in range(20)]
    if descriptors:
        assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert pa.total_allocated_bytes() - before < 20 * 64
    path.unlink()
    assert opened[0][1].to_pydict() == VALUE.rows.to_pydict()


def test_a_chunk_without_rows(tmp_path: Path) -> None:
    empty = ChunkValue(0, SCHEMA.empty_table().to_batches()[0] if SCHEMA.empty_table().to_batches() else _empty())
    info, rows, *_ = open_file(write_to(tmp_path, empty), "k")
    assert (info.stored_rows, rows.num_rows) == (0, 0)


def _empty() -> pa.RecordBatch:
    return pa.record_batch([pa.array([], f.type) for f in SCHEMA], schema=SCHEMA)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_torn_file_is_never_opened_as_good(tmp_path: Path, share: float) -> None:
    whole = write_to(tmp_path).read_bytes()
    torn = tmp_path / "torn.arrow"
    torn.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadFile):
        open_file(torn, "k")


@pytest.mark.parametrize("content", [b"x" * 5000, b"ARROW1\0\0" + b"\0" * 100 + b"ARROW1"])
def test_a_foreign_file_is_never_opened_as_good(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "k.arrow").write_bytes(content)
    with pytest.raises(BadFile):
        open_file(tmp_path / "k.arrow", "k")


def test_a_file_under_another_name_is_not_that_chunk(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="key k"):
        open_file(write_to(tmp_path), "other")


def test_an_arrow_file_of_somebody_else_is_no_chunk(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "k.arrow"), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(VALUE.rows)
    with pytest.raises(BadFile):
        open_file(tmp_path / "k.arrow", "k")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    sealed = seal("k", VALUE)
    with pytest.raises(OSError, match="No such file"):
        write(sealed, Place("k", str(tmp_path / "no" / "t.tmp"), str(tmp_path / "k.arrow"), sealed.size, durable=True))
    assert list(tmp_path.iterdir()) == []


def test_of_many_errors_the_first_are_told_and_of_the_others_which_rows_they_are(tmp_path: Path) -> None:
    errors = tuple(RowError(row, f"line {row}", f"{'x' * 10_000} {row}") for row in range(1, 5 * TOLD))
    made = ChunkValue(5 * TOLD + 4, _empty().slice(0), errors, np.array([0]), np.arange(5 * TOLD, 5 * TOLD + 4))
    path = write_to(tmp_path, made)
    info = open_file(path, "k").info
    assert info == seal("k", made).info
    assert len(info.errors) == TOLD
    assert info.error_rows().tolist() == list(range(1, 5 * TOLD + 4))
    assert (info.bad_rows, info.rows, info.dropped_rows().tolist()) == (5 * TOLD + 3, 0, [0])
    assert max(len(error.reason) for error in info.errors) == REASON_LENGTH
    assert path.stat().st_size < 2 * TOLD * (REASON_LENGTH + 100)  # Arrow writes a schema twice
    told, untold = info.error_of(TOLD), info.error_of(5 * TOLD + 3)
    assert told is not None
    assert untold is not None
    assert (told.where, told.reason[:3]) == (f"line {TOLD}", "xxx")
    assert untold.where == ""
    assert f"one of {5 * TOLD + 3} bad rows of the chunk; the last that is told is line {TOLD}" in untold.reason
    assert info.error_of(0) is None
