"""Memory that a process holds: anonymous and shared. Mapped files are left out, they belong to the page cache."""

from pathlib import Path

import psutil


def held_bytes(status: Path = Path("/proc/self/status"), pid: int | None = None) -> dict[str, int]:
    """Bytes by kind. Where there is no /proc, all of it counts as anonymous (macOS: the unique set size)."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return {"anonymous": _unique_set(pid), "shared": 0}
    values = dict(line.split(":", 1) for line in lines if line.startswith("Rss"))
    return {"anonymous": _kilobytes(values.get("RssAnon")), "shared": _kilobytes(values.get("RssShmem"))}


def held_by(pid: int) -> dict[str, int]:
    """The same of another process; nothing of one that has ended."""
    return held_bytes(Path(f"/proc/{pid}/status"), pid)


def _kilobytes(text: str | None) -> int:
    if text is None:  # a process that has ended, and that nobody has waited for
        return 0
    number, unit = text.split()
    if unit != "kB":
        raise ValueError(f"/proc/self/status counts in {unit}, not kB")
    return int(number) * 1024


def _unique_set(pid: int | None) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.NoSuchProcess:
        return 0
