"""The fingerprint: each field changes with what it stands for, and with nothing else. Pinned, as states live long."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.plan import PlanConstants
from penstock_service.mix import stream as stream_module
from penstock_service.mix.stream import Stream
from tests.laws.filtered import Leaving
from tests.laws.test_feeds import dataset

A, B = dataset(0, [[5, 5], [3]]), dataset(1, [[4]])
PLAN = PlanConstants(20, 5, 16, "ramp")
STREAM = Stream((A, B), (2, 1), 7, True, PLAN, "all", None)


def version(of: DatasetVersion, **change: Any) -> tuple[DatasetVersion, DatasetVersion]:
    return (replace(of, **change), B)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"sources": version(A, name="other")}, {"sources"}),
        ({"sources": version(A, split="test")}, {"sources"}),
        ({"sources": version(A, version="w")}, {"versions"}),
        ({"sources": version(A, chain=Leaving())}, {"transforms"}),
        ({"sources": version(A, chain=Leaving("another"))}, {"transforms"}),
        ({"sources": (B, A)}, {"sources"}),
        ({"weights": (1, 1)}, {"weights"}),
        ({"plan": replace(PLAN, pool_rows=21)}, {"pool"}),
        ({"plan": replace(PLAN, drain=4)}, {"pool"}),
        ({"plan": replace(PLAN, cycles=15)}, {"pool"}),
        ({"plan": replace(PLAN, start="full")}, {"pool"}),
        ({"until": "first"}, {"end"}),
        ({"epoch_rows": 9}, {"end"}),
        ({"shuffle": False}, {"order"}),
        ({"reshuffle": False}, {"order"}),
        # In none: fields of the cursor of their own, or no part of the order at all.
        ({"seed": 8}, set()),
        ({"row_bytes": 1.0}, set()),
        ({"sources": version(A, root="/elsewhere")}, set()),
        ({"sources": version(A, description="x", tags=("y",), task="binary", target=("id",))}, set()),
        ({"sources": version(A, schema=pa.schema([("id", pa.int64())], metadata={"x": "y"}))}, set()),
    ],
)
def test_a_field_changes_with_what_it_stands_for(change: dict[str, Any], fields: set[str]) -> None:
    before, after = STREAM.fingerprint(), replace(STREAM, **change).fingerprint()
    assert {name for name in before if before[name] != after[name]} == fields


def test_the_semantics_version_of_mixing_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = STREAM.fingerprint()
    monkeypatch.setattr(stream_module, "SEMANTICS", stream_module.SEMANTICS + 1)
    after = STREAM.fingerprint()
    assert {name for name in before if before[name] != after[name]} == {"order"}


def test_the_fingerprint_is_pinned() -> None:
    """States of earlier versions carry it, and the package's version is not in it."""
    assert STREAM.fingerprint() == {
        "sources": "42163972a86cc9fc",
        "versions": "51fdab3604bbdf4e",
        "weights": "b4ddc3208196d44e",
        "transforms": "e4a6a0577479b2b4",
        "pool": "98ac1e77583e9f81",
        "end": "6aff493bc72fc0e1",
        "order": "a3db29e1b8c33ea9",
    }
