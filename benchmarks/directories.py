"""Does it cost anything to mix many directories? The same rows in 1, 4 and 16 of them, rows/s at one trainer.

python -m benchmarks.directories --repeats 5 --json benchmarks/results/directories.json
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import penstock
from benchmarks import harness

ROWS, SHARDS, FEATURES = 1 << 20, 64, 32
COUNTS = (1, 4, 16)


def write(folder: Path, count: int) -> list[Path]:
    """`count` directories that together hold the same shards."""
    rng = np.random.default_rng(0)
    each = ROWS // SHARDS
    folders = [folder / f"d{count}-{i:02}" for i in range(count)]
    for path in folders:
        path.mkdir()
    for shard in range(SHARDS):
        x = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(each * FEATURES, dtype=np.float32)), FEATURES)
        table = pa.table({"x": x, "id": np.arange(shard * each, (shard + 1) * each)})
        pq.write_table(table, folders[shard % count] / f"{shard:03}.parquet", compression="none", use_dictionary=False)
    return folders


def epoch(client: penstock.Client, names: list[str]) -> float:
    with client.stream(names, batch_size=1024, seed=1, output="numpy", pool_rows=ROWS // 5) as stream:
        for _ in stream:  # once to warm up
            pass
        began = time.perf_counter()
        rows = sum(batch.metadata.rows for batch in stream)
        return float(rows / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {str(count): [] for count in COUNTS}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        datasets = {count: write(folder, count) for count in COUNTS}
        every = [path for paths in datasets.values() for path in paths]
        with harness.server(folder, every) as (_, target), penstock.connect(target) as client:
            for repeat in range(options.repeats):
                for count in COUNTS:
                    rate = epoch(client, [path.name for path in datasets[count]])
                    results[str(count)].append({"rows_per_s": rate})
                    print(repeat, count, f"{rate:,.0f}", file=sys.stderr)
    report = harness.report({count: harness.spread(runs) for count, runs in results.items()}, options.repeats)
    print(f"{'directories':>11} {'rows/s':>12} {'of 1':>6}")
    one = report["cases"]["1"]["rows_per_s"]["median"]
    for count, case in report["cases"].items():
        rate = case["rows_per_s"]["median"]
        print(f"{count:>11} {rate:12,.0f} {rate / one:6.2f}")
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
