"""The list of bad rows that streams met: written down before a policy takes effect, bounded, kept over restarts."""

import asyncio
import logging
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from penstock_service.app.state_file import is_damaged, state_file
from penstock_service.core.badrow import BadRow
from penstock_service.core.channel import Counters
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import ResourceExhausted
from penstock_service.core.segment import Segment, SegmentSource

PER_STREAM: Final = 10_000
"""Lines that are kept of one stream; more bad rows are counted only."""

_ALL: Final = 200_000  # lines of all streams; the oldest go first
_REMEMBERED: Final = 4096  # segments whose bad rows are known to be written

_log = logging.getLogger(__name__)

_CURE: Final = "remove it: only the list of what was bad is lost"

Heard = tuple[str, str, str, int, int, int, int]  # job, stream, policy, epoch, segment, its digest, bad units


class BadRows:
    """Methods that are not async block, and may be called from any thread."""

    def __init__(self, state_dir: Path, counters: Counters) -> None:
        self._counters = counters
        self._lock = threading.Lock()
        self._heard: OrderedDict[Heard, asyncio.Task[None]] = OrderedDict()
        self._file = state_dir / "bad_rows.sqlite"
        with state_file(self._file, _CURE):
            try:
                self._db = _opened(self._file)
            except sqlite3.DatabaseError as error:
                if not is_damaged(error):
                    raise
                aside = _set_aside(self._file)
                _log.warning("the list of bad rows is damaged (%s): it is now %s, and a new one begins", error, aside)
                self._db = _opened(self._file)

    def close(self) -> None:
        """May be called twice."""
        with self._lock:
            self._db.close()

    def hears_of(self, job: str, stream: str, on_error: str, segments: SegmentSource) -> "OfStream":
        return OfStream(self, (job, stream, on_error), segments)

    async def note(self, heard: Heard, segments: SegmentSource, segment: Segment) -> None:
        """Once for all ranks and replicas of a stream; each waits until it is written."""
        task = self._heard.get(heard)
        if task is None:
            self._counters.add(f"bad_rows_{heard[2]}", len(segment.bad))
            task = asyncio.get_running_loop().create_task(asyncio.to_thread(self._write, heard, segments, segment))
            self._heard[heard] = task
            if len(self._heard) > _REMEMBERED:
                self._heard.popitem(last=False)
        try:
            await asyncio.shield(task)
        except sqlite3.Error as error:
            self._heard.pop(heard, None)
            cure = f"start the server again, or {_CURE}" if is_damaged(error) else "is the disk full?"
            said = f"the list of bad rows, {self._file}, cannot be written ({error}): {cure}"
            if heard[2] == "quarantine":
                raise ResourceExhausted(said) from error
            _log.warning("%s", said)

    def list(self, job: str = "", stream: str = "", most: int = 1000) -> list[BadRow]:
        """The latest first; of a job, of a stream, or of all."""
        query = (
            "SELECT job, stream, on_error, dataset, row, rows, where_, reason, noted_at FROM bad_rows"
            " WHERE (? = '' OR job = ?) AND (? = '' OR stream = ?) ORDER BY number DESC LIMIT ?"
        )
        with self._lock, state_file(self._file, _CURE):
            found = self._db.execute(query, (job, job, stream, stream, most)).fetchall()
        return [BadRow(*line) for line in found]

    def _write(self, heard: Heard, segments: SegmentSource, segment: Segment) -> None:
        job, stream, on_error, *_ = heard
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock, suppress(sqlite3.ProgrammingError):  # closed: the server ends
            (there,) = self._db.execute(
                "SELECT count(*) FROM bad_rows WHERE job = ? AND stream = ?", (job, stream)
            ).fetchone()
            lines = [
                astuple(BadRow(job, stream, on_error, *line, now))
                for line in _lines(segments, segment, max(0, PER_STREAM - int(there)))
            ]
            self._db.execute("BEGIN")
            try:
                self._db.executemany(
                    "INSERT OR IGNORE INTO bad_rows (job, stream, on_error, dataset, row, rows, where_, reason,"
                    " noted_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    lines,
                )
                self._db.execute("DELETE FROM bad_rows WHERE number <= (SELECT max(number) FROM bad_rows) - ?", (_ALL,))
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:  # else that was undone, and failing here would hide the reason
                    self._db.execute("ROLLBACK")
                raise


class OfStream:
    """What one session's policy tells of the bad rows it meets. Implements `batch.policy.Listener`."""

    def __init__(self, rows: BadRows, who: tuple[str, str, str], segments: SegmentSource) -> None:
        self._rows = rows
        self._who = who
        self._segments = segments

    async def heard(self, epoch: int, segment: Segment) -> None:
        heard = (*self._who, epoch, segment.number, segment.digest, len(segment.bad))
        await self._rows.note(heard, self._segments, segment)


def _opened(file: Path) -> sqlite3.Connection:
    """Raises sqlite3.DatabaseError where it is damaged."""
    with ExitStack() as failed:
        db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        failed.callback(db.close)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS bad_rows (number INTEGER PRIMARY KEY, job TEXT, stream TEXT, on_error TEXT,"
            " dataset TEXT, row INTEGER, rows INTEGER, where_ TEXT, reason TEXT, noted_at TEXT,"
            " UNIQUE (job, stream, on_error, dataset, row))"
        )
        (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            damaged = sqlite3.DatabaseError(said)
            damaged.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damaged
        failed.pop_all()
    return db


def _set_aside(file: Path) -> Path:
    """Renames a database and what lies beside it; one that was set aside before gives way."""
    for ending in ("", "-wal", "-shm"):
        found = file.with_name(file.name + ending)
        if found.exists():
            found.replace(file.with_name(f"{file.name}.damaged{ending}"))
    return file.with_name(f"{file.name}.damaged")


def _lines(segments: SegmentSource, segment: Segment, most: int) -> Iterator[tuple[str, int, int, str, str]]:
    """Dataset, row, number of rows, where and why: of each row that is an error, of each chunk that cannot be had."""
    bad = segment.bad
    whole = [c for c, fault in bad.faults.items() if not isinstance(fault, ChunkInfo)]
    single = np.flatnonzero(~np.isin(bad.chunk, whole))[:most]
    chosen = bad.take(single)
    chunks: Sequence[int] = np.unique(np.concatenate([chosen.chunk, np.array(whole, np.int64)])).tolist()
    found = {}
    for part in segments.by_source(np.array(chunks, np.int64)):
        for own in part.own.tolist():
            start, end = (int(at) for at in part.dataset.manifest.chunk_start[own : own + 2])
            found[part.first + own] = (part.dataset, start, end - start)
    for c in sorted(whole)[:most]:
        dataset, start, rows = found[c]
        path, row = dataset.manifest.locate(start)
        yield dataset.reference, start, rows, f"{path}, from row {row} on", str(bad.faults[c])
    said = chosen.reasons(segments.by_source)
    for c, stored, (where, reason) in zip(chosen.chunk.tolist(), chosen.stored.tolist(), said, strict=True):
        dataset, start, _ = found[c]
        yield dataset.reference, start + stored, 1, where, reason
