"""Real files in every format, and ways to scan and read them."""

import gzip
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from penstock_service.core.chunk import ChunkValue, RowError
from penstock_service.core.dataset import Manifest, ReadTask
from penstock_service.source.discover import discover
from penstock_service.source.format import ChunkLimits
from penstock_service.source.read import read_task
from penstock_service.source.scan import Scanned, scan

LIMITS = ChunkLimits()


def _parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, row_group_size=max(table.num_rows // 3, 1))


def _arrow_file(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(table.num_rows // 3, 1))


def _arrow_stream(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(table.num_rows // 3, 1))


def _jsonl(table: pa.Table, path: Path) -> None:
    _packed(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode())


def _json(table: pa.Table, path: Path) -> None:
    _packed(path, json.dumps(table.to_pylist(), indent=2).encode())


def _delimited(delimiter: str) -> Callable[[pa.Table, Path], None]:
    def write(table: pa.Table, path: Path) -> None:
        sink = pa.BufferOutputStream()
        pc.write_csv(table, sink, pc.WriteOptions(delimiter=delimiter))
        _packed(path, sink.getvalue().to_pybytes())

    return write


def _packed(path: Path, data: bytes | bytearray) -> None:
    if path.suffix == ".gz":
        data = gzip.compress(data, 1)
    if path.suffix == ".zst":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(data)
        data = sink.getvalue().to_pybytes()
    path.write_bytes(data)


def rot(path: Path, data: bytes | bytearray) -> None:
    """Other bytes at the same size and time, as a failing disk gives them: nothing tells but reading."""
    before = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


WRITERS: dict[str, Callable[[pa.Table, Path], None]] = {
    ".parquet": _parquet,
    ".arrow": _arrow_file,
    ".arrows": _arrow_stream,
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".ndjson.zst": _jsonl,
    ".json": _json,
    ".json.gz": _json,
    ".csv": _delimited(","),
    ".csv.gz": _delimited(","),
    ".csv.zst": _delimited(","),
    ".tsv": _delimited("\t"),
}
SUFFIXES = sorted(WRITERS)


def scan_path(path: Path, limits: ChunkLimits = LIMITS) -> Scanned:
    return scan(discover(str(path)), limits, threads=2)


def tasks(root: str, scanned: Scanned, chunks: Iterable[int] | None = None) -> list[ReadTask]:
    """Tasks for `chunks` (all by default): one for each set of chunks that one reading gives."""
    manifest = scanned.manifest
    schema = scanned.schema.serialize().to_pybytes()
    left = sorted(chunks if chunks is not None else range(manifest.chunks))
    made = []
    while left:
        together = [c for c in manifest.chunks_read_with(left[0]) if c in left]
        left = left[len(together) :]
        made.append(ReadTask(root, schema, tuple(together), tuple(manifest.slices_of(c) for c in together)))
    return made


def read_all(root: Path, scanned: Scanned) -> dict[int, ChunkValue]:
    return {chunk: value for task in tasks(str(root), scanned) for chunk, value in read_task(task)}


def rows_of(root: Path, scanned: Scanned) -> list[dict[str, object]]:
    return [row for _, value in sorted(read_all(root, scanned).items()) for row in value.rows.to_pylist()]


def errors_of(root: Path, scanned: Scanned) -> list[RowError]:
    return [error for _, value in sorted(read_all(root, scanned).items()) for error in value.errors]


def check_manifest(manifest: Manifest, limits: ChunkLimits = LIMITS) -> None:
    """What must hold of the two tables whatever was scanned."""
    slices = manifest.slices.to_pylist()
    rows = [0] * manifest.shards.num_rows
    for one in slices:
        assert one["rows"] > 0
        rows[one["shard"]] += one["rows"]
    assert rows == manifest.shard_rows.tolist()
    order = [(s["shard"], s["unit"], s["unit_row"]) for s in slices]
    assert order == sorted(order)
    chunks = [s["chunk"] for s in slices]
    assert chunks == sorted(chunks)
    assert sorted(set(chunks)) == list(range(manifest.chunks))
    per_chunk: dict[int, int] = {}
    units: dict[tuple[int, int], list[int]] = {}
    for one in slices:
        per_chunk[one["chunk"]] = per_chunk.get(one["chunk"], 0) + one["rows"]
        units.setdefault((one["shard"], one["unit"]), []).append(one["chunk"])
    assert all(count <= limits.rows for count in per_chunk.values())
    for of_unit in units.values():
        if len(of_unit) > 1:  # cut: a chunk for each slice, shared with no other unit
            assert len(set(of_unit)) == len(of_unit)
            assert all(chunks.count(chunk) == 1 for chunk in of_unit)
