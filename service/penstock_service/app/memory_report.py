"""`memory-report.json` in the state folder: who held what when the memory limit ended the server.

It also tells the next start to begin with half the look-ahead, until a server has ended as it was asked to.
"""

import contextlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from penstock_service.core.holding import MemoryStatus

NAME: Final = "memory-report.json"


def write(folder: Path, status: MemoryStatus, reason: str, next_read_ahead: int) -> Path:
    """Blocking. All or nothing of the file is there, whatever dies."""
    stages = dict(sorted(status.stages().items(), key=lambda found: -found[1]))
    report = {
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "reason": reason,
        "limit": status.limit,
        "measured": status.measured,
        "stages": stages,
        "holdings": [h._asdict() for h in sorted(status.holdings, key=lambda h: -h.bytes)],
        "processes": [p._asdict() for p in status.processes],
        "read_ahead": status.read_ahead,
        "next_start": {"read_ahead": next_read_ahead, "spent": False},
    }
    return _save(folder, report)


def read_ahead_after(folder: Path) -> tuple[int, str] | None:
    """Blocking. What the last stop at the limit left to begin with, and when that was; None where there is none."""
    report = _load(folder)
    if report is None or report["next_start"]["spent"]:
        return None
    return int(report["next_start"]["read_ahead"]), str(report["written_at"])


def spend(folder: Path) -> None:
    """Blocking. A server has ended in order: the next one begins as it is set up. The report stays."""
    report = _load(folder)
    if report is not None and not report["next_start"]["spent"]:
        report["next_start"]["spent"] = True
        _save(folder, report)


def _load(folder: Path) -> dict[str, Any] | None:
    try:
        report = json.loads((folder / NAME).read_text())
        report["next_start"]["spent"], report["next_start"]["read_ahead"], report["written_at"]
    except (OSError, ValueError, LookupError, TypeError):  # none, or none of ours
        return None
    return dict(report)


def _save(folder: Path, report: dict[str, Any]) -> Path:
    path, temporary = folder / NAME, folder / f".{NAME}.{os.getpid()}"
    try:
        with temporary.open("w") as file:
            json.dump(report, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path
