from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import DataError
from penstock_service.source.schemas import ConflictError, join_types, plain_schema
from tests.source.files import errors_of, rows_of, scan_path

KINDS = [
    *(pa.null(), pa.int8(), pa.int32(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()),
    *(pa.bool_(), pa.string(), pa.binary(), pa.date32(), pa.timestamp("s"), pa.timestamp("ns"), pa.decimal128(5, 2)),
    *(pa.list_(pa.int32()), pa.list_(pa.null()), pa.struct([("a", pa.int8())]), pa.list_(pa.float32(), 2)),
]


@given(st.sampled_from(KINDS), st.sampled_from(KINDS))
def test_joining_types_is_symmetric_and_idempotent(a: pa.DataType, b: pa.DataType) -> None:
    try:
        joined = join_types(a, b, "x", False)
    except ConflictError:
        with pytest.raises(ConflictError) as caught:
            join_types(b, a, "x", False)
        assert (caught.value.expected, caught.value.found) == (str(b), str(a))
    else:
        assert join_types(b, a, "x", False) == joined
        assert join_types(joined, a, "x", False) == joined
        assert join_types(joined, b, "x", False) == joined


@pytest.mark.parametrize(
    ("a", "b", "joined"),
    [
        (pa.int8(), pa.int32(), pa.int32()),
        (pa.uint8(), pa.int8(), pa.int16()),
        (pa.int64(), pa.float32(), pa.float64()),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.decimal128(5, 2), pa.decimal128(4, 0), pa.decimal128(6, 2)),
        (pa.list_(pa.int32()), pa.list_(pa.float64()), pa.list_(pa.float64())),
        (pa.null(), pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int8())])),
    ],
)
def test_widening_is_to_the_narrowest_type_that_holds_both(a: pa.DataType, b: pa.DataType, joined: pa.DataType) -> None:
    assert join_types(a, b, "x", False) == joined


def test_plain_types_decode_dictionaries_and_need_no_large_offsets() -> None:
    schema = pa.schema(
        [
            ("d", pa.dictionary(pa.int8(), pa.large_string())),
            ("l", pa.large_list(pa.string_view())),
            pa.field("s", pa.struct([pa.field("x", pa.large_binary(), nullable=False)]), nullable=False),
        ],
        metadata={"pandas": "{}"},
    )
    assert plain_schema(schema) == pa.schema(
        [("d", pa.string()), ("l", pa.list_(pa.string())), ("s", pa.struct([("x", pa.binary())]))]
    )
    assert plain_schema(schema).metadata is None


def test_shards_that_disagree_are_refused_with_both_files_and_the_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1], "y": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"x": [1], "y": ["p"]}), tmp_path / "c.parquet")
    with pytest.raises(DataError) as error:
        scan_path(tmp_path)
    assert "column 'y': int64 in a.parquet (expected), string in c.parquet (found)" in str(error.value)


def test_a_shard_that_lacks_a_column_is_refused_either_way_round(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"'y': no such column in a.parquet \(expected\), int64 in b.parquet \(found\)"):
        scan_path(tmp_path)
    (tmp_path / "b.parquet").rename(tmp_path / "B.parquet")
    with pytest.raises(DataError, match=r"'y': int64 in B.parquet \(expected\), no such column in a.parquet \(found\)"):
        scan_path(tmp_path)


def test_json_shards_may_lack_columns_and_csv_shards_may_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"x": 2, "y": "z"}\n')
    scanned = scan_path(tmp_path)
    assert rows_of(tmp_path, scanned) == [{"x": 1, "y": None}, {"x": 2, "y": "z"}]
    (tmp_path / "c.csv").write_text("x\n3\n")
    with pytest.raises(DataError, match=r"'y': string in b.jsonl \(expected\), no such column in c.csv \(found\)"):
        scan_path(tmp_path)


def test_shards_are_widened_and_a_value_that_would_be_changed_by_it_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([1, 2**53 + 1, 3])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": pa.array([0.5], pa.float32())}), tmp_path / "b.parquet")
    (tmp_path / "c.jsonl").write_text('{"x": null}\n')
    scanned = scan_path(tmp_path)
    assert scanned.schema.field("x").type == pa.float64()
    assert any("'x': int64 widened to double by b.parquet" in note for note in scanned.notes)
    assert rows_of(tmp_path, scanned) == [{"x": 1.0}, {"x": 3.0}, {"x": 0.5}, {"x": None}]
    (error,) = errors_of(tmp_path, scanned)
    assert (error.row, error.where) == (1, "a.parquet, row 1 (counted from 0)")
    assert "column 'x' does not fit double" in error.reason


def test_csv_shards_with_words_in_a_number_column_say_where_the_words_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n2\n")
    (tmp_path / "b.csv").write_text("x\n1\n?\n")
    with pytest.raises(DataError, match=r"'x': int64 in a.csv \(expected\), string in b.csv \(found\)"):
        scan_path(tmp_path)
