"""What every benchmark needs: a server of its own, CPU-seconds of a process tree, the machine, a report as JSON."""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("penstock", "grpcio", "pyarrow", "numpy", "torch")


@contextlib.contextmanager
def server(
    folder: Path, datasets: Sequence[Path], *flags: str, grpc: str = "127.0.0.1:0"
) -> Iterator[tuple[psutil.Process, str]]:
    """A server of `datasets` with its state and store in `folder`; gives its process and target."""
    command = [sys.executable, "-m", "penstock_service", "serve", *map(str, datasets), "--grpc", grpc]
    command += ["--http", "127.0.0.1:0", "--state-dir", str(folder / "state"), "--store-dir", str(folder / "store")]
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("penstock ready"):
                raise SystemExit(f"the server did not start: {(folder / 'server.log').read_text()}")
            yield psutil.Process(process.pid), line.split("grpc=")[1].split()[0]
        finally:
            process.terminate()
            process.wait(30)


def http_of(folder: Path) -> str:
    """The HTTP address of the server that has its state in `folder`."""
    return str(json.loads((folder / "state" / "server.lock").read_text())["http"])


def metric(http: str, name: str) -> float:
    """The sum of the series of a metric."""
    with urllib.request.urlopen(f"http://{http}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


def cpu_seconds(process: psutil.Process) -> float:
    times = [p.cpu_times() for p in (process, *process.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


def spread(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of every number over the runs."""
    numbers = [key for key, value in runs[0].items() if isinstance(value, (int, float))]
    return {
        key: {
            "median": statistics.median(run[key] for run in runs),
            "min": min(run[key] for run in runs),
            "max": max(run[key] for run in runs),
        }
        for key in numbers
    }


def report(cases: dict[str, Any], repeats: int) -> dict[str, Any]:
    """The results with what is needed to read them: command, date, machine, versions."""
    return {
        "command": " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "repeats": repeats,
        "machine": {
            "cpus": os.cpu_count(),
            "load_at_end": os.getloadavg(),  # over 1, 5, 15 minutes; beyond the benchmark's own few, others worked too
            "memory_bytes": psutil.virtual_memory().total,
            "platform": platform.platform(),
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "cases": cases,
    }


def save(path: Path | None, found: dict[str, Any]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=2) + "\n")
