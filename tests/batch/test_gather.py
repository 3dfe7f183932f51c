"""One law over every type: gathering rows gives what `take` on the concatenated chunks gives."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.batch.gather import gather
from penstock_service.batch.visit import plan_visit

N = 40


def _columns(first: int) -> dict[str, pa.Array]:
    """Columns of N rows of every kind of type, different for each chunk."""
    rng = np.random.default_rng(first)
    whole = np.arange(first, first + N)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(N * 3), pa.float32()), 3)
    nested = pa.FixedSizeListArray.from_arrays(
        pa.FixedSizeListArray.from_arrays(pa.array(range(N * 4), pa.int16()), 2), 2
    )
    texts = [None if i % 7 == 0 else "x" * (i % 5) for i in whole]
    return {
        "i64": pa.array(whole),
        "u8": pa.array(whole % 256, pa.uint8()),
        "f16": pa.array(rng.random(N).astype(np.float16)),
        "f64_null": pa.array([None if i % 3 == 0 else float(i) for i in whole]),
        "bool": pa.array(whole % 2 == 0),
        "date": pa.array(whole.astype("datetime64[D]")),
        "decimal": pa.array([int(i) for i in whole], pa.decimal128(12, 2)),
        "fixed": fixed,
        "fixed_offset": pa.concat_arrays([fixed, fixed]).slice(N // 2, N),
        "nested": nested,
        "fixed_null": pa.array([None if i % 5 == 0 else [1, 2] for i in whole], pa.list_(pa.int32(), 2)),
        "bytes4": pa.array([bytes([i % 256] * 4) for i in whole], pa.binary(4)),
        "tensor": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float32(), [3]), fixed),
        "text": pa.array(texts),
        "list": pa.array([list(range(i % 4)) for i in whole], pa.list_(pa.int32())),
        "struct": pa.array([{"a": int(i), "b": str(i)} for i in whole]),
    }


CHUNKS = {c: pa.record_batch(_columns(c * 1000)) for c in (3, 5, 8)}
SCHEMA = CHUNKS[3].schema


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([3, 5, 8]), st.integers(0, N - 1)), max_size=120))
def test_gathered_rows_are_those_asked_for_in_order(wanted: list[tuple[int, int]]) -> None:
    chunk = np.array([c for c, _ in wanted], np.uint32)
    row = np.array([r for _, r in wanted], np.uint32)
    got = gather(SCHEMA, CHUNKS, plan_visit(chunk, row))
    got.validate(full=True)
    expected: list[Any] = [CHUNKS[c].slice(r, 1).to_pylist()[0] for c, r in wanted]
    assert got.num_rows == len(wanted)
    for name in SCHEMA.names:
        assert repr(got.column(name).to_pylist()) == repr([e[name] for e in expected])


def test_columns_are_found_by_name_whatever_their_place() -> None:
    turned = pa.record_batch({name: CHUNKS[3][name] for name in reversed(SCHEMA.names)})
    some = pa.schema([SCHEMA.field("text"), SCHEMA.field("i64")])
    visit = plan_visit(np.array([3, 5, 3], np.uint32), np.array([1, 2, 0], np.uint32))
    got = gather(some, {3: turned, 5: CHUNKS[5]}, visit)
    assert got["i64"].to_pylist() == [3001, 5002, 3000]


@pytest.mark.parametrize("name", SCHEMA.names)
def test_each_type_survives_the_wire(name: str) -> None:
    visit = plan_visit(np.array([8, 8], np.uint32), np.array([7, 7], np.uint32))
    batch = gather(pa.schema([SCHEMA.field(name)]), CHUNKS, visit)
    back = pa.ipc.read_record_batch(batch.serialize(), batch.schema)
    assert back.equals(batch)
