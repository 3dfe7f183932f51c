"""What does the first epoch cost beyond decoding? From zstd Parquet, on the same cores, in one interleaved run:

    decode        read every row group, in as many threads as there are workers, and drop it
    write         the same, and write each as an uncompressed Arrow IPC file
    first_epoch   a server with an empty store, and a client that reads one epoch, from its first request to the last
                  row, shuffled through a pool of an eighth of the rows

Everything is in the page cache before. The ratios to be had: first_epoch at least 0.9 of write and 0.7 of decode. CPU
seconds stand beside, those of server and client together: a busy machine changes them least.

    python -m benchmarks.first_epoch --repeats 5 --json benchmarks/results/first_epoch.json
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import harness

TOKENS = 2048  # int32 of a row
BATCH = 64

CLIENT = """
import json, sys, time
import penstock
began, cpu = time.perf_counter(), time.process_time()
rows = 0
first = None
with penstock.connect(sys.argv[1]) as client:
    batch, pool = int(sys.argv[2]), int(sys.argv[3])
    with client.stream("tokens", batch_size=batch, output="numpy", seed=1, pool_rows=pool) as stream:
        for batch in stream:
            first = first or time.perf_counter() - began
            rows += len(batch["tokens"])
        print(json.dumps({"rows": rows, "seconds": time.perf_counter() - began, "first_batch_seconds": first,
            "client_cpu": time.process_time() - cpu}))
"""


def write_tokens(folder: Path, rows: int, shards: int) -> int:
    """Tokens as often as words are in a text, which zstd packs about as text; bytes of the rows."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for shard in range(shards):
        tokens = (rng.zipf(1.2, rows // shards * TOKENS) % 50_000).astype(np.int32)
        table = pa.table({"tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), TOKENS)})
        pq.write_table(table, folder / f"{shard:03}.parquet", compression="zstd", row_group_size=2048)
    return rows // shards * shards * TOKENS * 4


def decoded(folder: Path, workers: int, out: Path | None) -> None:
    """Each row group once; written to `out`, if there is one."""
    units = [(path, n) for path in sorted(folder.iterdir()) for n in range(pq.read_metadata(path).num_row_groups)]

    def one(unit: tuple[Path, int]) -> None:
        path, number = unit
        rows = pq.ParquetFile(path).read_row_group(number, use_threads=False).combine_chunks()
        if out is not None:
            to = str(out / f"{path.stem}-{number}.arrow")
            with pa.OSFile(to, "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_table(rows)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, units))


def timed(work: Callable[[], None]) -> dict[str, float]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}


def first_epoch(folder: Path, data: Path, workers: int, rows: int, tree: Path | None) -> dict[str, float]:
    """`tree`: the checkout whose server and client are measured; default: this one."""
    flags = ["--workers", str(workers), "--log-level", "warning", *([] if tree else ["--preload", "lazy"])]
    before = os.environ.get("PYTHONPATH")
    if tree is not None:
        os.environ["PYTHONPATH"] = os.pathsep.join(str(tree / part) for part in ("client", "service", "proto"))
    try:
        with harness.server(folder, [data], *flags) as (process, target):
            cpu = harness.cpu_seconds(process)
            done = subprocess.run(
                [sys.executable, "-c", CLIENT, target, str(BATCH), str(rows // 8)],
                check=True,
                capture_output=True,
                text=True,
            )
            found: dict[str, float] = json.loads(done.stdout)
            found["cpu_seconds"] = harness.cpu_seconds(process) - cpu + found["client_cpu"]
    finally:
        os.environ.pop("PYTHONPATH", None)
        if before is not None:
            os.environ["PYTHONPATH"] = before
    if found["rows"] != rows:
        raise SystemExit(f"{found['rows']} rows came instead of {rows}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=98_304)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--base", type=Path, help="another checkout, measured beside as `base`")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder, data = Path(name), Path(name) / "tokens"
        size = write_tokens(data, options.rows, 8)
        stored = sum(path.stat().st_size for path in data.iterdir())
        rows = size // (TOKENS * 4)
        decoded(data, options.workers, None)  # warm
        trees = {"first_epoch": None} | ({"base": options.base.absolute()} if options.base else {})
        for repeat in range(options.repeats):
            out = folder / "out"
            out.mkdir()
            run = {
                "decode": timed(lambda: decoded(data, options.workers, None)),
                "write": timed(lambda: decoded(data, options.workers, out)),  # noqa: B023 - called at once
            }
            shutil.rmtree(out)
            for case, tree in trees.items():
                server = folder / f"server-{case}"
                server.mkdir()
                run[case] = first_epoch(server, data, options.workers, rows, tree)
                shutil.rmtree(server)
            for case, of in run.items():
                of["gb_per_s"] = size / 1e9 / of["seconds"]
                for other in ("decode", "write"):
                    of[f"of_{other}"] = run[other]["seconds"] / of["seconds"]
                    of[f"cpu_of_{other}"] = run[other]["cpu_seconds"] / of["cpu_seconds"]
                results.setdefault(case, []).append(of)
            print(repeat, {case: round(found["seconds"], 2) for case, found in run.items()}, file=sys.stderr)
    found = harness.report({name: harness.spread(runs) for name, runs in results.items()}, options.repeats)
    found["data"] = {"rows": rows, "bytes": size, "stored_bytes": stored, "workers": options.workers}
    print(f"{'':12} {'GB/s':>6} {'seconds':>8} {'CPU-s':>7} {'of decode':>10} {'of write':>9} {'(by CPU-s)':>14}")
    for name, runs in results.items():
        m = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(
            f"{name:12} {m['gb_per_s']:6.2f} {m['seconds']:8.2f} {m['cpu_seconds']:7.2f} {m['of_decode']:10.2f} "
            f"{m['of_write']:9.2f} {m['cpu_of_decode']:7.2f} {m['cpu_of_write']:6.2f}"
        )
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
