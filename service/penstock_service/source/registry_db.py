"""The registry's table in SQLite: one row per dataset version."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any

from penstock_service.core.errors import SourceUnreadable

_MIGRATIONS = (  # the n-th leads from layout n to n + 1: never edited, only added to
    (
        """
CREATE TABLE versions (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    seq INTEGER NOT NULL,            -- the newest of a name is the one that a bare name means
    path TEXT NOT NULL,              -- as the user gave it
    root TEXT NOT NULL,
    schema BLOB NOT NULL,            -- Arrow IPC schema message
    folder TEXT NOT NULL,            -- of the manifest, under the registry's own
    chunk_rows INTEGER NOT NULL,
    chunk_bytes INTEGER NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,              -- JSON list
    notes TEXT NOT NULL,             -- JSON list
    registered_at TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT
""",
    ),
    (
        "ALTER TABLE versions ADD COLUMN task TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE versions ADD COLUMN metric TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE versions ADD COLUMN target TEXT NOT NULL DEFAULT '[]'",  # JSON list
    ),
    ("ALTER TABLE versions ADD COLUMN transforms TEXT NOT NULL DEFAULT ''",),  # JSON list, or empty
)
_LAYOUT = len(_MIGRATIONS)  # PRAGMA user_version


@dataclass(frozen=True)
class Row:
    """A dataset version as the table holds it."""

    name: str
    version: str
    path: str
    root: str
    schema: bytes
    folder: str
    chunk_rows: int
    chunk_bytes: int
    description: str
    tags: tuple[str, ...]
    notes: tuple[str, ...]
    registered_at: str
    task: str
    metric: str
    target: tuple[str, ...]
    transforms: str = ""


_LISTS = ("tags", "notes", "target")  # kept as JSON
_COLUMNS = tuple(Row.__dataclass_fields__)
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM versions"  # noqa: S608  the names are ours


class RegistryDb:
    """Reads and writes rows; each call is one transaction. May be used by many threads."""

    def __init__(self, file: Path) -> None:
        self._lock = Lock()
        try:
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=10)
            try:
                self._prepare(file)
            except BaseException:  # whatever it was, the file would stay open
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise SourceUnreadable(
                f"the registry {file} cannot be opened ({error}): check the state folder, its permissions and disk"
            ) from error

    def _prepare(self, file: Path) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction() as db:
            (layout,) = db.execute("PRAGMA user_version").fetchone()
            if layout > _LAYOUT:
                raise SourceUnreadable(
                    f"the registry {file} has layout {layout}, this release knows {_LAYOUT}: use the newer release"
                )
            if layout < _LAYOUT:
                for statement in chain.from_iterable(_MIGRATIONS[layout:]):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_LAYOUT}")

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def put(self, row: Row) -> str | None:
        """Makes `row` the newest of its name; gives the manifest folder that it replaced, if it did."""
        values = [_encoded(getattr(row, column)) for column in _COLUMNS]
        marks = ", ".join("?" * len(_COLUMNS))
        with self._transaction() as db:
            old = db.execute(
                "SELECT folder FROM versions WHERE name = ? AND version = ?", (row.name, row.version)
            ).fetchone()
            db.execute(
                f"INSERT OR REPLACE INTO versions ({', '.join(_COLUMNS)}, seq) "  # noqa: S608  the names are ours
                f"VALUES ({marks}, (SELECT coalesce(max(seq), 0) + 1 FROM versions))",
                values,
            )
        return old[0] if old and old[0] != row.folder else None

    def newest(self) -> list[Row]:
        """The newest version of each name, by name."""
        where = "WHERE seq IN (SELECT max(seq) FROM versions GROUP BY name) ORDER BY name"
        return self._rows(where)

    def versions(self, name: str) -> list[Row]:
        """All versions of a name, the newest first."""
        return self._rows("WHERE name = ? ORDER BY seq DESC", name)

    def at_root(self, root: str) -> list[Row]:
        return self._rows("WHERE root = ? ORDER BY seq DESC", root)

    def delete(self, name: str, version: str | None) -> list[str]:
        """Removes one version or all of a name; gives the manifest folders they had."""
        where, values = ("name = ? AND version = ?", (name, version)) if version else ("name = ?", (name,))
        with self._transaction() as db:
            found = db.execute(f"DELETE FROM versions WHERE {where} RETURNING folder", values).fetchall()  # noqa: S608
        return [folder for (folder,) in found]

    def folders(self) -> set[str]:
        with self._lock, closing(self._db.cursor()) as cursor:
            return {folder for (folder,) in cursor.execute("SELECT folder FROM versions")}

    def _rows(self, where: str, *values: str) -> list[Row]:
        with self._lock, closing(self._db.cursor()) as cursor:
            found = cursor.execute(f"{_SELECT} {where}", values).fetchall()
        return [_decoded(values) for values in found]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with self._lock, closing(self._db.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
            except BaseException:  # also on Ctrl-C nothing may be left half done
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")


def _encoded(value: object) -> object:
    return json.dumps(value) if isinstance(value, tuple) else value


def _decoded(values: tuple[Any, ...]) -> Row:
    fields = dict(zip(_COLUMNS, values, strict=True))
    return Row(**{**fields, **{name: tuple(json.loads(fields[name])) for name in _LISTS}})
