import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, DatasetVersion, Manifest
from penstock_service.core.difference import Difference, difference

CONTENT = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3))
"""Shard to what it holds; as many rows, ten times as many bytes."""


def version(content: dict[str, int], name: str) -> DatasetVersion:
    shards = [
        {"path": p, "format": "csv", "size": n * 10, "mtime_ns": 1, "rows": n, "fingerprint": str(n)}
        for p, n in sorted(content.items())
    ]
    manifest = Manifest(pa.Table.from_pylist(shards, schema=SHARDS_SCHEMA), SLICES_SCHEMA.empty_table())
    return DatasetVersion(name, "v", "/", pa.schema([]), manifest)


def paths(found: Difference) -> tuple[list[str], list[str], list[str]]:
    return ([s.path for s in found.added], [s.path for s in found.gone], [s.path for s in found.changed])


@given(CONTENT, CONTENT)
def test_a_difference_accounts_for_every_shard_and_turns_around(a: dict[str, int], b: dict[str, int]) -> None:
    there = difference(version(a, "a"), version(b, "b"))
    added, gone, changed = paths(there)
    assert (there.a, there.b) == ("a@v", "b@v")
    assert added == sorted(b.keys() - a.keys())
    assert gone == sorted(a.keys() - b.keys())
    assert changed == sorted(k for k in a.keys() & b.keys() if a[k] != b[k])
    assert len(added) + len(changed) + there.same == len(b)
    assert len(gone) + len(changed) + there.same == len(a)
    assert paths(difference(version(b, "b"), version(a, "a"))) == (gone, added, changed)
    rows = sum(s.rows - s.rows_before for s in (*there.added, *there.gone, *there.changed))
    assert rows == sum(b.values()) - sum(a.values())
    assert sum(s.bytes - s.bytes_before for s in (*there.added, *there.gone, *there.changed)) == rows * 10
