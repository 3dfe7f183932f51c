"""Does it cost anything to mix many directories? The same rows in 1, 4 and 16 of them, rows/s at one trainer.

Every shard is one chunk in all three cases, so that only the number of directories differs. Runs are interleaved; the
ratio is taken within each round, because the machine is not equally free in all of them. `--quick` has a quarter of the
rows, whose shards are so small that a directory has fewer chunks the more of them it holds (10, 12, 16).

    python -m benchmarks.directories --json benchmarks/results/directories.json
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import penstock
from benchmarks import harness

ROWS, SHARDS, FEATURES = 1 << 22, 64, 32
COUNTS = (1, 4, 16)
SECONDS = 2.0  # of one run; whole epochs


def write(folder: Path, count: int, rows: int = ROWS) -> list[Path]:
    """`count` directories that together hold the same shards."""
    rng = np.random.default_rng(0)
    each = rows // SHARDS
    folders = [folder / f"d{count}-{i:02}" for i in range(count)]
    for path in folders:
        path.mkdir()
    for shard in range(SHARDS):
        x = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(each * FEATURES, dtype=np.float32)), FEATURES)
        table = pa.table({"x": x, "id": np.arange(shard * each, (shard + 1) * each)})
        pq.write_table(table, folders[shard % count] / f"{shard:03}.parquet", compression="none", use_dictionary=False)
    return folders


def run(client: penstock.Client, server: psutil.Process, names: list[str], pool: int) -> dict[str, float]:
    with client.stream(names, batch_size=1024, seed=1, output="numpy", pool_rows=pool) as stream:
        for _ in stream:  # once to warm up
            pass
        cpu, began, rows = harness.cpu_seconds(server), time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS:
            rows += sum(batch.metadata.rows for batch in stream)
        seconds = time.perf_counter() - began
        return {"rows_per_s": rows / seconds, "server_cpu_us_per_row": (harness.cpu_seconds(server) - cpu) / rows * 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = ROWS // 4 if options.quick else ROWS
    results: dict[str, list[dict[str, Any]]] = {str(count): [] for count in COUNTS}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        datasets = {count: write(folder, count, rows) for count in COUNTS}
        every = [path for paths in datasets.values() for path in paths]
        with harness.server(folder, every) as (process, target), penstock.connect(target) as client:
            for repeat in range(options.repeats):
                for count in COUNTS:
                    found = run(client, process, [path.name for path in datasets[count]], rows // 5)
                    results[str(count)].append(found)
                    found["of_one"] = found["rows_per_s"] / results["1"][repeat]["rows_per_s"]
                    print(repeat, count, {k: round(v, 3) for k, v in found.items()}, file=sys.stderr)
    report = harness.report({count: harness.spread(runs) for count, runs in results.items()}, options.repeats)
    print(f"{'directories':>11} {'rows/s':>12} {'of 1':>6} {'server CPU-us/row':>18}")
    for count, case in report["cases"].items():
        rate, share, cpu = (case[k]["median"] for k in ("rows_per_s", "of_one", "server_cpu_us_per_row"))
        print(f"{count:>11} {rate:12,.0f} {share:6.2f} {cpu:18.3f}")
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
