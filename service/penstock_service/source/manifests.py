"""The manifests of a registry: found for files that are as they were, made by a scan, loaded, dropped."""

import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from penstock_proto.v1.splits import TRAIN, find_split
from penstock_service.core.dataset import DatasetVersion, Manifest, Split
from penstock_service.core.errors import DataError, NoRows, NotFound, SourceUnreadable
from penstock_service.source.discover import Found
from penstock_service.source.format import ChunkLimits, ProgressCallback, ShardScan
from penstock_service.source.formats import SEMANTICS
from penstock_service.source.manifest import load_manifest, load_scans, load_summary, same_semantics, save_splits
from penstock_service.source.place import FileState
from penstock_service.source.registry_db import Row
from penstock_service.source.required import Required, check_required
from penstock_service.source.scan import scan, version_of
from penstock_service.source.stores import Stores

log = logging.getLogger(__name__)

_ORPHAN_SECONDS = 3600
_REMEMBERED = 4  # versions whose scans are looked through


class Manifests:
    """Folders of manifests, each complete on disk before a row points to it."""

    def __init__(self, folder: Path, limits: ChunkLimits, stores: Stores) -> None:
        """Makes `folder` if it is not there. Raises SourceUnreadable."""
        self._folder = folder
        self._limits = limits
        self._stores = stores
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceUnreadable(f"state folder {folder.parent} cannot be made: {error.strerror}") from error

    def of_same_files(self, rows: Iterable[Row], found: Found) -> Row | None:
        """The one of `rows` that was made of exactly these files as they are now."""
        states = {
            split: [(f.path, f.state.size, f.state.mtime_ns) for f in found.of_split(split).files]
            for split in found.splits
        }
        for row in rows:
            folder = self._folder / row.folder
            try:
                if (
                    self._made_alike(row)
                    and [split.name for split in load_summary(folder)] == found.splits
                    and all(_states(load_manifest(folder, split)) == states[split] for split in found.splits)
                ):
                    return row
            except DataError as error:
                log.warning("%s@%s: %s", row.name, row.version, error)
        return None

    def scanned(self, found: Found, rows: Sequence[Row], progress: ProgressCallback | None) -> Row:
        """Scans what `rows` do not know already; writes a new manifest folder that no row points to yet."""
        known = self._known(found, rows)
        scanned = scan(found, self._limits, progress, known=known, stores=self._stores)
        if known:
            log.info("%s: %d of %d files were scanned before", found.root, len(known), len(found.files))
        for warning in scanned.warnings:
            log.warning("%s", warning)
        for note in scanned.notes:
            log.info("%s: %s", found.root, note)
        folder = uuid.uuid4().hex
        save_splits(scanned.splits, SEMANTICS, self._folder / folder)
        return Row(
            name="",
            version=version_of(scanned.splits),
            path="",
            root=found.root,
            schema=scanned.schema.serialize().to_pybytes(),
            folder=folder,
            chunk_rows=self._limits.rows,
            chunk_bytes=self._limits.bytes,
            description="",
            tags=(),
            notes=(*scanned.warnings, *scanned.notes),
            registered_at="",
            task="",
            metric="",
            target=(),
        )

    def check_required(self, row: Row, required: Required) -> None:
        """Raises InvalidRequest where a file lacks a column."""
        check_required(self._folder / row.folder, required)

    def drop_unused(self, used: set[str], folders: Sequence[str]) -> None:
        """Removes those of `folders` that are not `used`, also what that a crash left behind an hour ago or earlier.

        Those still mapped stay readable until they are let go.
        """
        for folder in self._folder.iterdir():
            if folder.name in used:
                continue
            try:
                age = time.time() - folder.stat().st_mtime
            except FileNotFoundError:  # another process was quicker
                continue
            if folder.name in folders or age > _ORPHAN_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def load(self, row: Row, wanted: str | None = None) -> DatasetVersion:
        folder = self._folder / row.folder
        splits = load_summary(folder)
        split = splits[0] if wanted is None else _split_of(row, splits, wanted)
        return DatasetVersion(
            name=row.name,
            version=row.version,
            root=row.root,
            schema=split.schema,
            manifest=load_manifest(folder, split.name),
            path=row.path,
            description=row.description,
            transforms=row.transforms,
            tags=row.tags,
            task=row.task,
            metric=row.metric,
            target=row.target,
            registered_at=row.registered_at,
            split=split.name,
            splits=splits,
        )

    def whole(self, row: Row) -> DatasetVersion:
        """The shards of all splits in one list, to be looked through, not to be read: they may have no one schema."""
        first = self.load(row)
        shards = pa.concat_tables(load_manifest(self._folder / row.folder, s.name).shards for s in first.splits)
        return replace(first, manifest=Manifest(shards, first.manifest.slices))

    def _made_alike(self, row: Row) -> bool:
        """Would this release scan and cut the same way? Raises DataError."""
        limits = (row.chunk_rows, row.chunk_bytes) == (self._limits.rows, self._limits.bytes)
        return limits and same_semantics(self._folder / row.folder, SEMANTICS)

    def _known(self, found: Found, rows: Sequence[Row]) -> dict[tuple[str, FileState], ShardScan]:
        """What earlier scans said of files that are as they were."""
        wanted = {(file.path, file.state) for file in found.files}
        known: dict[tuple[str, FileState], ShardScan] = {}
        for row in rows[:_REMEMBERED]:
            folder = self._folder / row.folder
            try:
                if self._made_alike(row):
                    for split in load_summary(folder):
                        for path, state, of_shard in load_scans(folder, split.name):
                            if (path, state) in wanted:
                                known.setdefault((path, state), of_shard)
            except DataError as error:
                log.warning("%s@%s: %s", row.name, row.version, error)
        return known


def _split_of(row: Row, splits: Sequence[Split], wanted: str) -> Split:
    names = [split.name for split in splits]
    name = find_split(wanted, names)
    found = next((split for split in splits if split.name == name), None)
    rows = ", ".join(f"{split.name} ({split.rows} rows)" for split in splits)
    if found is None:
        raise NotFound(
            f"dataset {row.name}@{row.version} has no split {wanted or TRAIN!r}; it has {rows}. "
            f"Ask for one of them: split={next((s.name for s in splits if s.rows), names[0])!r}"
        )
    if found.rows == 0:
        raise NoRows(f"split {found.name!r} of dataset {row.name}@{row.version} holds no rows; there are {rows}")
    return found


def _states(manifest: Manifest) -> list[tuple[str, int, int]]:
    """Path, size and mtime of each shard."""
    return list(zip(*(manifest.shards[name].to_pylist() for name in ("path", "size", "mtime_ns")), strict=True))
