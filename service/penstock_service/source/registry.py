"""The registry: names for fixed lists of shards, kept in the state folder."""

import logging
import re
import shutil
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from penstock_service.core.dataset import TRAIN, DatasetVersion, Manifest, Split
from penstock_service.core.declaration import Declaration, check_task
from penstock_service.core.errors import DataError, InvalidRequest, NoRows, NotFound, ServiceError, SourceUnreadable
from penstock_service.core.nearest import nearest
from penstock_service.source.discover import Found, discover
from penstock_service.source.format import ChunkLimits, ProgressCallback, ShardScan
from penstock_service.source.formats import SEMANTICS
from penstock_service.source.manifest import load_manifest, load_scans, load_summary, same_semantics, save_splits
from penstock_service.source.place import FileState
from penstock_service.source.registry_db import RegistryDb, Row
from penstock_service.source.required import check_required
from penstock_service.source.scan import scan, version_of
from penstock_service.source.splits import find_split

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAMED = 3
_ORPHAN_SECONDS = 3600
_REMEMBERED = 4  # versions whose scans are looked through
_NOTHING_SAID = Declaration()


class Registered(NamedTuple):
    """The newest version of a name, and the path it was registered from."""

    version: str
    path: str


Versions = list[DatasetVersion]
Rows = list[Row]


class Registry:
    """Datasets by name. All methods block and may be called from any thread.

    Crash-safe: a manifest is complete on disk before the row that points to it, and SQLite commits rows.
    """

    def __init__(self, state_dir: str | Path, limits: ChunkLimits | None = None) -> None:
        """Opens or makes the registry under `state_dir`. Raises SourceUnreadable."""
        self._limits = limits or ChunkLimits()
        self._manifests = Path(state_dir) / "manifests"
        try:
            self._manifests.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceUnreadable(f"state folder {state_dir} cannot be made: {error.strerror}") from error
        self._db = RegistryDb(Path(state_dir) / "registry.sqlite")
        self._lock = threading.RLock()  # between finding a row and loading its manifest, nobody removes it

    def close(self) -> None:
        """May be called twice."""
        self._db.close()

    def register(
        self,
        name: str,
        path: str | Sequence[str],
        said: Declaration = _NOTHING_SAID,
        *,
        progress: ProgressCallback | None = None,
    ) -> DatasetVersion:
        """Makes what `path` (or several) holds now the newest version of `name`; gives its first split.

        The same content is the same version. Files are scanned only if one of them, or the limits, differ from what a
        manifest holds, and then only those. What is not said stays as it was in the version before. Raises
        InvalidRequest (also where something else was declared than is found), DataError, SourceUnreadable,
        SourceChanged.
        """
        check_name(name)
        paths = (path,) if isinstance(path, str) else tuple(path)
        found = discover(*paths)
        path = ", ".join(paths)
        with self._lock:
            row = self._same_files(found, name, path)
            if row is not None:
                return self._commit(row, name, path, said)
            known = self._known(found, name, path)
        row = self._scanned(found, progress, known)  # takes long: others may use the registry meanwhile
        with self._lock:
            try:
                return self._commit(row, name, path, said)
            except ServiceError:
                self._drop_unused([row.folder])
                raise

    def get(self, name: str, split: str | None = None) -> DatasetVersion:
        """The newest version of a dataset, or the one that `name@version` pins (the first digits of it will do).

        Of its splits the one that `split` means; None: train, or the first one.

        Raises NotFound that names the nearest names, or the splits that there are; NoRows for a split without rows.
        """
        with self._lock:
            return self._load(self._find(name), split)

    def whole(self, name: str) -> DatasetVersion:
        """The shards of all splits in one list, to be looked through, not to be read: they may have no one schema."""
        with self._lock:
            row = self._find(name)
            first = self._load(row)
            folder = self._manifests / row.folder
            shards = pa.concat_tables(load_manifest(folder, split.name).shards for split in first.splits)
        return replace(first, manifest=Manifest(shards, first.manifest.slices))

    def list(self) -> Versions:
        """The newest version of each dataset, by name."""
        with self._lock:
            return self._loaded(self._db.newest())

    def search(self, text: str = "", task: str = "", tag: str = "") -> Versions:
        """Datasets that hold `text` (in any case), are of the task type `task` and have the tag `tag`.

        Text is looked for in name, description, tags, task, metric and the names of columns. Raises InvalidRequest.
        """
        check_task(task)
        wanted = text.casefold()

        def has_all(row: Row) -> bool:
            columns = pa.ipc.read_schema(pa.py_buffer(row.schema)).names
            words = " ".join((row.name, row.description, *row.tags, row.task, row.metric, *columns)).casefold()
            return wanted in words and task in ("", row.task) and (not tag or tag in row.tags)

        with self._lock:
            return self._loaded(row for row in self._db.newest() if has_all(row))

    def versions(self, name: str) -> Versions:
        """All versions of a dataset, the newest first. Raises NotFound."""
        bare = name.partition("@")[0]
        with self._lock:
            self._find(bare)
            return self._loaded(self._db.versions(bare))

    def newest(self) -> dict[str, Registered]:
        """Where each name's newest version is, without loading it."""
        return {row.name: Registered(row.version, row.path) for row in self._db.newest()}

    def notes(self, name: str) -> tuple[str, ...]:
        """What the scan found worth saying: widened columns, malformed rows, files read once or ignored."""
        return self._find(name).notes

    def remove(self, name: str) -> int:
        """Forgets a dataset, or the one version of `name@version`; files stay. Gives how many versions went."""
        with self._lock:
            row = self._find(name)
            folders = self._db.delete(row.name, row.version if "@" in name else None)
            self._drop_unused(folders)
        return len(folders)

    def _commit(self, row: Row, name: str, path: str, said: Declaration) -> DatasetVersion:
        """Points `name` to the manifest of `row`, if that is what is said of it."""
        known = self._db.versions(name)
        same = next((old for old in known if old.version == row.version), None)
        before = known[0] if known else None
        found = self._load(replace(row, name=name, path=path))
        check_required(self._manifests / row.folder, said.required or {})
        said = said.over(_kept(before, found.schema.names))
        said.check(f"{name} ({path})", found.schema, found.manifest.rows)
        row = replace(
            row,
            name=name,
            path=path,
            description=said.description or "",
            tags=said.tags or (),
            task=said.task or "",
            metric=said.metric or "",
            target=said.target or (),
            registered_at=same.registered_at if same else datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if row != before:  # a look at what has not changed writes nothing
            replaced = self._db.put(row)
            self._drop_unused([replaced] if replaced else [])
        return self._load(row)

    def _find(self, name: str) -> Row:
        bare, at, version = name.partition("@")
        rows = self._db.versions(bare)
        if not rows:
            raise NotFound(self._no_such(bare))
        if not at:
            return rows[0]
        matching = [row for row in rows if version and row.version.startswith(version)]
        if len(matching) != 1:
            what = "no version" if not matching else f"{len(matching)} versions that begin with"
            shown = ", ".join(row.version for row in rows[:_NAMED])
            raise NotFound(f"dataset {bare!r} has {what} {version!r}. It has {len(rows)}, the newest first: {shown}")
        return matching[0]

    def _no_such(self, name: str) -> str:
        names = [row.name for row in self._db.newest()]
        if not names:
            return f"no dataset {name!r}: none is registered yet. Register one: penstock serve NAME=PATH"
        near = nearest(name, names, most=_NAMED)
        hint = (
            f"Did you mean {' or '.join(near)}?"
            if near
            else f"There are {', '.join(names[:_NAMED])}" + (" ..." if len(names) > _NAMED else ".")
        )
        return f"no dataset {name!r} among the {len(names)} registered. {hint}"

    def _same_files(self, found: Found, name: str, path: str) -> Row | None:
        """A version of this name or path that was made of exactly these files as they are now."""
        wanted = {split: found.of_split(split).files for split in found.splits}
        states = {split: [(f.path, f.state.size, f.state.mtime_ns) for f in files] for split, files in wanted.items()}
        for row in self._made_alike(found.root, name, path):
            folder = self._manifests / row.folder
            if [split.name for split in load_summary(folder)] == found.splits and all(
                _states(load_manifest(folder, split)) == states[split] for split in found.splits
            ):
                return row
        return None

    def _known(self, found: Found, name: str, path: str) -> dict[tuple[str, FileState], ShardScan]:
        """What earlier scans said of files that are as they were."""
        wanted = {(file.path, file.state) for file in found.files}
        known: dict[tuple[str, FileState], ShardScan] = {}
        for row in self._made_alike(found.root, name, path)[:_REMEMBERED]:
            folder = self._manifests / row.folder
            for split in load_summary(folder):
                for path, state, of_shard in load_scans(folder, split.name):
                    if (path, state) in wanted:
                        known.setdefault((path, state), of_shard)
        return known

    def _made_alike(self, root: str, name: str, path: str) -> Rows:
        """Versions of this name or path that this release would scan and cut the same way, the newest first.

        Not all at the root: a folder may hold thousands of datasets.
        """
        alike = []
        for row in self._db.at_root(root):
            if name != row.name and path != row.path:
                continue
            if (row.chunk_rows, row.chunk_bytes) != (self._limits.rows, self._limits.bytes):
                continue
            try:
                if same_semantics(self._manifests / row.folder, SEMANTICS):
                    alike.append(row)
            except DataError as error:
                log.warning("%s@%s: %s", row.name, row.version, error)
        return alike

    def _scanned(
        self, found: Found, progress: ProgressCallback | None, known: Mapping[tuple[str, FileState], ShardScan]
    ) -> Row:
        """Scans; writes a new manifest folder that no row points to yet."""
        scanned = scan(found, self._limits, progress, known=known)
        if known:
            log.info("%s: %d of %d files were scanned before", found.root, len(known), len(found.files))
        for warning in scanned.warnings:
            log.warning("%s", warning)
        for note in scanned.notes:
            log.info("%s: %s", found.root, note)
        folder = uuid.uuid4().hex
        save_splits(scanned.splits, SEMANTICS, self._manifests / folder)
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

    def _drop_unused(self, folders: Sequence[str]) -> None:
        """Removes manifests that no version needs, also those that a crash left behind an hour ago or earlier.

        Those still mapped stay readable until they are let go.
        """
        used = self._db.folders()
        for folder in self._manifests.iterdir():
            if folder.name in used:
                continue
            try:
                age = time.time() - folder.stat().st_mtime
            except FileNotFoundError:  # another process was quicker
                continue
            if folder.name in folders or age > _ORPHAN_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)

    def _loaded(self, rows: Iterable[Row]) -> Versions:
        """A manifest that was lost costs its dataset only: asked for by name, that says what to do."""
        found = []
        for row in rows:
            try:
                found.append(self._load(row))
            except DataError as error:
                log.warning("%s@%s is not listed: %s", row.name, row.version, error)
        return found

    def _load(self, row: Row, wanted: str | None = None) -> DatasetVersion:
        folder = self._manifests / row.folder
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
            tags=row.tags,
            task=row.task,
            metric=row.metric,
            target=row.target,
            registered_at=row.registered_at,
            split=split.name,
            splits=splits,
        )


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


def _kept(before: Row | None, columns: Sequence[str]) -> Declaration:
    """What was said of the version before, as far as it can be true of these columns."""
    if before is None:
        return _NOTHING_SAID
    if lost := [column for column in before.target if column not in columns]:
        log.warning("%s: target %s is no column any more and is forgotten", before.name, ", ".join(lost))
    return Declaration(
        description=before.description,
        task=before.task,
        tags=before.tags,
        metric=before.metric,
        target=tuple(column for column in before.target if column in columns),
    )


def check_name(name: str) -> None:
    """Raises InvalidRequest where `name` cannot be a dataset's."""
    if not _NAME.fullmatch(name):
        raise InvalidRequest(
            f"dataset name {name!r}: 1 to 128 letters (A-Z, a-z), digits, '.', '_' or '-', the first a letter or digit"
        )
