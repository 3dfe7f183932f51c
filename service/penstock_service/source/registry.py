"""The registry: names for fixed lists of shards, kept in the state folder."""

import logging
import re
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration, check_task
from penstock_service.core.errors import DataError, InvalidRequest, NotFound, ServiceError
from penstock_service.core.nearest import nearest
from penstock_service.source.discover import discover
from penstock_service.source.format import ChunkLimits, ProgressCallback
from penstock_service.source.manifests import Manifests
from penstock_service.source.registry_db import RegistryDb, Row
from penstock_service.source.stores import Stores

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAMED = 3
_NOTHING_SAID = Declaration()


class Registered(NamedTuple):
    """The newest version of a name, and the path it was registered from."""

    version: str
    path: str


Versions = list[DatasetVersion]


class Registry:
    """Datasets by name. All methods block and may be called from any thread.

    Crash-safe: a manifest is complete on disk before the row that points to it, and SQLite commits rows.
    """

    def __init__(self, state_dir: str | Path, limits: ChunkLimits | None = None, stores: Stores | None = None) -> None:
        """Opens or makes the registry under `state_dir`. Raises SourceUnreadable."""
        self._limits = limits or ChunkLimits()
        self._stores = stores or Stores()
        self._manifests = Manifests(Path(state_dir) / "manifests", self._limits, self._stores)
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
        found = discover(paths, self._stores)
        path = ", ".join(paths)
        with self._lock:
            # not all at the root: a folder may hold thousands of datasets
            earlier = [row for row in self._db.at_root(found.root) if name == row.name or path == row.path]
            row = self._manifests.of_same_files(earlier, found)
            if row is not None:
                return self._commit(row, name, path, said)
        row = self._manifests.scanned(found, earlier, progress)  # takes long: others may use the registry meanwhile
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
            return self._manifests.load(self._find(name), split)

    def whole(self, name: str) -> DatasetVersion:
        """The shards of all splits in one list, to be looked through, not to be read: they may have no one schema."""
        with self._lock:
            return self._manifests.whole(self._find(name))

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
        found = self._manifests.load(replace(row, name=name, path=path))
        self._manifests.check_required(row, said.required or {})
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
            transforms=said.transforms or "",
            registered_at=same.registered_at if same else datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if row != before:  # a look at what has not changed writes nothing
            replaced = self._db.put(row)
            self._drop_unused([replaced] if replaced else [])
        return self._manifests.load(row)

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

    def _drop_unused(self, folders: Sequence[str]) -> None:
        self._manifests.drop_unused(self._db.folders(), folders)

    def _loaded(self, rows: Iterable[Row]) -> Versions:
        """A manifest that was lost costs its dataset only: asked for by name, that says what to do."""
        found = []
        for row in rows:
            try:
                found.append(self._manifests.load(row))
            except DataError as error:
                log.warning("%s@%s is not listed: %s", row.name, row.version, error)
        return found


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
