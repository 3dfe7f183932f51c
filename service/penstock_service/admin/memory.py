"""Memory that this process holds: anonymous and shared. Mapped files are left out, they belong to the page cache."""

from pathlib import Path

import psutil


def held_bytes(status: Path = Path("/proc/self/status")) -> dict[str, int]:
    """Bytes by kind. Where there is no /proc, all of it counts as anonymous (macOS: the unique set size)."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return {"anonymous": _unique_set(), "shared": 0}
    values = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {"anonymous": _kilobytes(values["RssAnon"]), "shared": _kilobytes(values["RssShmem"])}


def _kilobytes(text: str) -> int:
    number, unit = text.split()
    if unit != "kB":
        raise ValueError(f"/proc/self/status counts in {unit}, not kB")
    return int(number) * 1024


def _unique_set() -> int:
    return int(psutil.Process().memory_full_info().uss)
