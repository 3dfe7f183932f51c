"""What does it bring to keep several ranges in flight, when each request to an object store takes 50 ms?

A real S3 protocol server (moto) behind a proxy that answers each request `--latency` seconds late. One reader thread
reads all chunks of one object per format; then of many small objects. `ranges` is the setting object_ranges; 1 is one
request after the other. Runs are interleaved. Prints a table and writes JSON. The proxy and moto are Python and share
the machine: rates are a floor.

    python -m benchmarks.object_store --repeats 3 --json benchmarks/results/object_store.json
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from penstock_service.core.dataset import ReadTask
from penstock_service.source.discover import discover
from penstock_service.source.read import read_task
from penstock_service.source.scan import Scanned, scan
from penstock_service.source.stores import Stores
from tests.objectstore import ObjectStore, Proxy, running_store

RANGES = (1, 4, 8)


def table(rows: int) -> pa.Table:
    rng = np.random.default_rng(0)
    return pa.table({f"x{i}": rng.random(rows) for i in range(16)})


def one_csv(folder: Path) -> None:
    pc.write_csv(table(100_000), folder / "a.csv")


def one_parquet(folder: Path) -> None:
    pq.write_table(table(250_000), folder / "a.parquet", row_group_size=125_000, compression="none")


def one_arrow(folder: Path) -> None:
    with pa.ipc.new_file(folder / "a.arrow", table(0).schema) as writer:
        writer.write_table(table(250_000), max_chunksize=62_500)


def small_csv(folder: Path) -> None:
    for i in range(40):
        pc.write_csv(table(20), folder / f"{i:04}.csv")


CASES: dict[str, Callable[[Path], None]] = {f.__name__: f for f in (one_csv, one_parquet, one_arrow, small_csv)}


def read(root: str, scanned: Scanned, stores: Stores) -> float:
    """Seconds that one thread takes to make all chunks."""
    manifest = scanned.manifest
    schema = scanned.schema.serialize().to_pybytes()
    began = time.perf_counter()
    left = list(range(manifest.chunks))
    while left:
        chunks = tuple(c for c in manifest.chunks_read_with(left[0]) if c in left)
        left = left[len(chunks) :]
        for _ in read_task(ReadTask(root, schema, chunks, tuple(manifest.slices_of(c) for c in chunks)), stores):
            pass
    return time.perf_counter() - began


def measure(repeats: int, latency: float) -> list[dict[str, object]]:
    found = []
    with running_store() as endpoint, tempfile.TemporaryDirectory() as temporary:
        for name, make in CASES.items():
            folder = Path(temporary) / name
            folder.mkdir()
            make(folder)
            store = ObjectStore(endpoint, f"bench-{uuid4().hex[:8]}")
            store.system.create_dir(store.bucket)
            uri = store.upload(folder)
            listed = discover(uri, store.stores)
            scanned = scan(listed, stores=store.stores)
            with Proxy(endpoint, latency) as proxy:
                stores = replace(store.through(proxy), range_bytes=1 << 20)
                seconds: dict[int, list[float]] = {n: [] for n in RANGES}
                for _ in range(repeats):
                    for n in RANGES:
                        seconds[n].append(read(listed.root, scanned, replace(stores, ranges=n)))
            for n in RANGES:
                took = statistics.median(seconds[n])
                row = {
                    "case": name,
                    "ranges": n,
                    "seconds": round(took, 3),
                    "MB/s": round(listed.bytes / took / 1e6, 1),
                }
                print("  ".join(f"{k} {v}" for k, v in row.items()), flush=True)
                found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = measure(arguments.repeats, arguments.latency)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    versions = {name: version(name) for name in ("pyarrow", "moto")}
    record = {
        "command": f"python -m benchmarks.object_store --repeats {arguments.repeats} --latency {arguments.latency}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "versions": versions,
        "range_bytes": 1 << 20,
        "results": results,
    }
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
