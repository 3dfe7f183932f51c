"""What does a pool cost? Seconds for each segment, and memory above the data, of a pool of 2,000,000 rows of 300 bytes.

The dataset is ten times as large as the pool (6 GB; the chunk store takes as much again) and is streamed once, chunks
made on the way, then once more from the warm store. Memory is RssAnon + RssShmem of the server and its workers, sampled
ten times a second, less what it held before the first stream; mapped chunks belong to the page cache. Seconds for each
segment are those of the server's log: from being wanted, chunks read and mixed, to being there.

    python -m benchmarks.pool --json benchmarks/results/pool.json
    python -m benchmarks.pool --pool-rows 40_000_000 --rows 44_000_000 --seconds 300 --json ...
"""

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

import penstock
from benchmarks import harness, watching

ROW_BYTES, SHARD_ROWS, BATCH = 300, 500_000, 4096
VALUES = (ROW_BYTES - 8) // 4  # float32, beside the id


def write(folder: Path, rows: int) -> Path:
    """`rows` rows of 300 bytes that do not compress, in Parquet shards of 150 MB."""
    folder.mkdir()
    noise = np.random.default_rng(0).random(SHARD_ROWS * VALUES, dtype=np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.array(noise), VALUES)
    for first in range(0, rows, SHARD_ROWS):
        ids = np.arange(first, min(first + SHARD_ROWS, rows))
        table = pa.table({"id": ids, "x": values.slice(0, len(ids))})
        path = folder / f"{first // SHARD_ROWS:05}.parquet"
        pq.write_table(table, path, compression="none", use_dictionary=False, row_group_size=50_000)
    return folder


def stream(client: penstock.Client, process: psutil.Process, log: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch, or as much of it as comes within `--seconds`."""
    told = len(watching.segment_seconds(log))
    before, rows, first = watching.held(process), 0, 0.0
    began, cpu = time.perf_counter(), harness.cpu_seconds(process)
    with (
        watching.Memory({"server": partial(watching.held, process)}) as memory,
        client.stream(
            "rows",
            batch_size=BATCH,
            seed=1,
            output="numpy",
            pool_rows=options.pool_rows,
            pool_bytes=options.pool_rows * ROW_BYTES * 11 // 10,
            start=options.start,
        ) as batches,
    ):
        for batch in batches:
            first = first or time.perf_counter() - began
            rows += batch.metadata.rows
            if time.perf_counter() - began > options.seconds:
                break
        seconds = time.perf_counter() - began
        took = watching.segment_seconds(log)[told:]
    held = sorted(sample["server"] for _, sample in memory.samples)
    return {
        "rows": rows,
        "seconds": seconds,
        "rows_per_s": rows / seconds,
        "first_batch_s": first,
        "segments": len(took),
        "segment_s_median": statistics.median(took),
        "segment_s_max": max(took),
        "server_cpu_us_per_row": (harness.cpu_seconds(process) - cpu) / rows * 1e6,
        "held_before_mb": before / 1e6,
        "held_median_mb": held[len(held) // 2] / 1e6,
        "held_peak_mb": held[-1] / 1e6,
        "peak_above_before_mb": (held[-1] - before) / 1e6,
        "peak_above_before_bytes_per_pool_row": (held[-1] - before) / options.pool_rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool-rows", type=int, default=2_000_000)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--seconds", type=float, default=120.0, help="most seconds of each of the two epochs")
    parser.add_argument("--start", choices=("ramp", "full"), default="ramp")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows and of the pool")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.pool_rows, options.rows = options.pool_rows // 10, options.rows // 10
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        paths = [write(folder / "rows", options.rows)]
        store = str(options.rows * ROW_BYTES * 5 // 4)
        running = harness.server(folder, paths, "--store-bytes", store)
        with running as (process, target), penstock.connect(target) as client:
            for case in ("cold store", "warm store"):
                cases[case] = stream(client, process, folder / "server.log", options)
                print(case, {k: round(v, 3) for k, v in cases[case].items()}, file=sys.stderr)
    report = harness.report(cases, 1) | {"pool_rows": options.pool_rows, "rows": options.rows, "start": options.start}
    for case, found in cases.items():
        print(
            f"{case}: {found['rows_per_s']:,.0f} rows/s, first batch {found['first_batch_s']:.2f} s, segments "
            f"{found['segment_s_median']:.2f} s (most {found['segment_s_max']:.2f}), held at most "
            f"{found['held_peak_mb']:.0f} MB, {found['peak_above_before_mb']:.0f} above the start"
        )
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
