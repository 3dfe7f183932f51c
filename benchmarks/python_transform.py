"""What does a stream of warm data lose while the workers run a Python-heavy transform for another stream?

Runs alternate: the warm stream alone, and while a second trainer reads rows that a pure-Python function loops over, in
as many worker processes as there are CPUs. Two answers: wall-clock throughput, for which all of them share the CPUs of
the machine (workers run at a lower priority than the server, so that delivery gets them first); and rows per CPU-second
that the server's own process and the warm trainer had, which others on the machine change little.

    python -m benchmarks.python_transform --repeats 5 --json benchmarks/results/python_transform.json
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

ROWS, SHARDS = 65_536, 16  # of 8 KiB, warm

ROWS_MODULE = """
def heavy(batch):
    total = 0
    for n in range(20_000_000):
        total += n * n % 7
    return batch
"""

WARM = """
import json, sys, time
import penstock
target, seconds = sys.argv[1], float(sys.argv[2])
with penstock.connect(target) as client:
    with client.stream("tokens", batch_size=32, seed=1, output="numpy") as stream:
        for _ in stream: pass
        print("warm", flush=True)
        for line in sys.stdin:
            began, cpu, rows = time.perf_counter(), time.process_time(), 0
            while time.perf_counter() - began < seconds:
                for batch in stream:
                    rows += batch.metadata.rows
            took = time.perf_counter() - began
            print(json.dumps({"rows": rows, "seconds": took, "cpu": time.process_time() - cpu}), flush=True)
"""

HEAVY = """
import sys
import penstock
rows = [{"python": {"function": "heavy_rows:heavy", "semantics": int(sys.argv[2])}}]
with penstock.connect(sys.argv[1]) as client:
    with client.stream("heavy", batch_size=10, rows=rows, output="numpy") as stream:
        for batch in stream: pass
"""


def write(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, shards, rows, width in (("tokens", SHARDS, ROWS // SHARDS, 2048), ("heavy", 2000, 10, 4)):
        (folder / name).mkdir()
        for shard in range(shards):
            values = pa.array(rng.integers(0, 50_000, rows * width, dtype=np.int32))
            table = pa.table({"x": pa.FixedSizeListArray.from_arrays(values, width)})
            with pa.ipc.new_file(folder / name / f"{shard:05}.arrow", table.schema) as writer:
                writer.write_table(table)


def measure(warm: "subprocess.Popen[str]", server: psutil.Process) -> dict[str, float]:
    assert warm.stdin is not None
    assert warm.stdout is not None
    before = server.cpu_times()
    warm.stdin.write("go\n")
    warm.stdin.flush()
    found: dict[str, float] = json.loads(warm.stdout.readline())
    after = server.cpu_times()
    cpu = after.user + after.system - before.user - before.system + found["cpu"]
    return {"rows_per_s": found["rows"] / found["seconds"], "rows_per_cpu_s": found["rows"] / cpu}


def busy_workers(server: psutil.Process) -> list[psutil.Process]:
    return [p for p in server.children() if "penstock_service.chunks.child" in p.cmdline()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each run")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        write(folder)
        (folder / "heavy_rows.py").write_text(ROWS_MODULE)
        os.environ["PYTHONPATH"] = str(folder)
        flags = ["--python-modules", "heavy_rows", "--chunk-rows", "4096"]
        with harness.server(folder, [folder / "tokens", folder / "heavy"], *flags) as (process, target):
            command = [sys.executable, "-c", WARM, target, str(options.seconds)]
            warm = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert warm.stdout is not None
            warm.stdout.readline()
            for repeat in range(options.repeats):
                alone = measure(warm, process)
                heavy = subprocess.Popen([sys.executable, "-c", HEAVY, target, str(repeat)])
                while not busy_workers(process):
                    time.sleep(0.1)  # nothing tells when worker processes begin to be busy
                time.sleep(3)  # they have begun
                before = [sum(p.cpu_times()[:2]) for p in busy_workers(process)]
                beside = measure(warm, process)
                after = [sum(p.cpu_times()[:2]) for p in busy_workers(process)]
                heavy.kill()
                heavy.wait()
                time.sleep(5)  # chunks that were begun are ended
                found = {f"alone_{k}": v for k, v in alone.items()} | {f"beside_{k}": v for k, v in beside.items()}
                found["kept_rows_per_s"] = beside["rows_per_s"] / alone["rows_per_s"]
                found["kept_rows_per_cpu_s"] = beside["rows_per_cpu_s"] / alone["rows_per_cpu_s"]
                found["workers"] = len(after)
                found["workers_cpus"] = (sum(after) - sum(before)) / options.seconds
                runs.append(found)
                print(repeat, {k: round(v, 3) for k, v in found.items()}, file=sys.stderr)
            warm.kill()
            warm.wait()
    answer = harness.report({"python_transform": harness.spread(runs)}, options.repeats)
    case = answer["cases"]["python_transform"]
    for key in ("kept_rows_per_cpu_s", "kept_rows_per_s"):
        print(f"{key}: {case[key]['median']:.1%} ({case[key]['min']:.1%} to {case[key]['max']:.1%})")
    harness.save(options.json, answer)


if __name__ == "__main__":
    main()
