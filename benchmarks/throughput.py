"""How fast do batches reach a trainer on the same machine, and what do they cost?

One server process, one client process per run; rows shuffled through the pool; the chunk store and the page cache are
warm (one epoch is read first and not counted). Runs of the cases are interleaved. Prints a table and writes JSON.

    python -m benchmarks.throughput --repeats 5 --json benchmarks/results/throughput.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import harness


@dataclass(frozen=True)
class Case:
    """Rows of one shape."""

    name: str
    rows: int
    shards: int
    batch: int
    row_bytes: int

    def table(self, first: int, rows: int, rng: np.random.Generator) -> pa.Table:
        ids = pa.array(np.arange(first, first + rows))
        if self.name == "tokens":
            tokens = rng.integers(0, 50_000, rows * 2048, dtype=np.int32)
            return pa.table({"tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), 2048)})
        label = pa.array(rng.integers(0, 10, rows, dtype=np.int32))
        if self.name == "tiny":
            values = rng.random(rows * 24, dtype=np.float32)
            return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(values), 24), "label": label})
        values = rng.random(rows * 64, dtype=np.float32)
        return pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(values), 64), "id": ids, "label": label})

    def write(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        folder.mkdir()
        each = self.rows // self.shards
        for shard in range(self.shards):
            table = self.table(shard * each, each, rng)
            pq.write_table(table, folder / f"{shard:05}.parquet", compression="none", use_dictionary=False)


CASES = (
    Case("tokens", 65_536, 16, 32, 2048 * 4),
    Case("small", 1_048_576, 16, 4096, 64 * 4 + 12),
    Case("tiny", 1_048_576, 16, 8, 24 * 4 + 4),
)

CLIENT = """
import json, resource, sys, time
import torch, penstock
target, dataset, batch, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
with penstock.connect(target) as client, client.stream(dataset, batch_size=batch, seed=1) as stream:
    it = iter(stream)
    next(it)
    for _ in it: pass
    began, cpu = time.perf_counter(), time.process_time()
    print("begin", flush=True); sys.stdin.readline()
    began, cpu = time.perf_counter(), time.process_time()
    rows = steps = size = 0
    for _ in range(epochs):
        for item in stream:
            rows += item.metadata.rows; steps += 1
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": rows, "steps": steps, "seconds": seconds, "client_cpu": time.process_time() - cpu,
        "profile": str(stream.profile()),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def run(case: Case, target: str, process: psutil.Process, epochs: int) -> dict[str, Any]:
    arguments = [sys.executable, "-c", CLIENT, target, case.name, str(case.batch), str(epochs)]
    client = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdin is not None
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
        "client_peak_rss": found["peak_rss"],
        "server_rss": process.memory_info().rss,
        "profile": found["profile"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {case.name: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        for case in CASES:
            case.write(folder / case.name)
        with harness.server(folder, [folder / case.name for case in CASES]) as (process, target):
            for repeat in range(options.repeats):
                for case in CASES:
                    results[case.name].append(run(case, target, process, options.epochs))
                    print(repeat, case.name, results[case.name][-1]["profile"], file=sys.stderr)
    found = harness.report({name: harness.spread(runs) for name, runs in results.items()}, options.repeats)
    print(f"{'case':8} {'rows/s':>12} {'steps/s':>10} {'GB/s':>6} {'client CPU-s/GB':>16} {'server CPU-s/GB':>16}")
    for name, case in found["cases"].items():
        m = {k: v["median"] for k, v in case.items()}
        print(
            f"{name:8} {m['rows_per_s']:12,.0f} {m['steps_per_s']:10,.0f} {m['gb_per_s']:6.2f} "
            f"{m['client_cpu_s_per_gb']:16.2f} {m['server_cpu_s_per_gb']:16.2f}"
        )
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
