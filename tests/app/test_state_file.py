"""What is said of files of the state folder that are damaged, or that a full disk does not take."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from penstock_service.app import badrows
from penstock_service.app.badrows import BadRows
from penstock_service.app.journal import Journals
from penstock_service.app.seeds import Seeds
from penstock_service.app.state_file import state_file
from penstock_service.core.channel import Counters
from penstock_service.core.errors import ResourceExhausted, SourceUnreadable, Unavailable
from penstock_service.core.journal import Entry, Journal, Place
from penstock_service.core.segment import Segment, SegmentSource

PAGE = 4096  # bytes


def spoil(file: Path, how: str, page: int = 0) -> None:
    """`page`: the one that is spoilt by "index", from 1."""
    held = bytearray(file.read_bytes())
    assert not file.with_name(file.name + "-wal").exists()
    if how == "half":
        del held[len(held) // 2 :]
    else:
        begin, end = {"garbage": (0, len(held)), "page": (-PAGE, None), "index": (PAGE * (page - 1), PAGE * page)}[how]
        held[begin:end] = b"\xa5" * len(held[begin:end])
    file.write_bytes(held)


def journal() -> Journal:
    return Journal("r1", (Entry("mixture", Place(0, 1), {"weights": {"a": 1, "b": 2}}),))


def fill_seeds(folder: Path) -> None:
    seeds = Seeds(folder)
    for n in range(300):
        seeds.of("job", f"stream {n}")
    seeds.close()


def fill_journals(folder: Path) -> None:
    journals = Journals(folder)
    journals.write("job", "stream", journal())
    journals.close()


def read_seeds(folder: Path) -> None:
    seeds = Seeds(folder)
    try:
        for n in range(300):
            seeds.of("job", f"stream {n}")
    finally:
        seeds.close()


def read_journals(folder: Path) -> None:
    journals = Journals(folder)
    try:
        journals.all()
    finally:
        journals.close()


@pytest.mark.parametrize("how", ["garbage", "half", "page"])
@pytest.mark.parametrize(
    ("name", "fill", "read"),
    [("jobs.sqlite", fill_seeds, read_seeds), ("journal.sqlite", fill_journals, read_journals)],
)
def test_a_damaged_file_is_named_with_the_cure(
    tmp_path: Path, name: str, how: str, fill: Callable[[Path], None], read: Callable[[Path], None]
) -> None:
    fill(tmp_path)
    spoil(tmp_path / name, how)
    with pytest.raises(SourceUnreadable, match=rf"{name} is damaged \(.*restore the file, or remove it"):
        read(tmp_path)


def test_an_entry_of_a_journal_that_is_none_is_named(tmp_path: Path) -> None:
    fill_journals(tmp_path)
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("UPDATE entries SET entry = replace(entry, 'kind', 'kinx')")
    db.close()
    with pytest.raises(SourceUnreadable, match=r"journal\.sqlite is damaged: an entry of run r1.*remove it"):
        read_journals(tmp_path)


@pytest.mark.parametrize("how", ["garbage", "half", "page", "index"])
def test_a_list_of_bad_rows_that_is_damaged_is_set_aside(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = BadRows(tmp_path, Counters())
    rows.close()
    with sqlite3.connect(tmp_path / "bad_rows.sqlite") as db:
        (index,) = db.execute("SELECT rootpage FROM sqlite_master WHERE type = 'index'").fetchone()
        line = ("job", "stream", "skip", "d@1", 1, "line", "x" * 500, "now")
        sql = "INSERT INTO bad_rows (job, stream, on_error, dataset, row, rows, where_, reason, noted_at)"
        db.executemany(f"{sql} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [(*line[:4], n, *line[4:]) for n in range(300)])
    db.close()
    spoil(tmp_path / "bad_rows.sqlite", how, index)
    with caplog.at_level(logging.WARNING):
        rows = BadRows(tmp_path, Counters())
    assert rows.list() == []
    rows.close()
    assert (tmp_path / "bad_rows.sqlite.damaged").exists()
    assert "the list of bad rows is damaged" in caplog.text


def test_a_list_of_bad_rows_that_is_not_written_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = BadRows(tmp_path, Counters())
    lines = [("d@1", n, 1, "line", "x" * 5000) for n in range(300)]
    monkeypatch.setattr(badrows, "_lines", lambda *_: lines)
    rows._db.execute("PRAGMA max_page_count = 20")  # a full disk
    segment, source = Segment(0, np.empty(0, np.uint32), np.empty(0, np.uint32), 0), cast(SegmentSource, None)
    with pytest.raises(ResourceExhausted, match=r"cannot be written \(database or disk is full\)"):
        asyncio.run(rows.note(("job", "stream", "quarantine", 0, 0, 0, 0), source, segment))
    rows._db.execute("PRAGMA max_page_count = 2000")  # there is room again: it is tried again
    asyncio.run(rows.note(("job", "stream", "quarantine", 0, 0, 0, 0), source, segment))
    assert len(rows.list()) == 300
    rows.close()


def test_a_full_disk_is_said_with_the_first_reason_and_may_be_tried_again(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    db.execute("CREATE TABLE t (text TEXT)")
    db.execute("PRAGMA max_page_count = 4")

    def write() -> None:
        with state_file(tmp_path / "x.sqlite", "remove it"):
            db.execute("BEGIN")
            try:
                db.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))
            except sqlite3.Error:
                db.execute("ROLLBACK")  # fails where SQLite has undone it already
                raise

    with pytest.raises(Unavailable, match=r"x\.sqlite could not be written .*disk is full.*Make room"):
        write()
    db.close()
    with pytest.raises(Unavailable, match="No space left"), state_file(tmp_path / "x.sqlite", "remove it"):
        raise OSError(28, "No space left on device", str(tmp_path / "manifest"))
    with pytest.raises(FileNotFoundError), state_file(tmp_path / "x.sqlite", "remove it"):
        (tmp_path / "nothing").read_bytes()
