"""Strings, binaries and lists are gathered as `take` would, whatever holds them: nulls, slices, wide offsets."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.batch import varying
from penstock_service.batch.gather import gather
from penstock_service.batch.varying import gather_varying, varying_bytes
from penstock_service.batch.visit import plan_visit
from penstock_service.batch.written import written
from penstock_service.core.feed import U8, ordinary

TEXT = st.none() | st.text(max_size=3) | st.text("ab", min_size=11, max_size=14) | st.text(max_size=40)
BYTES = st.none() | st.binary(max_size=14) | st.binary(max_size=40)
INTS = st.none() | st.lists(st.integers(-9, 9), max_size=5) | st.lists(st.integers(-9, 9), max_size=30)
PAIRS = st.none() | st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).map(list), max_size=5)
KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.binary(), BYTES),
    (pa.large_binary(), BYTES),
    (pa.list_(pa.int32()), INTS),
    (pa.large_list(pa.int8()), INTS),
    (pa.list_(pa.field("token", pa.int64(), nullable=False)), INTS),
    (pa.list_(pa.list_(pa.int16(), 2)), PAIRS),
    (pa.json_(), st.none() | st.sampled_from(["{}", '{"a": [1, 2, 3, 4, 5]}'])),
]
OTHERS: list[tuple[Any, st.SearchStrategy[Any]]] = [  # what Arrow's own `take` does
    (pa.list_(pa.list_(pa.int16())), st.none() | st.lists(INTS, max_size=3)),
    (pa.list_(pa.string()), st.none() | st.lists(TEXT, max_size=3)),
    (pa.list_(pa.bool_()), st.none() | st.lists(st.booleans(), max_size=3)),
    (pa.list_(pa.int32()), st.lists(st.none() | st.integers(0, 9), max_size=3)),
]


@st.composite
def chunks(draw: st.DrawFn, kinds: list[tuple[Any, st.SearchStrategy[Any]]]) -> list[pa.Array]:
    """Arrays of one type, each a slice of a longer one."""
    kind, values = draw(st.sampled_from(kinds))
    parts = []
    for _ in range(draw(st.integers(1, 4))):
        whole = pa.array(draw(st.lists(values, min_size=1, max_size=9)), getattr(kind, "storage_type", kind))
        if isinstance(kind, pa.BaseExtensionType):
            whole = pa.ExtensionArray.from_storage(kind, whole)
        first = draw(st.integers(0, len(whole) - 1))
        parts.append(whole.slice(first, draw(st.integers(1, len(whole) - first))))
    return parts


def rows_of(draw: st.DataObject, parts: list[pa.Array]) -> list[tuple[int, int]]:
    places = [(chunk, row) for chunk, part in enumerate(parts) for row in range(len(part))]
    return draw.draw(st.lists(st.sampled_from(places), max_size=40))


def gathered(parts: list[pa.Array], wanted: list[tuple[int, int]]) -> pa.RecordBatch:
    schema = pa.schema([pa.field("c", parts[0].type)])
    batches = {c: pa.RecordBatch.from_arrays([part], schema=schema) for c, part in enumerate(parts)}
    chunk, row = np.array(wanted, np.uint32).reshape(-1, 2).T
    return gather(schema, batches, plan_visit(chunk, row))


@given(chunks(KINDS), st.integers(0, 60), st.data())
def test_more_bytes_than_a_view_can_count_are_gathered_too(
    parts: list[pa.Array], most: int, data: st.DataObject
) -> None:
    wanted = rows_of(data, parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(varying, "_MOST", most)
        batch = gathered(parts, wanted)
    batch.validate(full=True)
    assert batch.column(0).to_pylist() == [parts[c][r].as_py() for c, r in wanted]


@given(chunks(KINDS + OTHERS), st.data())
def test_rows_are_those_asked_for_in_order(parts: list[pa.Array], data: st.DataObject) -> None:
    wanted = rows_of(data, parts)
    batch = gathered(parts, wanted)
    batch.validate(full=True)
    assert batch.column(0).type == parts[0].type
    assert batch.column(0).to_pylist() == [parts[c][r].as_py() for c, r in wanted]


@given(chunks(KINDS), st.data())
def test_these_types_are_copied_behind_views(parts: list[pa.Array], data: st.DataObject) -> None:
    wanted = rows_of(data, parts)
    chunk, row = np.array(wanted, np.uint32).reshape(-1, 2).T
    visit = plan_visit(chunk, row)
    visited = [parts[c] for c, _, _ in visit.runs]
    made = gather_varying(parts[0].type, visited, visit.runs, visit.rows, visit.place)
    assert made is not None
    assert made.to_pylist() == [parts[c][r].as_py() for c, r in wanted]


@pytest.mark.parametrize("kind", [kind for kind, _ in OTHERS[:3]], ids=str)
def test_other_types_are_not(kind: pa.DataType) -> None:
    assert varying_bytes(kind) == 0


@given(chunks(KINDS + OTHERS), chunks(KINDS + OTHERS), st.data())
def test_a_message_in_given_memory_is_the_one_arrow_writes(
    one: list[pa.Array], two: list[pa.Array], data: st.DataObject
) -> None:
    columns = [gathered(parts, rows_of(data, parts)).column(0) for parts in (one, two)]
    rows = min(map(len, columns))
    batch = pa.RecordBatch.from_arrays([column.slice(0, rows) for column in columns], ["a", "b"])
    asked: list[int] = []

    def memory(size: int) -> U8:
        asked.append(size)
        return np.full(size + 64, 255, np.uint8)[:size]

    message = written(batch, memory)
    assert asked == [message.size]
    assert message.tobytes() == batch.serialize().to_pybytes() == written(batch, ordinary).tobytes()
