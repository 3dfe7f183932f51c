"""Manifests on disk: a folder with one folder for each split, written whole or not at all, mapped when loaded.

splits.json             name, rows, bytes, shards and content of each split; versions of what the scan means
SPLIT/schema.arrow      Arrow IPC schema message
SPLIT/shards.arrow      SHARDS_SCHEMA
SPLIT/slices.arrow      SLICES_SCHEMA
SPLIT/scans.arrow       what the scan of each shard said of its columns: the next scan looks here first
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, Manifest, Split
from penstock_service.core.errors import DataError
from penstock_service.source.format import Piece, ShardScan
from penstock_service.source.place import FileState
from penstock_service.source.scan import ScannedSplit

SCANS_SCHEMA = pa.schema(
    [
        ("schema", pa.dictionary(pa.int32(), pa.binary())),  # null: the shard says nothing about columns
        ("notes", pa.list_(pa.string())),
    ]
)
_SPLITS = "splits.json"


def save_splits(splits: Sequence[ScannedSplit], semantics: Mapping[str, int], folder: Path) -> None:
    """Writes `folder`, which must not exist; it appears with all its content, on disk, or not at all."""
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for split in splits:
        inside = temporary / split.name
        inside.mkdir()
        _write(inside / "schema.arrow", split.schema.serialize())
        for name, table in (
            ("shards", split.manifest.shards),
            ("slices", split.manifest.slices),
            ("scans", _scans_table(split.scans)),
        ):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            _write(inside / f"{name}.arrow", sink.getvalue())
        _sync(inside)
    summary = [
        {
            "name": split.name,
            "rows": split.manifest.rows,
            "bytes": split.manifest.bytes,
            "shards": split.manifest.shards.num_rows,
            "content": split.content,
        }
        for split in splits
    ]
    _write(temporary / _SPLITS, json.dumps({"splits": summary, "semantics": dict(semantics)}).encode())
    _sync(temporary)
    temporary.rename(folder)
    _sync(folder.parent)


def load_summary(folder: Path) -> tuple[Split, ...]:
    """What splits there are, without their shards. Raises DataError."""
    return tuple(
        Split(
            name=one["name"],
            rows=one["rows"],
            bytes=one["bytes"],
            shards=one["shards"],
            schema=_read_schema(folder / one["name"] / "schema.arrow"),
            content=one["content"],
        )
        for one in _summary(folder)["splits"]
    )


def same_semantics(folder: Path, semantics: Mapping[str, int]) -> bool:
    """Was the scan made by formats that mean the same? Raises DataError."""
    return bool(_summary(folder)["semantics"] == dict(semantics))


def load_manifest(folder: Path, split: str) -> Manifest:
    """The manifest of one split, mapped: only we write there. Raises DataError."""
    return Manifest(
        _read_table(folder / split / "shards.arrow", SHARDS_SCHEMA),
        _read_table(folder / split / "slices.arrow", SLICES_SCHEMA),
    )


def load_shard_schemas(folder: Path, split: str) -> Iterator[tuple[str, pa.Schema]]:
    """Path and columns of each shard that says anything about columns. Raises DataError."""
    paths = _read_table(folder / split / "shards.arrow", SHARDS_SCHEMA)["path"].to_pylist()
    for path, (schema, _) in zip(paths, _scans(folder, split), strict=True):
        if schema is not None:
            yield path, schema


def load_scans(folder: Path, split: str) -> Iterator[tuple[str, FileState, ShardScan]]:
    """What the scan of each shard found, as `scan` gave it. Raises DataError."""
    manifest = load_manifest(folder, split)
    pieces: list[list[Piece]] = [[] for _ in range(manifest.shards.num_rows)]
    cut = [manifest.slices[name].to_pylist() for name in Piece._fields]
    for shard, *piece in zip(manifest.slices["shard"].to_pylist(), *cut, strict=True):
        pieces[shard].append(Piece(*piece))
    names = ("path", "size", "mtime_ns", "rows", "fingerprint")
    rows = zip(*(manifest.shards[name].to_pylist() for name in names), strict=True)
    for row, of_shard, (schema, notes) in zip(rows, pieces, _scans(folder, split), strict=True):
        path, size, mtime_ns, count, fingerprint = row
        yield path, FileState(size, mtime_ns), ShardScan(schema, count, fingerprint, of_shard, notes)


def _scans(folder: Path, split: str) -> Iterator[tuple[pa.Schema | None, list[str]]]:
    table = _read_table(folder / split / "scans.arrow", SCANS_SCHEMA).combine_chunks()
    if table.num_rows == 0:
        return
    column = table["schema"].chunk(0)
    schemas = [pa.ipc.read_schema(pa.py_buffer(data)) for data in column.dictionary.to_pylist()]
    for index, notes in zip(column.indices.to_pylist(), table["notes"].to_pylist(), strict=True):
        yield None if index is None else schemas[index], notes


def _scans_table(scans: Sequence[ShardScan]) -> pa.Table:
    """Thousands of shards have few schemas: each is written once."""
    known: dict[pa.Schema, int] = {}
    indices: list[int | None] = []
    last: tuple[pa.Schema | None, int | None] = (None, None)
    for scan in scans:
        if scan.schema is not last[0]:
            last = (scan.schema, None if scan.schema is None else known.setdefault(scan.schema, len(known)))
        indices.append(last[1])
    data = pa.array([schema.serialize().to_pybytes() for schema in known], pa.binary())
    column = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), data)
    return pa.table([column, pa.array([s.notes for s in scans], pa.list_(pa.string()))], schema=SCANS_SCHEMA)


def _summary(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / _SPLITS).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"manifest {folder} cannot be read ({error}): register the dataset again") from error
    return dict(found)


def _read_schema(file: Path) -> pa.Schema:
    try:
        return pa.ipc.read_schema(pa.py_buffer(file.read_bytes()))
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"manifest {file} cannot be read ({error}): register the dataset again") from error


def _read_table(file: Path, schema: pa.Schema) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"manifest {file} cannot be read ({error}): register the dataset again") from error
    if table.schema != schema:
        raise DataError(f"manifest {file} is of another release: register the dataset again")
    return table


def _write(file: Path, data: bytes | pa.Buffer) -> None:
    with file.open("wb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
