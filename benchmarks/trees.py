"""CPU and memory of a process and all below it, read from /proc (Linux)."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Held:
    """Bytes, summed over the processes: `rss` counts shared pages once for each; `own` is RssAnon + RssShmem."""

    rss: int
    own: int


def members(pid: int) -> list[int]:
    """The process and all below it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        try:
            lists = [task.joinpath("children").read_text() for task in Path(f"/proc/{one}/task").iterdir()]
        except OSError:  # it has ended meanwhile
            continue
        waiting += [int(child) for line in lists for child in line.split()]
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of all of them, with those that ended and were waited for by one of them."""
    ticks = 0
    for one in members(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return ticks / TICKS


def held(pid: int) -> Held:
    sizes = {"VmRSS": 0, "RssAnon": 0, "RssShmem": 0}
    for one in members(pid):
        try:
            lines = Path(f"/proc/{one}/status").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            name, _, rest = line.partition(":")
            if name in sizes:
                sizes[name] += int(rest.split()[0]) * 1024
    return Held(sizes["VmRSS"], sizes["RssAnon"] + sizes["RssShmem"])


def pss(pid: int) -> int:
    """Bytes, each shared page divided among those that map it. Slow: it walks the page tables."""
    total = 0
    for one in members(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total
