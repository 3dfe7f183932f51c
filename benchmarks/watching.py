"""What benchmarks see of processes while they run: memory sampled in a thread, log lines of a server."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import psutil

_SEGMENT = re.compile(r"its segment was ready in ([\d.]+) s")


def held(process: psutil.Process, itself: bool = True, kinds: tuple[str, ...] = ("RssAnon:", "RssShmem:")) -> int:
    """RssAnon + RssShmem in bytes, of the process and all below it: mapped chunks belong to the page cache."""
    total = 0
    try:
        tree = [*([process] if itself else []), *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in tree:
        try:
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
        except OSError:  # it has ended meanwhile
            continue
        total += sum(int(x.split()[1]) * 1024 for x in lines if x.startswith(kinds))
    return total


class Memory:
    """Samples `readings` by name until the `with` ends: `samples` has (seconds, bytes by name)."""

    def __init__(self, readings: Mapping[str, Callable[[], int]], every: float = 0.1) -> None:
        self.samples: list[tuple[float, dict[str, int]]] = []
        self._readings = readings
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def peak(self, name: str) -> int:
        return max(sample[name] for _, sample in self.samples)

    def _run(self) -> None:
        began = time.perf_counter()
        while True:
            sample = {name: read() for name, read in self._readings.items()}
            self.samples.append((time.perf_counter() - began, sample))
            if self._stop.wait(self._every):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def messages(log: Path) -> list[str]:
    """What a server wrote into its log, without times and names."""
    found = []
    for line in log.read_text().splitlines():
        try:
            entry: dict[str, Any] = json.loads(line)
        except ValueError:  # cut off where the server is still writing
            continue
        found.append(str(entry["message"]))
    return found


def segment_seconds(log: Path) -> list[float]:
    """How long each segment took from being wanted to being there, as the server's log says."""
    return [float(m[1]) for message in messages(log) if (m := _SEGMENT.search(message))]
