"""The scan of all shards of a dataset version: made once, in parallel."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

import pyarrow as pa

from penstock_proto.v1.splits import TRAIN
from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, Manifest
from penstock_service.core.errors import DataError, InvalidRequest, NoRows, SourceChanged
from penstock_service.core.hashing import short_hash
from penstock_service.source.cut import pack
from penstock_service.source.discover import Found, FoundFile
from penstock_service.source.format import (
    ChunkLimits,
    Format,
    Piece,
    ProgressCallback,
    ScanStoppedError,
    ShardFile,
    ShardScan,
    ShardWatch,
    Watch,
)
from penstock_service.source.formats import format_of
from penstock_service.source.place import FileState, Place
from penstock_service.source.places import place_at
from penstock_service.source.schemas import ConflictError, join_schemas
from penstock_service.source.stores import DEFAULTS, Stores

_NOTES = 20


Known = Mapping[tuple[str, FileState], ShardScan]
"""What earlier scans found, by relative path and state."""


@dataclass(frozen=True)
class ScannedSplit:
    """One split: the joined schema of its shards, and how they are cut."""

    name: str
    schema: pa.Schema
    manifest: Manifest
    scans: tuple[ShardScan, ...]  # of each shard

    @property
    def content(self) -> str:
        """Stands for what the shards are called and hold."""
        columns = "\n".join(f"{field.name}: {field.type}" for field in self.schema)
        rows = zip(*(self.manifest.shards[n].to_pylist() for n in ("path", "fingerprint", "rows")), strict=True)
        return short_hash(columns, *(f"{path}\0{fingerprint}\0{count}" for path, fingerprint, count in rows))


@dataclass(frozen=True)
class Scanned:
    """What the scan of a dataset found."""

    splits: tuple[ScannedSplit, ...]  # train first, then by name; those without rows too
    notes: tuple[str, ...]  # what the owner should know: widened columns, malformed rows, files ignored
    warnings: tuple[str, ...]  # what was named and holds nothing

    @property
    def schema(self) -> pa.Schema:
        """Of the first split."""
        return self.splits[0].schema

    @property
    def manifest(self) -> Manifest:
        """Of the first split."""
        return self.splits[0].manifest


def scan(
    found: Found,
    limits: ChunkLimits | None = None,
    progress: ProgressCallback | None = None,
    threads: int | None = None,
    known: Known | None = None,
    stores: Stores = DEFAULTS,
) -> Scanned:
    """Rows, schema, fingerprints and cuts of all shards. `progress` is called by scanning threads, one at a time.

    Shards in `known` are not looked at. Raises DataError for files that are corrupt or disagree, NoRows,
    SourceUnreadable, SourceChanged.
    """
    limits = limits or ChunkLimits()
    known = known or {}
    fresh = replace(found, files=tuple(file for file in found.files if (file.path, file.state) not in known))
    place = place_at(found.root, stores)
    threads = threads or max(os.cpu_count() or 1, place.parallel)
    made = dict(zip(fresh.files, _scan_all(place, fresh, limits, progress, threads), strict=True))
    notes: list[str] = []
    warnings = list(found.warnings)
    splits = []
    for name in found.splits:
        part = found.of_split(name)
        scans = [made[file] if file in made else known[file.path, file.state] for file in part.files]
        schema, said = _one_schema(part, scans)
        notes.extend(said)
        for shard in scans:
            notes.extend(shard.notes)
        if not any(shard.rows for shard in scans):
            warnings.append(f"{found.root}: the {len(scans)} readable files of split {name} hold no rows")
        elif not schema.names:
            raise DataError(f"{found.root}: the {len(scans)} readable files hold rows, but no columns")
        splits.append(ScannedSplit(name, schema, _manifest(part, scans, limits), tuple(scans)))
    if not any(split.manifest.rows for split in splits):
        raise NoRows(f"{found.root}: the {len(found.files)} readable files hold no rows")
    if len(notes) > _NOTES:
        notes[_NOTES:] = [f"and {len(notes) - _NOTES} more such notes"]
    return Scanned(tuple(splits), (*found.notes, *notes), tuple(warnings))


def version_of(splits: Sequence[ScannedSplit]) -> str:
    """The version of a dataset: what its shards are called and hold. Where and how old they are is no part of it."""
    contents = {split.name: split.content for split in splits}
    if list(contents) == [TRAIN]:
        return contents[TRAIN]
    return short_hash(*(part for item in contents.items() for part in item))


def _scan_all(
    place: Place, found: Found, limits: ChunkLimits, progress: ProgressCallback | None, threads: int
) -> list[ShardScan]:
    if not found.files:
        return []
    watch = Watch(found.bytes, len(found.files), progress)
    pool = ThreadPoolExecutor(min(threads, len(found.files)), thread_name_prefix="scan")
    schemas: dict[bytes, pa.Schema] = {}
    try:
        futures = [pool.submit(_scan_one, place, file, limits, watch, schemas) for file in found.files]
        wait(futures, return_when=FIRST_EXCEPTION)
        _raise_first(futures)
        return [future.result() for future in futures]
    finally:
        watch.stopped = True
        pool.shutdown(wait=True, cancel_futures=True)


def _raise_first(futures: list[Future[ShardScan]]) -> None:
    for future in futures:
        if future.done():
            error = future.exception()
            if error is not None and not isinstance(error, ScanStoppedError):
                raise error


def _scan_one(
    place: Place, found: FoundFile, limits: ChunkLimits, watch: Watch, schemas: dict[bytes, pa.Schema]
) -> ShardScan:
    """`schemas`: those found so far, by their bytes: a hundred thousand files have few, and hold each of them once."""
    file = ShardFile(place, found.path, found.state)
    of_shard = ShardWatch(watch, found.state.size)
    result = _format(found.path).scan(file, limits, of_shard)
    if place.state(found.path) != found.state:
        raise SourceChanged(f"{file.full} was changed while it was scanned: register when writing has ended")
    of_shard.finish()
    if result.schema is None:
        return result
    shared = schemas.setdefault(result.schema.serialize().to_pybytes(), result.schema)
    return replace(result, schema=shared)


def _format(path: str) -> Format:
    found = format_of(path)
    if found is None:
        raise InvalidRequest(f"{path}: unknown suffix")
    return found


def _one_schema(found: Found, scans: list[ShardScan]) -> tuple[pa.Schema, list[str]]:
    """All shards' schema, joined in stored order. A conflict names both files and the column."""
    joined: pa.Schema | None = None
    last: pa.Schema | None = None
    optional = True
    since: dict[str, str] = {}  # the shard that gave each column its type
    notes: list[str] = []
    for file, shard in zip(found.files, scans, strict=True):
        schema = shard.schema
        may_lack = _format(file.path).optional_columns
        same = schema is not None and last is not None and schema.equals(last, check_metadata=True)
        if schema is None or (same and (may_lack or not optional)):
            continue
        last = schema
        if joined is None:
            joined, optional = schema, may_lack
            since = dict.fromkeys(schema.names, file.path)
            continue
        try:
            new, widened = join_schemas(joined, schema, optional, may_lack)
        except ConflictError as error:
            raise DataError(_disagreement(found, scans, file, since, error)) from error
        notes.extend(f"column {w.column!r}: {w.before} widened to {w.after} by {file.path}" for w in widened)
        for field in new:
            if field.name not in joined.names or joined.field(field.name).type != field.type:
                since[field.name] = file.path
        joined, optional = new, optional and may_lack
    return joined if joined is not None else pa.schema([]), notes


def _disagreement(
    found: Found, scans: list[ShardScan], file: FoundFile, since: dict[str, str], error: ConflictError
) -> str:
    first = found.files[0].path
    other = next((path for name, path in since.items() if error.column.startswith(name)), first)
    other = since.get(error.column, other)
    hints = [
        note
        for known, shard in zip(found.files, scans, strict=True)
        if known.path in (file.path, other)
        for note in shard.notes
        if repr(error.column) in note
    ]
    return (
        f"the files in {found.root} disagree about column {error.column!r}: "
        f"{error.expected} in {other} (expected), {error.found} in {file.path} (found)"
        + "".join(f"; {hint}" for hint in hints)
        + f". All {len(found.files)} files of a split (here {file.split}) need the same columns and types: "
        "write one of the two anew, name only the files that belong together, or register them as two datasets."
    )


def _manifest(found: Found, scans: list[ShardScan], limits: ChunkLimits) -> Manifest:
    shards = pa.table(
        {
            "path": [f.path for f in found.files],
            "format": [_format(f.path).name for f in found.files],
            "size": [f.state.size for f in found.files],
            "mtime_ns": [f.state.mtime_ns for f in found.files],
            "rows": [s.rows for s in scans],
            "fingerprint": [s.fingerprint for s in scans],
        },
        schema=SHARDS_SCHEMA,
    )
    chunks = pack([s.pieces for s in scans], limits)
    pieces = [piece for s in scans for piece in s.pieces]
    slices = pa.table(
        {
            "shard": [i for i, s in enumerate(scans) for _ in s.pieces],
            "chunk": [chunk for of_shard in chunks for chunk in of_shard],
            **{name: [getattr(piece, name) for piece in pieces] for name in Piece._fields},
        },
        schema=SLICES_SCHEMA,
    )
    return Manifest(shards, slices)
