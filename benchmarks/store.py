"""What does the chunk store save? One epoch of zstd Parquet at a trainer on the same machine, four ways, interleaved:

    cold     the server starts with an empty store
    second   another job on the same stream, at the same server, right after
    warm     a new server process finds the store of the one before
    eager    a new server with an empty store, started with --preload eager

Seconds to the first batch and rows per second count from the client's first request; `ready_seconds` is what the server
took until it was ready, its interpreter included. CPU seconds are those of the server after it was ready.

    python -m benchmarks.store --repeats 5 --json benchmarks/results/store.json
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import harness
from benchmarks.first_epoch import BATCH, CLIENT, TOKENS, write_tokens


def epoch(process: psutil.Process, target: str, rows: int) -> dict[str, float]:
    cpu = harness.cpu_seconds(process)
    asked = [sys.executable, "-c", CLIENT, target, str(BATCH), str(rows // 8)]
    found: dict[str, float] = json.loads(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
    if found["rows"] != rows:
        raise SystemExit(f"{found['rows']} rows came instead of {rows}")
    return {
        "first_batch_seconds": found["first_batch_seconds"],
        "rows_per_s": rows / found["seconds"],
        "gb_per_s": rows * TOKENS * 4 / 1e9 / found["seconds"],
        "server_cpu_seconds": harness.cpu_seconds(process) - cpu,
    }


def repeat(folder: Path, data: Path, rows: int) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for cases, preload in ((("cold", "second"), "lazy"), (("warm",), "lazy"), (("eager",), "eager")):
        if cases != ("warm",):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        began = time.perf_counter()
        with harness.server(folder, [data], "--preload", preload, "--log-level", "warning") as (process, target):
            ready = time.perf_counter() - began
            for case in cases:
                found[case] = epoch(process, target, rows) | {"ready_seconds": ready}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=98_304)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        data = Path(name) / "tokens"
        rows = write_tokens(data, options.rows, 8) // (TOKENS * 4)
        for number in range(options.repeats):
            for case, found in repeat(Path(name) / "server", data, rows).items():
                results.setdefault(case, []).append(found)
            print(number, {case: round(runs[-1]["rows_per_s"]) for case, runs in results.items()}, file=sys.stderr)
    report = harness.report({name: harness.spread(runs) for name, runs in results.items()}, options.repeats)
    report["data"] = {"rows": rows, "bytes": rows * TOKENS * 4}
    print(f"{'':8} {'ready s':>8} {'first batch s':>14} {'rows/s':>10} {'GB/s':>6} {'server CPU-s':>13}")
    for name, runs in results.items():
        m = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"{name:8} {m['ready_seconds']:8.2f} {m['first_batch_seconds']:14.2f} {m['rows_per_s']:10,.0f} "
            f"{m['gb_per_s']:6.2f} {m['server_cpu_seconds']:13.2f}"
        )
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
