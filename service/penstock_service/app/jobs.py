"""What the ranks of one job must have in common: the seed that was drawn for them, and what they ask for."""

import logging
import secrets
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from penstock_service.core.errors import InvalidRequest

_log = logging.getLogger(__name__)


class Seeds:
    """Seeds drawn for jobs that left them to the server; written down before they take effect.

    All methods block and may be called from any thread.
    """

    def __init__(self, state_dir: Path) -> None:
        self._db = sqlite3.connect(state_dir / "jobs.sqlite", check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS seeds (job TEXT, stream TEXT, seed INTEGER NOT NULL, PRIMARY KEY (job, stream))"
        )

    def of(self, job: str, stream: str) -> int:
        """The seed of a job's stream: the same for every rank, whichever asks first, and after a restart."""
        with self._lock:
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


@dataclass(frozen=True)
class Claim:
    """What one rank asks for, and from where on."""

    rank: int
    replica: int
    position: tuple[int, int, int]  # epoch, segment, units taken
    facts: tuple[tuple[str, object], ...]  # what must be the same for all ranks that begin there; None: anything


class Agreement:
    """Claims of live sessions. Ranks of one job that begin at one position must ask for the same."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], dict[int, Claim]] = {}
        self._next = 0

    def join(self, job: str, stream: str, claim: Claim) -> int:
        """Enter a claim; gives the ticket to leave with.

        Raises:
            InvalidRequest: another rank of the job begins there too and asks for something else.
        """
        others = self._claims.setdefault((job, stream), {})
        for other in others.values():
            if (other.rank, other.replica) == (claim.rank, claim.replica) or other.position != claim.position:
                continue
            differing = [
                f"{name}: rank {claim.rank} asks for {mine}, rank {other.rank} for {theirs}"
                for (name, mine), (_, theirs) in zip(claim.facts, other.facts, strict=True)
                if mine != theirs and None not in (mine, theirs)
            ]
            if differing:
                raise InvalidRequest(
                    f"the ranks of job {job!r} disagree on stream {stream!r}; {'; '.join(differing)}. "
                    "All ranks must ask for the same at every step"
                )
        self._next += 1
        others[self._next] = claim
        return self._next

    def leave(self, job: str, stream: str, ticket: int) -> None:
        """May be called twice."""
        claims = self._claims.get((job, stream), {})
        claims.pop(ticket, None)
        if not claims:
            self._claims.pop((job, stream), None)
