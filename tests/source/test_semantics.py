"""What the bytes of each format mean, pinned. If a hash here changes on purpose, raise that format's `semantics`:
chunks made before are then made anew. (The hashes are of schema, rows and errors, and of how the rows were cut.)
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstock_service.source.format import ChunkLimits
from penstock_service.source.formats import FORMATS, SEMANTICS
from tests.source.files import read_all, scan_path

TABLE = pa.table({"n": [1, None, 3], "x": [0.5, 1.5, None], "s": ["a", 'b "c"', "d\u00e9"], "l": [[1], [], [2, 3]]})


def arrow(file: Path) -> None:
    with pa.ipc.new_file(file, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


FIXTURES: dict[str, Callable[[Path], object]] = {
    "parquet": lambda file: pq.write_table(TABLE, file, row_group_size=2),
    "arrow": arrow,
    "jsonl": lambda file: file.write_bytes(b'{"n": 1, "s": "a"}\n\n{"n": 2.5, "l": [1]}\n{"n": oops}\n{"n": null}\n'),
    "json": lambda file: file.write_bytes(b'[{"n": 1,\n "s": "a"}, {"n": 2.5, "l": [1]},\n {"m": {"o": 1}}]'),
    "csv": lambda file: file.write_bytes(
        b'n,x,s,d\n1,0.5,"a\nb",2024-01-01\n,1,"c ""d""",\n3,,e\n4,2,5" f,2024-02-03\n'
    ),
    "tsv": lambda file: file.write_bytes(b"n\ts\n1\ttrue\n2\tfalse\n\n3\t\n"),
    "text": lambda file: file.write_bytes(b"a\r\n\n b \nc"),
}
PINNED: dict[str, tuple[int, str]] = {  # semantics and hash
    "arrow": (1, "a9b2735ab870d1a1"),
    "csv": (1, "cae3ab0a3f2c826d"),
    "json": (1, "fba73c89b08dee76"),
    "jsonl": (1, "a5b02bc4d79dec32"),
    "parquet": (1, "12e7273552efe919"),
    "text": (1, "3267ffc4a74bf67b"),
    "tsv": (1, "130fd49fb4eb4832"),
}


@pytest.mark.parametrize("name", sorted(SEMANTICS))
def test_the_meaning_of_a_format_changes_only_with_its_semantics_version(name: str, tmp_path: Path) -> None:
    (suffix,) = (f.suffixes[0] for f in FORMATS if f.name == name)
    FIXTURES[name](tmp_path / f"a{suffix}")
    scanned = scan_path(tmp_path, ChunkLimits(rows=2))
    # where Arrow's own writer puts a record batch is no meaning of ours
    unpinned = ["bytes", "offset", "length"] if name == "arrow" else ["bytes"]
    said = {
        "schema": [f"{f.name}: {f.type}" for f in scanned.schema],
        "slices": scanned.manifest.slices.drop_columns(unpinned).to_pylist(),
        "chunks": [
            [chunk, value.stored_rows, value.rows.to_pylist(), [(e.row, e.where) for e in value.errors]]
            for chunk, value in sorted(read_all(tmp_path, scanned).items())
        ],
    }
    text = json.dumps(said, sort_keys=True, default=str)
    assert (SEMANTICS[name], hashlib.blake2b(text.encode(), digest_size=8).hexdigest()) == PINNED[name], text


def test_every_format_is_pinned() -> None:
    assert set(PINNED) == set(SEMANTICS) == {f.name for f in FORMATS}
