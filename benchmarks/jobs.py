"""Does one pass serve many? One and four jobs (processes) on one stream, cold and warm.

Cold: nothing is in the chunk store, and chunks are made with a Python row transform as well as decoded. Warm: the same
stream once more. Counted are chunks made, segments built, rows/s of all jobs together, CPU-seconds of the server (with
its workers) for a GB that a job got, and what the server held at most. Every run has a server of its own; runs of one
and four jobs are interleaved. `--quick`: a quarter of the rows, once.

    python -m benchmarks.jobs --json benchmarks/results/jobs.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks import harness, watching
from benchmarks.rows import Case

BATCH = 1024
JOBS = (1, 4)

CLIENT = """
import json, os, sys, time
import penstock
target, job, rows, pool = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4])
with penstock.connect(target, job=job) as client:
    for turn in range(2):
        stream = client.stream("small", batch_size=1024, seed=1, rows=rows, output="numpy", name=f"turn-{turn}",
            pool_rows=pool, prefetch_bytes=16 << 20)
        print("ready", flush=True); sys.stdin.readline()
        got, began, cpu = 0, time.perf_counter(), time.process_time()
        for batch in stream:
            got += batch.metadata.rows
        print(json.dumps({"rows": got, "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - cpu}), flush=True)
        stream.close()
"""


def told(client: "subprocess.Popen[str]") -> str:
    assert client.stdout is not None
    return client.stdout.readline()


def go(client: "subprocess.Popen[str]") -> None:
    assert client.stdin is not None
    client.stdin.write("go\n")
    client.stdin.flush()


def run(case: Case, folder: Path, jobs: int, pool: int) -> dict[str, dict[str, Any]]:
    """Both turns of one server: cold, then warm."""
    rows = [{"python": "benchmarks.row_scaling:scale"}]
    found = {}
    flags = ("--python-modules", "benchmarks.row_scaling", "--chunk-bytes", "1MiB", "--preload", "lazy")
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=folder) as own,
        harness.server(Path(own), [folder / case.name], *flags) as (process, target),
    ):
        http = harness.http_of(Path(own))
        command = [sys.executable, "-c", CLIENT, target]
        clients = [
            subprocess.Popen(
                [*command, f"job-{n}", json.dumps(rows), str(pool)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(jobs)
        ]
        for turn in ("cold", "warm"):
            for client in clients:
                told(client)
            found[turn] = turned(case, process, http, clients)
        for client in clients:
            client.communicate(timeout=30)
    return found


def turned(case: Case, process: psutil.Process, http: str, clients: "list[subprocess.Popen[str]]") -> dict[str, Any]:
    names = ("penstock_chunks_made_total", "penstock_segments_built_total")
    before = {name: harness.metric(http, name) for name in names}
    cpu, began = harness.cpu_seconds(process), time.perf_counter()
    with watching.Memory({"server": partial(watching.held, process)}) as memory:
        for client in clients:
            go(client)
        said = [json.loads(told(client)) for client in clients]
    seconds = time.perf_counter() - began
    rows = sum(each["rows"] for each in said)
    gigabytes = rows * case.row_bytes / 1e9
    made, built = (harness.metric(http, name) - before[name] for name in names)
    return {
        "chunks_made": made,
        "segments_built": built,
        "rows_per_s": rows / seconds,
        "server_cpu_s_per_gb_and_job": (harness.cpu_seconds(process) - cpu) / gigabytes,
        "client_cpu_s_per_gb": sum(each["cpu"] for each in said) / gigabytes,
        "server_peak_mb": memory.peak("server") / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, repeats = (131_072, 1) if options.quick else (524_288, options.repeats)
    case = Case("small", rows, 16, BATCH, 64 * 4 + 12)
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        case.write(folder / case.name)
        for repeat in range(repeats):
            for jobs in JOBS:
                for turn, numbers in run(case, folder, jobs, rows // 4).items():
                    results.setdefault(f"{jobs} jobs, {turn}", []).append(numbers)
                    print(repeat, jobs, turn, numbers, file=sys.stderr)
    found = harness.report({name: harness.spread(runs) for name, runs in results.items()}, repeats)
    head = ("chunks made", "segments", "rows/s", "server CPU-s/GB/job", "client CPU-s/GB", "server MB")
    print(f"{'':14} " + " ".join(f"{name:>20}" for name in head))
    for name, numbers in found["cases"].items():
        print(f"{name:14} " + " ".join(f"{number['median']:20,.2f}" for number in numbers.values()))
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
