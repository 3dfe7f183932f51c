"""What is a row, what is an error, what is said about it."""

from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from penstock_service.core.errors import DataError, InvalidRequest
from penstock_service.source.format import ChunkLimits
from penstock_service.source.text.blocks import ByteRange, row_blocks
from penstock_service.source.text.jsonl import JsonDocument
from penstock_service.source.text.syntax import Head
from tests.source.files import check_manifest, errors_of, rows_of, scan_path


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_a_malformed_json_line_is_a_stored_row_that_is_an_error_and_the_others_survive(
    rows: int, tmp_path: Path
) -> None:
    lines = [f'{{"a": {i}}}' for i in range(100)]
    lines[16] = '{"a": 16'
    lines[40] = "not json"
    lines[41] = '{"a": 1}{"a": 2}'
    lines[99] = '{"a": "\x00"}'.replace("\x00", "\udcff")
    data = "\n".join(lines).encode(errors="surrogateescape")
    write(tmp_path, "a.jsonl", data[: -len(lines[99])] + b'{"a": tru}')
    scanned = scan_path(tmp_path, ChunkLimits(rows=rows))
    check_manifest(scanned.manifest, ChunkLimits(rows=rows))
    assert scanned.manifest.rows == 100
    bad = {16, 40, 41, 99}
    assert rows_of(tmp_path, scanned) == [{"a": i} for i in range(100) if i not in bad]
    errors = errors_of(tmp_path, scanned)
    assert [e.where for e in errors] == [f"a.jsonl, line {i + 1}" for i in sorted(bad)]
    assert all(e.reason for e in errors)
    assert any("4 of 100 rows of a.jsonl are malformed, first a.jsonl, line 17" in note for note in scanned.notes)


def test_blank_lines_of_jsonl_are_no_rows_and_lines_are_still_counted(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", '\n\n{"a": 1}\r\n  \n\t{"a": 2}  \n\n{"a": oops}\n\n')
    scanned = scan_path(tmp_path, ChunkLimits(rows=1))
    assert scanned.manifest.rows == 3
    assert rows_of(tmp_path, scanned) == [{"a": 1}, {"a": 2}]
    assert [(e.row, e.where) for e in errors_of(tmp_path, scanned)] == [(0, "a.jsonl, line 7")]


def test_jsonl_strings_that_are_not_utf8_are_errors(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", b'{"a": "x"}\n{"a": "\xff"}\n{"a": "y"}\n')
    scanned = scan_path(tmp_path)
    assert rows_of(tmp_path, scanned) == [{"a": "x"}, {"a": "y"}]
    (error,) = errors_of(tmp_path, scanned)
    assert (error.row, error.where) == (1, "a.jsonl, line 2")
    assert "UTF8" in error.reason


def test_a_column_that_first_appears_late_or_turns_to_float_late_is_seen(tmp_path: Path) -> None:
    lines = ['{"a": 1, "o": {"p": 1}}\n'] * 700_000
    lines[-2] = '{"a": 1.5, "o": {"q": [1]}, "late": "x"}\n'
    write(tmp_path, "a.jsonl", "".join(lines))
    scanned = scan_path(tmp_path)
    assert scanned.schema.field("a").type == pa.float64()
    assert scanned.schema.field("late").type == pa.string()
    assert scanned.schema.field("o").type == pa.struct([("p", pa.int64()), ("q", pa.list_(pa.int64()))])
    assert any("'a': int64 widened to double in a.jsonl" in note for note in scanned.notes)
    assert rows_of(tmp_path, scanned)[-2:] == [
        {"a": 1.5, "o": {"p": None, "q": [1]}, "late": "x"},
        {"a": 1.0, "o": {"p": 1, "q": None}, "late": None},
    ]


@pytest.mark.parametrize(("name", "where"), [("a.jsonl", "line 600000"), ("a.json", "byte 5399991")])
def test_a_text_where_a_number_was_names_file_line_and_column(name: str, where: str, tmp_path: Path) -> None:
    lines = ['{"a":11}\n'] * 600_002
    lines[599_999] = '{"a":"x"}\n'
    path = write(tmp_path, name, "".join(lines))
    with pytest.raises(DataError) as error:
        scan_path(tmp_path)
    assert f"{path}, " in str(error.value)
    assert where in str(error.value)
    assert "column 'a' is string here and int64 in the rows before" in str(error.value)


def test_json_strings_that_look_like_dates_stay_strings(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", '{"d": "2020-01-01", "l": ["2020-01-01T00:00:00"]}\n')
    scanned = scan_path(tmp_path)
    assert scanned.schema == pa.schema([("d", pa.string()), ("l", pa.list_(pa.string()))])
    assert rows_of(tmp_path, scanned) == [{"d": "2020-01-01", "l": ["2020-01-01T00:00:00"]}]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"a": 1}, {"a": 2}', "line 1 (byte 19): truncated: the JSON array is not closed"),
        ('[{"a": 1},\n{"a": 2', "line 2 (byte 11): truncated: this JSON object is not closed"),
        ('[{"a": 1},\n 7]', "line 2 (byte 12): a JSON object is expected here, found '7]"),
        ("7", "begins with [ or {"),
        ('{"a": 1}}', "line 1 (byte 8): a JSON object is expected here"),
    ],
)
def test_a_json_document_that_is_not_objects_is_refused_with_its_position(text: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.json", text)
    with pytest.raises(DataError) as error:
        scan_path(tmp_path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


def test_a_json_array_may_end_anywhere_in_a_block(tmp_path: Path) -> None:
    text = '[{"a": 1},\n{"a": 2}  ]\n \n'
    path = write(tmp_path, "a.json", text)
    for size in range(1, len(text) + 3):
        source = pa.OSFile(str(path))
        syntax = JsonDocument()
        head = Head(0, 0, array=True)
        cut = partial(syntax.cut, head=head, whole=True)
        with source:
            blocks = list(row_blocks(ByteRange(source), cut, "a.json", block_bytes=size))
        rows = [bytes(b.slice(i, 1).bytes()).strip() for b in blocks for i in range(b.num_rows)]
        assert rows == [b'{"a": 1}', b'{"a": 2}']


def test_a_malformed_object_in_a_json_document_is_an_error_row(tmp_path: Path) -> None:
    write(tmp_path, "a.json", '[{"a": 1}, {"a": tru}, {"a": 3}]')
    scanned = scan_path(tmp_path)
    assert rows_of(tmp_path, scanned) == [{"a": 1}, {"a": 3}]
    assert [e.where for e in errors_of(tmp_path, scanned)] == ["a.json, row 1 (counted from 0)"]


def test_csv_rows_with_the_wrong_number_of_fields_are_errors_and_lines_count_those_in_quotes(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", 'x,y\n1,"a\nb"\n\n2\n3,c,d\n4,e\n')
    scanned = scan_path(tmp_path, ChunkLimits(rows=2))
    assert rows_of(tmp_path, scanned) == [{"x": 1, "y": "a\nb"}, {"x": 4, "y": "e"}]
    errors = errors_of(tmp_path, scanned)
    assert [(e.where, e.reason) for e in errors] == [
        ("a.csv, line 5", "Expected 2 columns, got 1: 2"),
        ("a.csv, line 6", "Expected 2 columns, got 3: 3,c,d"),
    ]


def test_a_csv_column_of_numbers_and_words_is_text_and_this_is_noted(tmp_path: Path) -> None:
    body = "".join(f"{i},1\n" for i in range(1_200_000))
    write(tmp_path, "a.csv", f"ticket,n\n{body}STON 7,2.5\n")
    scanned = scan_path(tmp_path)
    assert scanned.schema == pa.schema([("ticket", pa.string()), ("n", pa.float64())])
    assert any("'ticket': int64 widened to string in a.csv" in note for note in scanned.notes)
    assert rows_of(tmp_path, scanned)[-2:] == [{"ticket": "1199999", "n": 1.0}, {"ticket": "STON 7", "n": 2.5}]


def test_a_csv_cell_that_is_not_utf8_is_an_error_row(tmp_path: Path) -> None:
    write(tmp_path, "a.csv", b"x,y\n1,caf\xe9\n2,tea\n")
    scanned = scan_path(tmp_path)
    assert scanned.schema.field("y").type == pa.string()
    assert rows_of(tmp_path, scanned) == [{"x": 2, "y": "tea"}]
    assert [e.where for e in errors_of(tmp_path, scanned)] == ["a.csv, line 2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('x,y\n1,2\n3,"abc\n4,5\n', "line 3 (byte 8): in this row a quote is opened and never closed"),
        ("x,x\n1,2\n", "the header has two columns named 'x'"),
        ('x,"y', "a quote of the header is never closed"),
    ],
)
def test_a_csv_that_cannot_be_told_apart_is_refused_with_its_position(text: str, said: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", text)
    with pytest.raises(DataError) as error:
        scan_path(tmp_path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)


def test_plain_text_gives_a_row_per_line_and_keeps_blank_ones(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", b"one\r\n\r\n\n  two\xc3\xa9\xff\nthree")
    write(tmp_path, "b.md", "\r\nx\n")
    for limit in (1, 2, 100):
        scanned = scan_path(tmp_path, ChunkLimits(rows=limit))
        assert scanned.manifest.shard_rows.tolist() == [5, 2]
        assert [r["text"] for r in rows_of(tmp_path, scanned)] == ["one", "", "", "three", "", "x"]
        assert [e.where for e in errors_of(tmp_path, scanned)] == ["a.txt, line 4"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt"])
def test_a_byte_order_mark_is_no_data(name: str, tmp_path: Path) -> None:
    body = {"a.csv": "v\nx\n", "a.jsonl": '{"v": "x"}\n', "a.json": '[{"v": "x"}]', "a.txt": "x\n"}[name]
    write(tmp_path, name, b"\xef\xbb\xbf" + body.encode())
    scanned = scan_path(tmp_path)
    assert [list(row.values()) for row in rows_of(tmp_path, scanned)] == [["x"]]


def test_a_file_of_which_no_row_can_be_read_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", "%PDF\n" * 5000)
    with pytest.raises(
        DataError, match=r"not one of its first .* rows .* a\.jsonl, line 1: not a JSON object"
    ) as error:
        scan_path(tmp_path)
    assert str(path) in str(error.value)


def test_files_without_rows_are_refused_unless_others_have_some(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "")
    write(tmp_path, "b.jsonl", "\n\n")
    with pytest.raises(InvalidRequest, match="the 2 readable files hold no rows"):
        scan_path(tmp_path)
    write(tmp_path, "c.jsonl", '{"a": 1}')
    scanned = scan_path(tmp_path)
    assert scanned.manifest.shard_rows.tolist() == [0, 0, 1]
    assert rows_of(tmp_path, scanned) == [{"a": 1}]


def test_rows_without_columns_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", "{}\n{}\n")
    with pytest.raises(DataError, match="rows, but no columns"):
        scan_path(tmp_path)
