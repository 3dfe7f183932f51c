"""A law over all outputs: steps, however they are cut, put together are the whole."""

import sys
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.tensors import plan_columns

FLOATS = st.one_of(st.none(), st.floats(allow_nan=False, width=32))
ROW = st.fixed_dictionaries(
    {
        "x": FLOATS,
        "n": st.integers(-(2**63), 2**63 - 1),
        "pixels": st.lists(FLOATS, min_size=3, max_size=3),
        "tokens": st.lists(st.integers(0, 2**31 - 1), max_size=4),
        "text": st.one_of(st.none(), st.text(max_size=3)),
        "s": st.one_of(st.none(), st.fixed_dictionaries({"a": FLOATS})),
    }
)
SCHEMA = pa.schema(
    [
        ("x", pa.float32()),
        ("n", pa.int64()),
        ("pixels", pa.list_(pa.float32(), 3)),
        ("tokens", pa.list_(pa.int32())),
        ("text", pa.string()),
        ("s", pa.struct([("a", pa.float32())])),
    ]
)


def plain(value: Any) -> Any:
    """As nested lists, with None for NaN, so that rows of any output compare."""
    listed = value if isinstance(value, list) else value.tolist()

    def walk(item: Any) -> Any:
        if isinstance(item, list):
            return [walk(each) for each in item]
        return None if isinstance(item, float) and item != item else item

    return walk(listed)


def as_rows(step: Any, ragged: bool) -> list[dict[str, Any]]:
    if isinstance(step, pa.RecordBatch):
        return [{**row, "s": None, "s.a": (row["s"] or {}).get("a")} for row in step.to_pylist()]
    columns = {name: plain(value) for name, value in step.items()}
    if ragged:
        cuts = columns["tokens_offsets"]
        columns["tokens"] = [columns["tokens"][a:b] for a, b in pairwise(cuts)]
    else:
        masks = columns["tokens_mask"]
        columns["tokens"] = [
            [item for item, data in zip(row, mask, strict=True) if data]
            for row, mask in zip(columns["tokens"], masks, strict=True)
        ]
    names = ("x", "n", "pixels", "tokens", "text", "s.a")
    rows = zip(*(columns[name] for name in names), strict=True)
    return [dict(zip(names, row, strict=True)) | {"s": None} for row in rows]


@pytest.mark.parametrize(
    ("output", "ragged"),
    [
        ("torch", False),
        ("torch", True),
        ("mlx", False),
        ("mlx", True),
        ("numpy", False),
        ("numpy", True),
        ("arrow", False),
    ],
)
@given(rows=st.lists(ROW, max_size=12), data=st.data())
@settings(max_examples=40, deadline=None)
def test_steps_put_together_are_the_whole(output: str, ragged: bool, rows: list[dict[str, Any]], data: Any) -> None:
    batch = pa.RecordBatch.from_pylist(rows, SCHEMA)
    memory = np.frombuffer(bytearray(batch.serialize()), np.uint8)
    received = pa.ipc.read_record_batch(pa.py_buffer(memory), SCHEMA)
    bundle = plan_columns(SCHEMA, output, ragged=ragged).open(received, memory)
    inner = data.draw(st.lists(st.integers(0, len(rows)), max_size=5))
    cuts = [0, *sorted(inner), len(rows)]
    found = [row for start, stop in pairwise(cuts) for row in as_rows(bundle.rows(start, stop), ragged)]
    expected = [{**row, "s": None, "s.a": (row["s"] or {}).get("a")} for row in rows]
    assert found == expected


def test_a_step_costs_a_few_calls_and_none_for_each_row() -> None:
    """What that takes in time is measured by benchmarks/throughput.py."""
    batch = pa.record_batch({name: pa.array(np.zeros(4096, np.float32)) for name in "abc"})
    for output in ("torch", "numpy", "mlx"):
        bundle = plan_columns(batch.schema, output).open(batch, None)
        bundle.rows(0, 8)
        for rows in (8, 2048):
            calls: list[str] = []
            sys.setprofile(lambda frame, event, _: calls.append(event))  # noqa: B023
            try:
                bundle.rows(0, rows)
            finally:
                sys.setprofile(None)
            assert 0 < len([event for event in calls if "call" in event]) <= 5 + len(batch.columns), output


def test_a_step_has_the_types_of_its_library() -> None:
    batch = pa.record_batch({"x": pa.array([1, 2])})
    for output, kind in (("torch", torch.Tensor), ("mlx", mx.array), ("numpy", np.ndarray)):
        assert isinstance(plan_columns(batch.schema, output).open(batch, None).rows(0, 1)["x"], kind)
