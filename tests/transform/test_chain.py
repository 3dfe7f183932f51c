import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.chunk import REASON_LENGTH, TOLD, ChunkInfo, ChunkValue, RowError, pack_rows
from penstock_service.core.errors import InvalidRequest
from penstock_service.transform.chain import Chain, parse

MODULE = "tests.transform.rows_module"


def chain(*steps: dict[str, Any]) -> Chain:
    return parse(json.dumps(list(steps)), (MODULE,))


def value(rows: int, errors: tuple[int, ...] = ()) -> ChunkValue:
    ids = [i for i in range(rows) if i not in errors]
    batch = pa.record_batch({"id": pa.array(ids, pa.int64()), "text": [str(i) for i in ids]})
    return ChunkValue(rows, batch, tuple(RowError(e, f"row {e}", "bad") for e in errors))


def where(row: int) -> str:
    return f"file, row {row}"


def test_rows_keep_their_identity_through_filters_and_failures() -> None:
    done = chain({"filter": "id != 3"}, {"python": f"{MODULE}:fails_at_seven"}, {"filter": "id < 9"}).apply(
        value(12, errors=(5,)), where
    )
    assert done.rows["id"].to_pylist() == [0, 1, 2, 4, 6, 8] == done.stored().tolist()
    assert done.dropped.tolist() == [3, 9, 10, 11]
    assert [(e.row, e.where) for e in done.errors] == [(5, "row 5"), (7, "file, row 7")]
    assert "seven" in done.errors[1].reason


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_what_is_remembered_tells_the_rows_that_are_absent(kept: list[bool], bad: set[int]) -> None:
    rows = len(kept)
    errors = tuple(sorted(e for e in bad if e < rows))
    dropped = np.array([i for i, k in enumerate(kept) if not k and i not in errors], np.int64)
    info = ChunkInfo(rows, tuple(RowError(e, "", "") for e in errors), 0, "", pack_rows(dropped, rows))
    assert info.dropped_rows().tolist() == dropped.tolist()
    assert info.absent_rows().tolist() == sorted([*errors, *dropped.tolist()])
    assert info.rows == rows - len(errors) - len(dropped)


def test_select_renames_and_orders_and_cast_changes_types() -> None:
    steps = chain({"select": {"label": "text", "id": "id"}}, {"cast": {"label": "int32", "id": "float32"}})
    schema = steps.schema(value(3).rows.schema)
    done = steps.apply(value(3), where)
    assert done.rows.schema == schema == pa.schema([("label", pa.int32()), ("id", pa.float32())])
    assert done.rows["label"].to_pylist() == [0, 1, 2]
    assert not steps.may_drop
    assert not steps.runs_python


def test_a_value_that_does_not_fit_its_type_fails_its_row_alone() -> None:
    batch = pa.record_batch({"text": ["1", "x", "3"]})
    done = chain({"cast": {"text": "int64"}}).apply(ChunkValue(3, batch), where)
    assert done.rows["text"].to_pylist() == [1, 3]
    assert [(e.row, e.where) for e in done.errors] == [(1, "file, row 1")]
    assert "'x'" in done.errors[0].reason


def test_of_two_casts_the_first_that_fails_says_why_and_every_row_is_found() -> None:
    batch = pa.record_batch({"a": [str(i) if i % 5 else "p" for i in range(40)], "b": ["7", "q", "7", "q"] * 10})
    done = chain({"cast": {"a": "int8", "b": "int8"}}).apply(ChunkValue(40, batch), where)
    assert [e.row for e in done.errors] == [i for i in range(40) if i % 5 == 0 or i % 2]
    assert all(f"'{'q' if e.row % 5 else 'p'}'" in e.reason for e in done.errors)
    assert done.rows["a"].to_pylist() == done.stored().tolist()


@pytest.mark.parametrize(
    "step",
    [
        {"cast": {"text": "int64"}},
        {"filter": "id / zero > 1"},
        {"python": f"{MODULE}:raises_at_length"},
        {"python": f"{MODULE}:raises_the_unshown"},
    ],
)
def test_where_no_row_can_be_done_all_are_errors_and_the_first_have_a_text(step: dict[str, Any]) -> None:
    rows = 4 * TOLD
    text = pa.array(["x" * 5000] * rows)
    batch = pa.record_batch({"id": pa.array(range(rows), pa.int64()), "zero": pa.array([0] * rows), "text": text})
    asked: list[int] = []

    def told(row: int) -> str:
        asked.append(row)
        return where(row)

    done = chain(step, {"filter": "id >= 0"}).apply(ChunkValue(rows, batch), told)
    assert [e.row for e in done.errors] == asked == list(range(TOLD))
    assert done.more.tolist() == list(range(TOLD, rows))
    assert (done.rows.num_rows, done.stored().tolist(), done.dropped.tolist()) == (0, [], [])
    assert all(5 < len(e.reason) <= REASON_LENGTH for e in done.errors)


def test_a_row_that_a_filter_cannot_be_computed_for_fails_alone() -> None:
    batch = pa.record_batch({"x": [6, 6, 6, 1, 2**62], "y": [2, 0, 1, 2, 1]})
    done = chain({"filter": "x / y > 1"}, {"filter": "x * 4 > 1"}).apply(ChunkValue(5, batch), where)
    assert done.stored().tolist() == [0, 2]
    assert done.dropped.tolist() == [3]
    assert [(e.row, e.reason) for e in done.errors] == [
        (1, "filter 'x / y > 1': divide by zero"),
        (4, "filter 'x * 4 > 1': overflow"),
    ]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        ("fails_at_sevn", f"row transform 1: python: module '{MODULE}' has no function 'fails_at_sevn'; did you mean"),
        ("NO_FUNCTION", "has no function 'NO_FUNCTION': its NO_FUNCTION is of type int"),
    ],
)
def test_a_function_that_is_not_there_is_the_requests_fault_and_no_rows(function: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        chain({"select": ["id"]}, {"python": f"{MODULE}:{function}"}).apply(value(3), where)


@pytest.mark.parametrize("code", ["import no_such_thing", "1 / 0", "raise SystemExit(3)", "def f(:"])
def test_a_module_that_cannot_be_imported_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    (tmp_path / "broken_rows.py").write_text(f"{code}\n\n\ndef f(batch):\n    return batch\n")
    monkeypatch.syspath_prepend(tmp_path)
    steps = parse('[{"python": "broken_rows:f"}]', ("broken_rows",))
    with pytest.raises(InvalidRequest, match="row transform 0: python: module 'broken_rows' cannot be imported"):
        steps.apply(value(3), where)


NUMBERS = st.one_of(
    st.tuples(
        st.sampled_from(["int8", "int64", "uint8", "uint64", "float32", "string"]),
        st.just(pa.float64()),
        st.lists(st.none() | st.floats() | st.integers(-300, 300).map(float) | st.integers(-(2**65), 2**65).map(float)),
    ),
    st.tuples(
        st.sampled_from(["int8", "int16", "int32", "uint8", "uint16", "uint64", "float32", "bool", "string"]),
        st.just(pa.int64()),
        st.lists(st.none() | st.integers(-300, 300) | st.integers(-(2**63), 2**63 - 1)),
    ),
    st.tuples(
        st.sampled_from(["int8", "int64", "uint8", "float64"]),
        st.just(pa.uint64()),
        st.lists(st.none() | st.integers(0, 300) | st.integers(0, 2**64 - 1)),
    ),
)


@given(NUMBERS)
def test_which_values_do_not_fit_is_what_a_cast_of_each_alone_says(drawn: tuple[str, pa.DataType, list[Any]]) -> None:
    kind, given_type, values = drawn
    column = pa.array(values, given_type)
    wanted = {}
    for row in range(len(column)):
        try:
            column.slice(row, 1).cast(kind)
        except pa.ArrowInvalid as error:
            wanted[row] = f"cast: {str(error).splitlines()[0]}"
    batch = pa.record_batch({"v": column})
    done = chain({"cast": {"v": kind}}).apply(ChunkValue(batch.num_rows, batch), where)
    assert {e.row: e.reason for e in done.errors} == wanted


def test_python_functions_add_columns_and_leave_rows_out() -> None:
    steps = chain(
        {"python": f"{MODULE}:keep_even"}, {"python": {"function": f"{MODULE}:double", "columns": {"twice": "int32"}}}
    )
    done = steps.apply(value(6), where)
    assert done.rows["twice"].to_pylist() == [0, 4, 8]
    assert done.dropped.tolist() == [1, 3, 5]
    assert steps.runs_python


def test_a_python_function_that_breaks_its_promise_fails_every_row_with_the_reason() -> None:
    done = chain({"python": f"{MODULE}:too_many"}).apply(value(4), where)
    assert done.rows.num_rows == 0
    assert "returned 2 rows instead of 1" in done.errors[0].reason


def test_the_fingerprint_knows_arguments_order_source_and_semantics() -> None:
    chains = [
        chain(),
        chain({"filter": "id > 1"}),
        chain({"filter": "id > 2"}),
        chain({"select": ["id"]}, {"filter": "id > 1"}),
        chain({"filter": "id > 1"}, {"select": ["id"]}),
        chain({"python": f"{MODULE}:keep_even"}),
        chain({"python": {"function": f"{MODULE}:keep_even", "semantics": 2}}),
    ]
    assert len({c.fingerprint for c in chains}) == len(chains)
    assert chain({"filter": "id > 1"}).fingerprint == chains[1].fingerprint == "1a627c823efe16e7"


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([{"fliter": "x"}], "no transform 'fliter'; did you mean 'filter'"),
        ([{"filter": 3}], "is no condition; write one as a string"),
        ([{"filter": "id >"}], "row transform 0: filter"),
        ([{"select": "id"}], "neither a list of columns"),
        ([{"cast": ["id"]}], "no mapping of columns to types"),
        ([{"filter": "id > 1", "select": ["id"]}], "is not of the form"),
        ([{"select": ["id"]}, {"python": "os:system"}], "row transform 1: python: module 'os' is not allowed"),
        ([{"python": "nonsense"}], "not of the form module:function"),
        ([{"python": {"function": f"{MODULE}:double", "colums": {}}}], "did you mean 'columns'"),
        ([{"python": f"{MODULE}.gone:double"}], "python"),
        ([{"python": {"function": f"{MODULE}:double", "columns": ["x"]}}], "['x'] is no mapping of columns to types"),
        ([{"python": {"function": f"{MODULE}:double", "drop": "id"}}], "'id' is no list of columns"),
        ([{"python": {"function": f"{MODULE}:double", "semantics": "x"}}], "'x' is no whole number"),
    ],
)
def test_what_is_written_wrongly_is_refused_with_the_place(steps: list[Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(json.dumps(steps), (MODULE,))
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"select": ["nope"]}, "no column 'nope'; the columns are ['id', 'text']"),
        ({"select": {"a": "id", "b": "gone"}}, "no column 'gone'"),
        ({"filter": "nope > 1"}, "no column 'nope'"),
        ({"filter": "text > 1"}, "filter"),
        ({"cast": {"id": "int23"}}, "did you mean"),
        ({"cast": {"id": "list<int8>"}}, "which cannot become"),
        ({"cast": {"id": "int8[99999999999]"}}, "has at most 2147483647 values, not 99999999999"),
        ({"cast": {"id": f"int8[{'9' * 5000}]"}}, "has at most 2147483647 values"),
        ({"python": {"function": f"{MODULE}:double", "drop": ["gone"]}}, "drops 'gone'"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_when_opened(step: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        chain(step).schema(value(1).rows.schema)
    assert says in str(caught.value)
    assert "row transform 0" in str(caught.value)
