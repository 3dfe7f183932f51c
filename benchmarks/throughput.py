"""How fast do batches reach a trainer on the same machine, and what do they cost?

One server process, one client process per run; rows shuffled through the pool; the chunk store and the page cache are
warm (one epoch is read first and not counted). Runs of the cases are interleaved. Prints a table and writes JSON. The
data fits the pool, or with `--pools 8` also is as much as eight pools, whose rows/s are compared within each round.

    python -m benchmarks.throughput --repeats 5 --pools 8 --json benchmarks/results/throughput.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks import harness, trees, watching
from benchmarks.rows import CASES, Case

CLIENT = """
import json, resource, sys, time
import torch, penstock
target, dataset, batch, epochs, pool = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.set_num_threads(1)
asked = time.perf_counter()
with (penstock.connect(target) as client,
      client.stream(dataset, batch_size=batch, seed=1, pool_rows=pool or None) as stream):
    it = iter(stream)
    next(it)
    first = time.perf_counter() - asked
    for _ in it: pass
    print("begin", flush=True); sys.stdin.readline()
    began, cpu = time.perf_counter(), time.process_time()
    rows = steps = size = 0
    for _ in range(epochs):
        for item in stream:
            rows += item.metadata.rows; steps += 1
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "steps": steps, "seconds": seconds, "client_cpu": time.process_time() - cpu,
        "profile": str(stream.profile()), "first_batch_s": first,
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def run(case: Case, target: str, process: psutil.Process, epochs: int, pools: int) -> dict[str, Any]:
    pool = case.rows // pools if pools > 1 else 0
    arguments = [sys.executable, "-c", CLIENT, target, case.name, *map(str, (case.batch, epochs, pool))]
    client = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdin is not None
    sides = {"server": lambda: trees.held(process.pid).own, "client": lambda: trees.held(client.pid).own}
    with watching.Memory(sides, every=0.25) as memory:
        client.stdout.readline()  # warm
        time.sleep(0.5)  # the look-ahead has filled the window: neither side works
        before = harness.cpu_seconds(process)
        client.stdin.write("go\n")
        client.stdin.flush()
        found: dict[str, Any] = json.loads(client.stdout.readline())
        after = harness.cpu_seconds(process)
    client.wait(30)
    gigabytes = found["rows"] * case.row_bytes / 1e9
    return {
        "rows_per_s": found["rows"] / found["seconds"],
        "steps_per_s": found["steps"] / found["seconds"],
        "gb_per_s": gigabytes / found["seconds"],
        "client_cpu_s_per_gb": found["client_cpu"] / gigabytes,
        "server_cpu_s_per_gb": (after - before) / gigabytes,
        "first_batch_s": found["first_batch_s"],
        "client_peak_rss": found["peak_rss"],
        "client_peak_own": memory.peak("client"),
        "server_rss": process.memory_info().rss,
        "server_peak_own": memory.peak("server"),
        "profile": found["profile"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--pools", type=int, default=1, help="above 1: also with a pool of rows / POOLS")
    parser.add_argument("--share", type=int, default=1, help="take only a share-th of the rows")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = [case.part(options.share) for case in CASES]
    runs = {case.name: (case, 1) for case in cases}
    if options.pools > 1:
        runs |= {f"{case.name}, {options.pools} pools": (case, options.pools) for case in cases}
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as place:
        folder = Path(place)
        for case in cases:
            case.write(folder / case.name)
        with harness.server(folder, [folder / case.name for case in cases]) as (process, target):
            for repeat in range(options.repeats):
                for name, (case, pools) in runs.items():
                    found = run(case, target, process, options.epochs, pools)
                    if pools > 1:
                        found["of_one_pool"] = found["rows_per_s"] / results[case.name][-1]["rows_per_s"]
                    results[name].append(found)
                    print(repeat, name, found["profile"], file=sys.stderr)
    report = harness.report({name: harness.spread(laps) for name, laps in results.items()}, options.repeats)
    report["rows"] = {case.name: case.rows for case in cases}
    print(
        f"{'case':16} {'rows/s':>11} {'of one':>6} {'GB/s':>6} {'client CPU-s/GB':>16} {'server CPU-s/GB':>16} "
        f"{'first batch s':>14} {'client peak MB':>15} {'server peak MB':>15}"
    )
    for name, spread in report["cases"].items():
        m = {k: v["median"] for k, v in spread.items()}
        print(
            f"{name:16} {m['rows_per_s']:11,.0f} {m.get('of_one_pool', 1):6.2f} {m['gb_per_s']:6.2f} "
            f"{m['client_cpu_s_per_gb']:16.2f} {m['server_cpu_s_per_gb']:16.2f} {m['first_batch_s']:14.3f} "
            f"{m['client_peak_own'] / 1e6:15.0f} {m['server_peak_own'] / 1e6:15.0f}"
        )
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
