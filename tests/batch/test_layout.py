"""Gathering in place gives the very bytes that Arrow itself would write."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.batch.gather import gather, gather_in_place
from penstock_service.batch.layout import Layouts
from penstock_service.batch.visit import plan_visit
from penstock_service.core.feed import ordinary

KINDS: list[Any] = [
    pa.int8(),
    pa.uint16(),
    pa.float16(),
    pa.float32(),
    pa.int64(),
    pa.timestamp("us"),
    pa.binary(3),
    pa.binary(2100),
    pa.list_(pa.int16(), 5),
    pa.list_(pa.list_(pa.float64(), 2), 3),
    pa.fixed_shape_tensor(pa.float32(), [2, 2]),
]


def dense(kind: pa.DataType, rows: int, rng: np.random.Generator) -> pa.Array:
    """Random bytes as an array without nulls."""
    from penstock_service.batch.fixed import item_bytes, item_type, rebuild

    width = item_bytes(kind)
    return rebuild(kind, np.frombuffer(rng.bytes(rows * width), item_type(width)), rows)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=5),
    st.one_of(st.integers(1, 200), st.integers(4000, 9000)),  # gathered at once, or part by part
    st.integers(0, 99),
)
def test_the_message_is_the_one_arrow_writes(kinds: list[pa.DataType], rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    schema = pa.schema([pa.field(f"c{i}", kind) for i, kind in enumerate(kinds)])
    batches = {
        chunk: pa.RecordBatch.from_arrays([dense(kind, 50, rng) for kind in kinds], schema=schema) for chunk in (2, 5)
    }
    chunk = rng.choice([2, 5], rows).astype(np.uint32)
    row = rng.integers(0, 50, rows).astype(np.uint32)
    visit = plan_visit(chunk, row)
    layouts = Layouts(schema)
    found = gather_in_place(layouts, batches, chunk, row, ordinary)
    assert found is not None
    expected = np.frombuffer(gather(schema, batches, visit).serialize(), np.uint8)
    layout = layouts.of(rows)
    assert layout is not None
    assert found.size == expected.size
    assert found.tobytes()[: len(layout.head)] == expected.tobytes()[: len(layout.head)]
    read = pa.ipc.read_record_batch(pa.py_buffer(found), schema)
    read.validate(full=True)
    for i, kind in enumerate(kinds):  # bytes, not values: random floats hold NaN
        assert _values(read.column(i)) == _values(gather(schema, batches, visit).column(i)), kind
    for start, stop in layout.gaps:
        assert not found[start:stop].any()


def _values(array: pa.Array) -> bytes:
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    return bytes(storage.buffers()[-1])


@pytest.mark.parametrize("column", [pa.array(["a", "bb"]), pa.array([1, None]), pa.array([True, False])])
def test_what_has_no_fixed_width_or_holds_nulls_is_not_gathered_in_place(column: pa.Array) -> None:
    batch = pa.RecordBatch.from_arrays([column], names=["c"])
    row = np.arange(2, dtype=np.uint32)

    def memory(size: int) -> Any:
        raise AssertionError("nothing may be asked for")

    assert gather_in_place(Layouts(batch.schema), {0: batch}, np.zeros(2, np.uint32), row, memory) is None
