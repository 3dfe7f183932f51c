"""Rule 3: row transforms depend on the row alone, so it does not matter how rows are cut into chunks."""

import json
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.chunk import ChunkValue
from penstock_service.transform.chain import parse

MODULE = "tests.transform.rows_module"
STEPS: list[dict[str, Any]] = [
    {"filter": "id not in (1, 4, 17) and id * 2 != 24"},
    {"filter": "x > 0.25 or is_null(x)"},
    {"cast": {"x": "float32"}},
    {"cast": {"text": "int32"}},
    {"select": ["text", "id", "x"]},
    {"python": {"function": f"{MODULE}:double", "columns": {"twice": "int32"}}},
    {"python": f"{MODULE}:keep_even"},
    {"python": f"{MODULE}:fails_at_seven"},
]


def value(ids: list[int]) -> ChunkValue:
    """Rows that are functions of their id: every fifth has no x, every eleventh a text that is no number."""
    columns = {
        "id": pa.array(ids, pa.int64()),
        "x": pa.array([None if i % 5 == 0 else (i % 7) / 7 for i in ids], pa.float64()),
        "text": pa.array(["none" if i % 11 == 0 else str(i) for i in ids], pa.string()),
    }
    return ChunkValue(len(ids), pa.record_batch(columns))


@given(st.permutations(STEPS), st.integers(1, 4), st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_rows_come_out_alike_however_they_are_cut(steps: list[dict[str, Any]], count: int, cuts: list[int]) -> None:
    chain = parse(json.dumps(steps[:count]), (MODULE,))
    ids = list(range(sum(cuts)))
    whole = chain.apply(value(ids), lambda row: f"row {row}")
    rows: list[dict[str, Any]] = []
    errors: list[tuple[int, str]] = []
    dropped: list[int] = []
    first = 0
    for cut in cuts:
        part = chain.apply(value(ids[first : first + cut]), lambda row, first=first: f"row {first + row}")  # type: ignore[misc]
        rows += part.rows.to_pylist()
        errors += [(first + error.row, error.where) for error in part.errors]
        dropped += [first + row for row in part.dropped.tolist()]
        first += cut
    assert rows == whole.rows.to_pylist()
    assert errors == [(error.row, error.where) for error in whole.errors]
    assert dropped == whole.dropped.tolist()
