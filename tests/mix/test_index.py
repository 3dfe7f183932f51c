"""The index of a segment: masks move no other row, and what is absent is told."""

import gc
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.chunk import ChunkInfo, RowError, pack_rows
from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, DatasetVersion, Manifest
from penstock_service.core.errors import DataError, ServiceError, SourceUnreadable, WorkerKilled
from penstock_service.core.segment import BySource
from penstock_service.mix.index import ChunkNumbers, build
from penstock_service.mix.pool import SOURCE_SHIFT

ROWS = 20
fates = st.lists(st.sampled_from(["row", "row", "dropped", "error"]), min_size=ROWS, max_size=ROWS)


def info(fate: list[str]) -> ChunkInfo:
    errors = tuple(RowError(i, f"row {i}", "bad") for i, f in enumerate(fate) if f == "error")
    dropped = np.array([i for i, f in enumerate(fate) if f == "dropped"], np.int64)
    return ChunkInfo(ROWS, errors, 0, "", pack_rows(dropped, ROWS))


@given(st.lists(fates, min_size=1, max_size=3), st.data())
def test_units_are_the_rows_that_stay_in_the_order_they_had(chunks: list[list[str]], data: st.DataObject) -> None:
    everything = [(c, r) for c in range(len(chunks)) for r in range(ROWS)]
    order = data.draw(st.permutations(everything))
    chunk = np.array([c for c, _ in order], np.int64)
    stored = np.array([r for _, r in order], np.int64)
    ids = (chunk * 100 + stored).astype(np.uint64)
    segment = build(5, ids, chunk, stored, {c: info(fate) for c, fate in enumerate(chunks)})

    left = [(c, r) for c, r in order if chunks[c][r] != "dropped"]
    assert segment.number == 5
    assert segment.units == len(left)
    assert segment.bad.unit.tolist() == [i for i, (c, r) in enumerate(left) if chunks[c][r] == "error"]
    for (where, reason), unit in zip(segment.bad.reasons(sources(len(chunks))), segment.bad.unit.tolist(), strict=True):
        assert (where, reason) == (f"row {left[unit][1]}", "bad")
    present = {c: [r for r in range(ROWS) if fate[r] == "row"] for c, fate in enumerate(chunks)}
    for unit, (c, r) in enumerate(left):
        assert segment.chunk[unit] == c
        if chunks[c][r] == "row":
            assert present[c][segment.row[unit]] == r
    for c, fate in enumerate(chunks):
        gone = [r for r in range(ROWS) if fate[r] != "row"]
        assert segment.absent.get(c, np.empty(0)).tolist() == gone


@pytest.mark.parametrize(
    ("fault", "lost"), [(DataError("torn"), []), (SourceUnreadable("no answer"), [1]), (WorkerKilled("thrice"), [1])]
)
def test_every_unit_of_a_chunk_that_cannot_be_had_is_bad(fault: ServiceError, lost: list[int]) -> None:
    chunk, stored = np.array([0, 1, 0, 1]), np.array([3, 0, 1, 2])
    segment = build(0, np.arange(4, dtype=np.uint64), chunk, stored, {0: info(["row"] * ROWS), 1: fault})
    assert segment.bad.unit.tolist() == [1, 3]
    assert segment.bad.stored.tolist() == [0, 2]
    said = segment.bad.reasons(sources(2))  # the second chunk lies behind the first in the shard
    assert said == [(f"a.csv, row {ROWS}", str(fault)), (f"a.csv, row {ROWS + 2}", str(fault))]
    assert segment.lost == lost


def test_a_million_bad_rows_cost_arrays_and_not_objects() -> None:
    rows = 1_000_000
    whole = ChunkInfo(rows, tuple(RowError(i, "", "") for i in range(rows)), 0, "")
    ids = np.arange(rows, dtype=np.uint64)
    before = len(gc.get_objects())
    segment = build(0, ids, np.zeros(rows, np.int64), np.arange(rows), {0: whole})
    assert len(segment.bad) == rows
    assert len(gc.get_objects()) - before < 1000
    assert segment.nbytes <= 32 * rows + 8 * rows


def test_the_digest_knows_which_rows_stayed() -> None:
    chunk, stored, ids = np.zeros(4, np.int64), np.arange(4), np.arange(4, dtype=np.uint64)
    whole = build(0, ids, chunk, stored, {0: info(["row"] * ROWS)})
    failed = build(0, ids, chunk, stored, {0: info(["error", *["row"] * (ROWS - 1)])})
    filtered = build(0, ids, chunk, stored, {0: info(["dropped", *["row"] * (ROWS - 1)])})
    # What a policy does with an error comes later: the segment is the same.
    assert whole.digest == failed.digest != filtered.digest


def dataset(chunks: list[int]) -> DatasetVersion:
    """One shard whose chunks have so many rows."""
    slices = {name: [0] * len(chunks) for name in SLICES_SCHEMA.names}
    slices |= {"rows": chunks, "chunk": list(range(len(chunks)))}
    shard = {f.name: "a.csv" if f.name == "path" else 0 if pa.types.is_integer(f.type) else "" for f in SHARDS_SCHEMA}
    shards = pa.Table.from_pylist([shard | {"rows": sum(chunks)}], SHARDS_SCHEMA)
    manifest = Manifest(shards, pa.table(slices, schema=SLICES_SCHEMA))
    return DatasetVersion("d", "v", "/", pa.schema([]), manifest)


def sources(chunks: int) -> BySource:
    return ChunkNumbers([dataset([ROWS] * chunks)]).by_source


def test_of_bad_rows_that_are_not_told_the_manifest_says_where_they_are() -> None:
    told = RowError(0, "line 1", "no JSON")
    known = ChunkInfo(ROWS, (told,), 0, "", more=pack_rows(np.array([3]), ROWS))
    segment = build(0, np.arange(2, dtype=np.uint64), np.ones(2, np.int64), np.array([3, 0]), {1: known})
    (where, reason), first = segment.bad.reasons(sources(2))
    assert first == ("line 1", "no JSON")
    assert where == f"a.csv, row {ROWS + 3}"
    assert reason == "one of 2 bad rows of the chunk; the last that is told is line 1: no JSON"


# Without empty chunks they are found by a table; with them, by a search.
chunk_rows = st.sampled_from([0, 1, 3, 20]).flatmap(
    lambda least: st.lists(st.lists(st.integers(least, least + 9), max_size=6), max_size=5)
)


@given(chunk_rows, st.randoms(use_true_random=False))
def test_every_row_of_every_source_is_found_in_its_chunk(sources: list[list[int]], random: Random) -> None:
    placed = [
        (source << SOURCE_SHIFT | (sum(chunks[:c]) + row), sum(map(len, sources[:source])) + c, row)
        for source, chunks in enumerate(sources)
        for c, rows in enumerate(chunks)
        for row in range(rows)
    ]
    random.shuffle(placed)
    found = ChunkNumbers([dataset(chunks) for chunks in sources]).locate(np.array([p[0] for p in placed], np.uint64))
    assert [a.tolist() for a in found] == [[p[1] for p in placed], [p[2] for p in placed]]
