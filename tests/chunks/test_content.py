import decimal
import io

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from penstock_service.chunks.content import BLOCK, content_hash


def batch(*columns: pa.Array) -> pa.RecordBatch:
    return pa.record_batch(list(columns), [f"c{n}" for n in range(len(columns))])


def written_and_read(rows: pa.RecordBatch) -> pa.RecordBatch:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return pa.ipc.open_file(sink.getvalue()).get_batch(0)


D = decimal.Decimal
COLUMNS = {
    "int": pa.array([1, None, 3, 4, None]),
    "float": pa.array([1.5, None, float("nan"), -0.0, 2.0]),
    "bool": pa.array([True, None, False, True, True]),
    "null": pa.nulls(5),
    "string": pa.array(["a", None, "", "ccc", "dd"]),
    "large": pa.array(["a", None, "", "ccc", "dd"], pa.large_string()),
    "view": pa.array(["a", None, "", "ccc", "dd"], pa.string_view()),
    "binary": pa.array([b"a", None, b"", b"ccc", b"dd"]),
    "fixed": pa.array([b"ab", None, b"cd", b"ef", b"gh"], pa.binary(2)),
    "decimal": pa.array([D("1.50"), None, D("2.25"), D("3.00"), D("4.00")], pa.decimal128(9, 2)),
    "time": pa.array([1, None, 3, 4, 5], pa.timestamp("us")),
    "list": pa.array([[1, None], None, [], [3], [4, 5]]),
    "large list": pa.array([[1, None], None, [], [3], [4, 5]], pa.large_list(pa.int16())),
    "fixed list": pa.array([[1, None], None, [5, 6], [7, 8], [9, 1]], pa.list_(pa.int32(), 2)),
    "nested": pa.array([[["a"], None], None, [[]], [["b", "c"]], []]),
    "struct": pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}, {"x": 3, "y": None}, {"x": 4, "y": "d"}]),
    "map": pa.array([[("a", 1)], None, [], [("b", 2), ("c", None)], [("d", 4)]], pa.map_(pa.string(), pa.int8())),
    "dictionary": pa.array(["a", None, "a", "b", "b"]).dictionary_encode(),
}


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize(("first", "rows"), [(0, 5), (1, 3), (2, 3), (1, 1), (3, 0)])
def test_a_slice_hashes_as_its_copy_and_as_what_is_read_from_its_file(name: str, first: int, rows: int) -> None:
    whole = batch(COLUMNS[name], pa.array(range(5)))
    part = whole.slice(first, rows)
    copy = pa.RecordBatch.from_arrays([pa.array(c.to_pylist(), c.type) for c in part.columns], schema=part.schema)
    assert content_hash(part) == content_hash(copy) == content_hash(written_and_read(part))


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "null"])
def test_another_order_of_rows_is_another_content(name: str) -> None:
    column = COLUMNS[name]
    rows = batch(column)
    for order in ([0, 1, 4, 3, 2], [1, 0, 2, 3, 4]):
        moved = pa.array([column[n].as_py() for n in order], column.type)
        assert content_hash(rows) != content_hash(batch(moved))
    assert content_hash(rows) != content_hash(rows.slice(0, 4))


def test_what_lies_under_a_null_does_not_count() -> None:
    valid = pa.py_buffer(np.packbits([1, 0, 1], bitorder="little").tobytes())
    a, b = (pa.Array.from_buffers(pa.int64(), 3, [valid, pa.py_buffer(np.array([1, x, 3]).tobytes())]) for x in (7, 8))
    assert a.equals(b)
    assert content_hash(batch(a)) == content_hash(batch(b))


def test_a_validity_bitmap_without_nulls_does_not_count() -> None:
    bare = pa.array([1, 2, 3])
    full = pa.Array.from_buffers(pa.int64(), 3, [pa.py_buffer(b"\xff"), bare.buffers()[1]])
    assert content_hash(batch(bare)) == content_hash(batch(full))


def test_names_and_types_count() -> None:
    column = pa.array([1, 2, 3], pa.int64())
    hashes = {
        content_hash(pa.record_batch([column], ["a"])),
        content_hash(pa.record_batch([column], ["b"])),
        content_hash(pa.record_batch([column.cast(pa.uint64())], ["a"])),
        content_hash(pa.record_batch([column, column], ["a", "b"])),
    }
    assert len(hashes) == 4


def test_the_boundaries_of_lists_and_strings_count() -> None:
    assert content_hash(batch(pa.array([[1, 2], [3]]))) != content_hash(batch(pa.array([[1], [2, 3]])))
    assert content_hash(batch(pa.array(["ab", "c"]))) != content_hash(batch(pa.array(["a", "bc"])))


def test_the_hash_is_pinned() -> None:
    """Remembered in files: if this changes, FORMAT of `file.py` must be raised."""
    rows = batch(pa.array(np.arange(3 * BLOCK + 5)), pa.array([f"row {n}" for n in range(3 * BLOCK + 5)]))
    assert content_hash(rows) == "0a034eafd7210755d0289e8421d90343"


@given(st.integers(0, 2 * BLOCK + 2), st.integers(0, 63), st.integers(0, 63))
def test_a_bit_changed_anywhere_is_seen_and_two_as_well(at: int, bit: int, other: int) -> None:
    values = np.arange(2 * BLOCK + 3, dtype=np.uint64)
    before = content_hash(batch(pa.array(values)))
    values[at] ^= np.uint64(1 << bit)
    once = content_hash(batch(pa.array(values)))
    values[(at + 1) % len(values)] ^= np.uint64(1 << other)
    twice = content_hash(batch(pa.array(values)))
    assert len({before, once, twice}) == 3
