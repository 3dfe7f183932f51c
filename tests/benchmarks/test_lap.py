import time
from pathlib import Path

import psutil
import pytest

from benchmarks.entrants import Entrant
from benchmarks.lap import Failed, Lap

NOBODY = Entrant("nobody", "nobody", None)


def script(folder: Path, text: str) -> Path:
    """Something that stands in for the interpreter of a peer."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def gone(pid: int, seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
    return False


def test_one_that_says_nothing_is_stopped_with_what_it_started(tmp_path: Path) -> None:
    python = script(tmp_path, f"sleep 600 & echo $! > {tmp_path}/child\nmv {tmp_path}/child {tmp_path}/started\nwait")
    with pytest.raises(Failed, match="said nothing for 5 s"), Lap(NOBODY, python, tmp_path / "log", {}) as lap:
        lap.answer(5)
    assert gone(int((tmp_path / "started").read_text()))
    assert gone(lap.process.pid)


def test_one_that_dies_is_quoted(tmp_path: Path) -> None:
    python = script(tmp_path, "echo first >&2; echo no disk left >&2; exit 7")
    with Lap(NOBODY, python, tmp_path / "log", {}) as lap, pytest.raises(Failed, match="ended with 7: no disk left"):
        lap.answer(60)


def test_what_it_says_of_an_error_is_the_error(tmp_path: Path) -> None:
    python = script(tmp_path, """echo '{"error": "ValueError: no such rows"}'""")
    with Lap(NOBODY, python, tmp_path / "log", {}) as lap, pytest.raises(Failed, match=r"^ValueError: no such rows$"):
        lap.answer(60)


def test_an_answer_may_come_in_pieces(tmp_path: Path) -> None:
    python = script(tmp_path, """printf '{"rows"'; read line; printf ': 3}\\n'""")
    with Lap(NOBODY, python, tmp_path / "log", {}) as lap:
        lap.go()
        assert lap.answer(60) == {"rows": 3}
    assert lap.process.returncode == 0
    assert not (tmp_path / "log").read_text()
