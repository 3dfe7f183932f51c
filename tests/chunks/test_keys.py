from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
from hypothesis import given

from penstock_service.chunks.keys import VersionKeys, owner_of
from penstock_service.core.dataset import SLICES_SCHEMA, DatasetVersion, Manifest
from tests.chunks.makers import dataset


def keys(version: DatasetVersion, semantics: dict[str, int] | None = None) -> list[str]:
    return list(VersionKeys(version, semantics or {}).all_keys())


def units_of(slices: list[dict[str, int]], chunk: int) -> list[tuple[int, int]]:
    """Shard and unit of each slice of a chunk."""
    return [(s["shard"], s["unit"]) for s in slices if s["chunk"] == chunk]


def changed(version: DatasetVersion, column: str, value: object) -> DatasetVersion:
    """With another value of the first shard's `column`."""
    rows = version.manifest.shards.to_pylist()
    rows[0][column] = value
    shards = pa.Table.from_pylist(rows, schema=version.manifest.shards.schema)
    return replace(version, manifest=Manifest(shards, version.manifest.slices))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans()), min_size=1, max_size=25))
def test_chunks_read_together_are_those_of_the_manifest(steps: list[tuple[int, int, bool]]) -> None:
    rows: list[dict[str, int]] = []
    shard, unit, chunk = 0, 0, 0
    for more_shards, more_units, same_chunk in steps:
        shard, unit = (shard + more_shards, 0) if more_shards else (shard, unit + more_units)
        chunk += not (same_chunk or not rows)
        rows.append(dict.fromkeys(SLICES_SCHEMA.names, 0) | {"shard": shard, "unit": unit, "chunk": chunk, "rows": 1})
    toy = dataset(Path("/tmp"), [])  # noqa: S108 - nothing is read there
    manifest = Manifest(toy.manifest.shards, pa.Table.from_pylist(rows, schema=SLICES_SCHEMA))
    version = VersionKeys(replace(toy, manifest=manifest), {})
    for c in range(chunk + 1):
        first, end = version.read_with(c)[0], version.read_with(c)[-1]
        assert c in version.read_with(c)
        assert version.read_with(c) == manifest.chunks_read_with(c)
        for a in range(first, end):  # what is read together hangs together, and nothing else does
            assert units_of(rows, a)[-1] == units_of(rows, a + 1)[0]
        assert first == 0 or units_of(rows, first - 1)[-1] != units_of(rows, first)[0]
        assert end == chunk or units_of(rows, end)[-1] != units_of(rows, end + 1)[0]


def test_every_chunk_has_a_key_of_its_own_that_does_not_depend_on_where_the_dataset_lies(tmp_path: Path) -> None:
    here, there = dataset(tmp_path / "a", [3, 1, 2]), dataset(tmp_path / "b", [3, 1, 2], name="else", version="9")
    assert keys(here) == keys(there)
    assert len(set(keys(here))) == 6


def test_adding_a_shard_changes_no_other_key(tmp_path: Path) -> None:
    assert keys(dataset(tmp_path, [3, 1, 2, 4]))[:6] == keys(dataset(tmp_path, [3, 1, 2]))


def test_what_a_chunk_is_a_function_of_is_in_its_key(tmp_path: Path) -> None:
    base = dataset(tmp_path, [2, 1])
    for other in (
        changed(base, "fingerprint", "another"),
        changed(base, "path", "another"),
        changed(base, "format", "another"),
    ):
        assert [a == b for a, b in zip(keys(base), keys(other), strict=True)] == [False, False, True]
    assert not set(keys(base)) & set(keys(base, {"toy": 2}))
    assert keys(base) == keys(base, {"csv": 2})
    assert not set(keys(base)) & set(keys(replace(base, schema=base.schema.append(pa.field("more", pa.int8())))))


def test_keys_are_pinned(tmp_path: Path) -> None:
    """They name files that outlive the process: another version of this program must find them."""
    assert keys(dataset(tmp_path, [1]), {"toy": 1}) == ["9a16f5404fe3d663420e4901b8ca3f73"]


def test_more_shards_than_are_digested_together(tmp_path: Path) -> None:
    many = dataset(tmp_path, [1] * 2500)
    assert len(set(keys(many))) == 2500
    assert VersionKeys(many, {}).key(2400) == keys(many)[2400]


def test_a_dataset_without_chunks(tmp_path: Path) -> None:
    assert keys(dataset(tmp_path, [])) == []


def test_splits_of_one_dataset_are_told_apart_and_chunks_of_equal_content_shared(tmp_path: Path) -> None:
    train = dataset(tmp_path, [2, 1])
    test = replace(train, split="test")
    assert owner_of(train) != owner_of(test)
    assert keys(train) == keys(test)
