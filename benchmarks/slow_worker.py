"""What is left of the throughput when one of four workers is ten times slower than the others?

Four worker processes make chunks whose transform waits (as for a network), so that the CPUs of this machine do not
count; in every other run one of them, chosen by its process id, waits ten times as long. A trainer reads a cold epoch
each time (the transform's `semantics` differ, so no chunk is found). What the four can do then is 3.1 quarters of what
four equal ones do: "of_possible" is rows/s with the slow one / (rows/s without * 3.1 / 4).

    python -m benchmarks.slow_worker --repeats 5 --json benchmarks/results/slow_worker.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from benchmarks import harness

WORKERS, TIMES, CHUNK_ROWS = 4, 10, 1000
POSSIBLE = (WORKERS - 1 + 1 / TIMES) / WORKERS

ROWS_MODULE = """
import os, pathlib, time
FOLDER = pathlib.Path(__file__).parent

def wait(batch):
    slow = (FOLDER / "slow").read_text()
    time.sleep(float((FOLDER / "seconds").read_text()) * (%d if slow == str(os.getpid()) else 1))
    return batch
"""

CLIENT = """
import json, sys, time
import penstock
target, semantics, pool = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rows = [{"python": {"function": "slow_rows:wait", "semantics": semantics}}]
with penstock.connect(target) as client:
    with client.stream("toy", batch_size=500, seed=1, rows=rows, pool_rows=pool, output="numpy") as stream:
        began, first, count = time.perf_counter(), None, 0
        for batch in stream:
            first = first or time.perf_counter() - began
            count += batch.metadata.rows
        seconds = time.perf_counter() - began
print(json.dumps({"rows": count, "seconds": seconds, "first_batch_s": first}))
"""


def write(folder: Path, chunks: int) -> None:
    folder.mkdir()
    for shard in range(chunks // 10):
        ids = np.arange(shard * 10 * CHUNK_ROWS, (shard + 1) * 10 * CHUNK_ROWS)
        table = pa.table({"id": ids, "x": ids.astype(np.float32)})
        with pa.ipc.new_file(folder / f"{shard:05}.arrow", table.schema) as writer:
            writer.write_table(table, max_chunksize=CHUNK_ROWS)


def workers(server: psutil.Process) -> list[int]:
    return [p.pid for p in server.children() if "penstock_service.chunks.child" in p.cmdline()]


def run(target: str, semantics: int, pool: int) -> dict[str, Any]:
    command = [sys.executable, "-c", CLIENT, target, str(semantics), str(pool)]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"rows_per_s": found["rows"] / found["seconds"], **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunks", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=0.1, help="for a chunk")
    parser.add_argument("--pool-chunks", type=int, default=80)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        write(folder / "toy", options.chunks)
        (folder / "slow_rows.py").write_text(ROWS_MODULE % TIMES)
        (folder / "seconds").write_text(str(options.seconds))
        (folder / "slow").write_text("")
        os.environ["PYTHONPATH"] = str(folder)
        flags = ["--python-modules", "slow_rows", "--worker-kind", "processes", "--workers", str(WORKERS)]
        flags += ["--chunk-rows", str(CHUNK_ROWS)]
        with harness.server(folder, [folder / "toy"], *flags) as (process, target):
            for repeat in range(options.repeats):
                found: dict[str, Any] = {}
                for at, kind in enumerate(("equal", "slow")):
                    slow = workers(process)[0] if kind == "slow" else ""
                    (folder / "slow").write_text(str(slow))
                    one = run(target, 2 * repeat + at, options.pool_chunks * CHUNK_ROWS)
                    found |= {f"{kind}_{key}": value for key, value in one.items()}
                    time.sleep(TIMES * options.seconds)  # the slow one ends what it may still be making
                found["of_possible"] = found["slow_rows_per_s"] / (found["equal_rows_per_s"] * POSSIBLE)
                runs.append(found)
                print(repeat, {k: round(v, 3) for k, v in found.items()}, file=sys.stderr)
    found = harness.report({"slow_worker": harness.spread(runs)}, options.repeats)
    case = found["cases"]["slow_worker"]
    print(f"of what is possible: {case['of_possible']['median']:.1%} (least {case['of_possible']['min']:.1%})")
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
