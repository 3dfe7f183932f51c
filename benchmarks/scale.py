"""Is memory bounded whatever the files are like? A file of 10 GB, a compressed stream of gigabytes, 100,000 tiny files.

For each: seconds from the start of the server to ready (the scan is in them; an empty server's start beside it), to the
first batch, rows/s of a cold epoch (at most `--seconds` of it), and the most memory that server and workers held
(RssAnon + RssShmem). A block of rows is repeated, so that writing the files takes minutes and not hours; the compressed
file is one frame, which can only be read from its beginning. `--quick`: 2 % of the bytes and files.

    python -m benchmarks.scale --json benchmarks/results/scale.json
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv

import penstock
from benchmarks import harness, watching

BLOCK_ROWS, COLUMNS, TINY_ROWS = 200_000, 24, 10


def block() -> bytes:
    """About 50 MB of CSV rows without their header."""
    values = np.random.default_rng(0).random((COLUMNS, BLOCK_ROWS), dtype=np.float32)
    table = pa.table({f"c{i:02}": values[i] for i in range(COLUMNS)})
    out = io.BytesIO()
    pyarrow.csv.write_csv(table, out, pyarrow.csv.WriteOptions(include_header=False))
    return out.getvalue()


HEADER = (",".join(f"c{i:02}" for i in range(COLUMNS)) + "\n").encode()


def one_csv(folder: Path, share: float) -> None:
    rows, size = block(), int(10e9 * share)
    with (folder / "all.csv").open("wb") as out:
        out.write(HEADER)
        while out.tell() < size:
            out.write(rows)


def one_zst(folder: Path, share: float) -> None:
    """JSON lines, one frame of zstd: about 2.5 GB, 8 GB when decompressed."""
    values = np.random.default_rng(0).random((BLOCK_ROWS, 8), dtype=np.float32)
    lines = "".join(
        f'{{"id":{i},"v":[' + ",".join(f"{v:.7f}" for v in row) + "]}\n" for i, row in enumerate(values.tolist())
    ).encode()
    path, size = folder / "all.jsonl.zst", int(8e9 * share)
    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, "zstd") as out:
        for _ in range(-(-size // len(lines))):
            out.write(lines)


def tiny_files(folder: Path, share: float) -> None:
    lines = block().splitlines(keepends=True)[: TINY_ROWS * 100]
    bodies = [HEADER + b"".join(lines[i * TINY_ROWS : (i + 1) * TINY_ROWS]) for i in range(100)]
    for number in range(int(100_000 * share)):
        sub = folder / f"{number // 1000:03}"
        sub.mkdir(exist_ok=True)
        (sub / f"{number:06}.csv").write_bytes(bodies[number % 100])


CASES: dict[str, Callable[[Path, float], None]] = {"csv": one_csv, "zst": one_zst, "tiny": tiny_files}


def ready_seconds(folder: Path) -> float:
    """What a server without a dataset takes to be ready."""
    folder.mkdir()
    began = time.perf_counter()
    with harness.server(folder, []):
        return time.perf_counter() - began


def run(folder: Path, name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Writes the files of one case, serves and streams them, and removes them."""
    data = folder / name
    data.mkdir(parents=True)
    began = time.perf_counter()
    CASES[name](data, options.share)
    files = [path for path in data.rglob("*") if path.is_file()]
    found: dict[str, Any] = {
        "files": len(files),
        "stored_bytes": sum(path.stat().st_size for path in files),
        "writing_s": time.perf_counter() - began,
        "empty_server_ready_s": ready_seconds(folder / "empty"),
    }
    began = time.perf_counter()
    # The server is a child of this process from its first moment on: its scan is watched too.
    children = partial(watching.held, psutil.Process(), itself=False)
    with (
        watching.Memory({"server": children}) as memory,
        harness.server(folder, [data], "--store-bytes", "30GB") as (process, target),
    ):
        found["ready_s"] = time.perf_counter() - began
        found["scan_held_peak_mb"] = memory.peak("server") / 1e6
        found |= stream(target, name, options.seconds)
        found["server_cpu_s"] = harness.cpu_seconds(process)
        found["held_peak_mb"] = memory.peak("server") / 1e6
    shutil.rmtree(folder)
    return found


def stream(target: str, name: str, most: float) -> dict[str, Any]:
    rows, first, began = 0, 0.0, time.perf_counter()
    with penstock.connect(target) as client, client.stream(name, batch_size=1024, seed=1, output="arrow") as batches:
        for batch in batches:
            first = first or time.perf_counter() - began
            rows += batch.num_rows
            if time.perf_counter() - began > most:
                break
        seconds, of_rows = time.perf_counter() - began, batches.num_rows
    return {"first_batch_s": first, "rows": rows, "of_rows": of_rows, "seconds": seconds, "rows_per_s": rows / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, action="append", help="these cases; may be said again")
    parser.add_argument("--seconds", type=float, default=120.0, help="most seconds of an epoch")
    parser.add_argument(
        "--quick", dest="share", action="store_const", const=0.02, default=1.0, help="2 %% of the bytes"
    )
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        for case in options.only or CASES:
            found = cases[case] = run(Path(name) / "run", case, options)
            print(case, {k: v if v is None else round(v, 3) for k, v in found.items()}, file=sys.stderr)
            print(
                f"{case:5} {found['files']:7,} files, {found['stored_bytes'] / 1e9:6.2f} GB: "
                f"ready in {found['ready_s']:.1f} s, first batch {found['first_batch_s']:.2f} s, "
                f"{found['rows_per_s']:,.0f} rows/s, "
                f"held at most {found['held_peak_mb']:.0f} MB"
            )
    harness.save(options.json, harness.report(cases, 1) | {"share": options.share})


if __name__ == "__main__":
    main()
