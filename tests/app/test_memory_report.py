"""The report of a stop at the limit: whole or not there, and a word to the next start."""

import json
from pathlib import Path

import pytest

from penstock_service.app import memory_report
from penstock_service.core.holding import Holding, MemoryStatus, ProcessMemory

STATUS = MemoryStatus(
    limit=100,
    measured=120,
    rung="stop",
    read_ahead=16,
    read_ahead_most=64,
    holdings=(Holding("pools", 20, "web@v1"), Holding("slots", 70, "web@v1", "s1"), Holding("unaccounted", 30)),
    processes=(ProcessMemory(42, "server", 50, 70),),
)


def test_it_says_who_held_what_and_what_to_begin_with(tmp_path: Path) -> None:
    path = memory_report.write(tmp_path, STATUS, "why", 32)
    assert list(tmp_path.iterdir()) == [path]
    found = json.loads(path.read_text())
    assert (found["limit"], found["measured"], found["reason"]) == (100, 120, "why")
    assert list(found["stages"])[:3] == ["slots", "unaccounted", "pools"]
    assert found["holdings"][0] == {
        "stage": "slots",
        "bytes": 70,
        "dataset": "web@v1",
        "session": "s1",
        "process": 0,
    }
    assert found["processes"] == [{"pid": 42, "what": "server", "anonymous": 50, "shared": 70}]
    left = memory_report.read_ahead_after(tmp_path)
    assert left == (32, found["written_at"])


def test_a_server_that_ended_in_order_clears_the_word_and_keeps_the_report(tmp_path: Path) -> None:
    memory_report.spend(tmp_path)  # there is none
    assert list(tmp_path.iterdir()) == []
    path = memory_report.write(tmp_path, STATUS, "why", 32)
    memory_report.spend(tmp_path)
    assert memory_report.read_ahead_after(tmp_path) is None
    assert json.loads(path.read_text())["reason"] == "why"
    memory_report.write(tmp_path, STATUS, "again", 16)
    assert (memory_report.read_ahead_after(tmp_path) or (0,))[0] == 16


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"next_start": 3}', '{"next_start": {"spent": false}}'])
def test_what_is_no_report_of_ours_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / memory_report.NAME).write_text(text)
    assert memory_report.read_ahead_after(tmp_path) is None
    memory_report.spend(tmp_path)
    assert (tmp_path / memory_report.NAME).read_text() == text


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / memory_report.NAME).mkdir()
    with pytest.raises(OSError, match=memory_report.NAME):
        memory_report.write(tmp_path, STATUS, "why", 32)
    assert [path.name for path in tmp_path.iterdir()] == [memory_report.NAME]
