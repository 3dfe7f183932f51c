"""The schema of a file is that of its rows: where the scan happened to cut it into blocks makes no difference."""

import json
import tempfile
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.core.errors import DataError
from penstock_service.source.text import format as text_format
from tests.source.files import errors_of, scan_path

CELLS = st.sampled_from(
    [
        *("1", "-2", "0", "007", " 1", "1.5", "1e3", "99999999999999999999", "inf", "nan", "", "NA", "NULL", '""', "x"),
        *("true", "False", "2020", "2020-01-01", "2020-01-01 10:00:00", "2020-01-01T10:00:00", "2020-01-01T10:00:00Z"),
        *("2020-01-01 10:00:00.123", "2020-01-01T10:00:00.5+02:00", "12:30:00", '"1"', '"a,b\n"'),
    ]
)
VALUES = st.recursive(
    st.sampled_from([None, 1, 2**40, 1.5, "x", "2020-01-01", "2020-01-01T00:00:00", True]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=4,
)


def scan_text(name: str, text: str, block_bytes: int) -> tuple[pa.Schema | None, int]:
    """The schema, and how many rows do not fit it."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        with patch.object(text_format, "BLOCK_BYTES", block_bytes):
            try:
                scanned = scan_path(Path(folder))
            except DataError:
                return None, 0
        return scanned.schema, len(errors_of(Path(folder), scanned))


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=12), st.integers(4, 60))
@settings(max_examples=300, deadline=None)
def test_csv_types_do_not_depend_on_blocks_and_all_rows_fit_them(rows: list[tuple[str, str]], size: int) -> None:
    text = "a,b\n" + "".join(f"{a},{b}\n" for a, b in rows)
    whole = scan_text("a.csv", text, 1 << 20)
    assert scan_text("a.csv", text, size) == whole
    assert whole[1] == 0


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@given(
    st.lists(st.dictionaries(st.sampled_from("xyz"), VALUES, max_size=2), min_size=1, max_size=8), st.integers(4, 60)
)
@settings(max_examples=200, deadline=None)
def test_json_types_do_not_depend_on_blocks(name: str, rows: list[dict[str, object]], size: int) -> None:
    rows = [{"one": 1}, *rows]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    whole, small = scan_text(name, text, 1 << 20), scan_text(name, text, size)
    assert small[1] == whole[1]
    if whole[0] is None or small[0] is None:
        assert whole == small
        return
    assert {f.name: f.type for f in whole[0]} == {f.name: f.type for f in small[0]}
