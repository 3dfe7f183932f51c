"""Journals of runs in the state folder: written down, whole, before they take effect."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock

from penstock_service.app.state_file import state_file
from penstock_service.core.errors import SourceUnreadable
from penstock_service.core.journal import Entry, Journal

Passing = Callable[[str], None]
"""Told of each point of a write as it is passed; a test ends the process there."""

_CURE = "remove it: then a state that carries the entries will do"
_LAYOUT = 1  # PRAGMA user_version
_TABLES = (
    """
CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    job TEXT NOT NULL,
    stream TEXT NOT NULL,
    began TEXT NOT NULL              -- ISO 8601, UTC: when its first entry was written here
) STRICT
""",
    """
CREATE TABLE entries (
    run TEXT NOT NULL,
    n INTEGER NOT NULL,              -- 0, 1, 2, ...
    entry TEXT NOT NULL,             -- JSON
    head TEXT NOT NULL,              -- of the chain that ends here
    PRIMARY KEY (run, n)
) STRICT
""",
)


@dataclass(frozen=True)
class Kept:
    """A run as the state folder has it."""

    job: str
    stream: str
    journal: Journal


class Journals:
    """The journals of all runs that have entries. All methods block and may be called from any thread."""

    def __init__(self, state_dir: Path, passing: Passing = lambda point: None) -> None:
        self._file = state_dir / "journal.sqlite"
        self._passing = passing
        self._lock = Lock()
        with state_file(self._file, _CURE), ExitStack() as failed:
            self._db = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None, timeout=10)
            failed.callback(self._db.close)
            self._prepare()
            failed.pop_all()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (layout,) = self._db.execute("PRAGMA user_version").fetchone()
        if layout > _LAYOUT:
            raise SourceUnreadable(
                f"the journal {self._file} has layout {layout}, this release knows {_LAYOUT}: use the newer release"
            )
        if layout < _LAYOUT:
            with self._transaction():
                for table in _TABLES:
                    self._db.execute(table)
                self._db.execute(f"PRAGMA user_version = {_LAYOUT}")

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            self._db.close()

    def of(self, run: str) -> Kept | None:
        """None: the run has no entries here."""
        with self._lock, state_file(self._file, _CURE):
            found = self._read("WHERE id = ?", run)
        return found[0] if found else None

    def all(self) -> list[Kept]:
        """Every run that has entries, the newest last."""
        with self._lock, state_file(self._file, _CURE):
            return self._read("ORDER BY began, id")

    def write(self, job: str, stream: str, journal: Journal) -> None:
        """Write down the entries of `journal` that are not there yet: all of them or none.

        Raises:
            Unavailable: the disk would not take them; nothing has changed.
        """
        with self._lock, state_file(self._file, _CURE, writes=True):
            self._write(job, stream, journal)

    def _write(self, job: str, stream: str, journal: Journal) -> None:
        self._passing("before begin")
        with self._transaction():
            self._passing("after begin")
            began = datetime.now(UTC).isoformat(timespec="seconds")
            self._db.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", (journal.run, job, stream, began))
            self._passing("after the run")
            (there,) = self._db.execute("SELECT count(*) FROM entries WHERE run = ?", (journal.run,)).fetchone()
            for n in range(there, len(journal.entries)):
                head = journal.first(n + 1, journal.run).head
                values = (journal.run, n, journal.entries[n].text(), head)
                self._db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", values)
            self._passing("before commit")
        self._passing("after commit")

    def _read(self, where: str, *values: str) -> list[Kept]:
        runs: Sequence[tuple[str, str, str]] = self._db.execute(
            f"SELECT id, job, stream FROM runs {where}",  # noqa: S608  the clauses are ours
            values,
        ).fetchall()
        return [Kept(job, stream, self._journal(run)) for run, job, stream in runs]

    def _journal(self, run: str) -> Journal:
        found = self._db.execute("SELECT entry, head FROM entries WHERE run = ? ORDER BY n", (run,)).fetchall()
        try:
            journal = Journal(run, tuple(Entry.from_json(json.loads(entry)) for entry, _ in found))
        except (ValueError, KeyError, TypeError) as error:
            raise SourceUnreadable(
                f"the journal {self._file} is damaged: an entry of run {run} cannot be read ({error!r}). "
                f"Stop the server and restore the file, or {_CURE}"
            ) from error
        if found and journal.head != found[-1][1]:
            raise SourceUnreadable(
                f"the journal {self._file} is damaged: the {len(found)} entries of run {run} have head "
                f"{journal.head}, written was {found[-1][1]}. Stop the server and restore the "
                f"file, or {_CURE}"
            )
        return journal

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:  # also on Ctrl-C nothing may be left half done
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
