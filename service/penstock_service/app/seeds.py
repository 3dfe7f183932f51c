"""Seeds that the server draws, one for all ranks of a job."""

import logging
import secrets
import sqlite3
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from penstock_service.app.state_file import state_file

_CURE: Final = "remove it: jobs that left their seeds to the server, and have no state of a run, get others"

_log = logging.getLogger(__name__)


class Seeds:
    """Seeds drawn for jobs that left them to the server; written down before they take effect.

    All methods block and may be called from any thread.
    """

    def __init__(self, state_dir: Path) -> None:
        """Raises SourceUnreadable or Unavailable that names the file."""
        self._file = state_dir / "jobs.sqlite"
        self._lock = threading.Lock()
        with state_file(self._file, _CURE), ExitStack() as failed:
            self._db = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
            failed.callback(self._db.close)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS seeds"
                " (job TEXT, stream TEXT, seed INTEGER NOT NULL, PRIMARY KEY (job, stream))"
            )
            failed.pop_all()

    def of(self, job: str, stream: str) -> int:
        """The seed of a job's stream: the same for every rank, whichever asks first, and after a restart."""
        with self._lock, state_file(self._file, _CURE):
            drawn = secrets.randbits(62)
            self._db.execute("INSERT OR IGNORE INTO seeds VALUES (?, ?, ?)", (job, stream, drawn))
            row = self._db.execute("SELECT seed FROM seeds WHERE job = ? AND stream = ?", (job, stream)).fetchone()
        seed = int(row[0])
        if seed == drawn:
            _log.info("job %s, stream %s: seed %d drawn", job, stream, seed)
        return seed

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            self._db.close()
