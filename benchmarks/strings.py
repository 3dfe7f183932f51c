"""How fast are columns whose values have many widths: token lists, strings, short strings?

Two answers for each, over runs that are interleaved: gathering alone, in this process, against the way that Arrow
alone offers (`take` from each chunk, joined, `take` again), in GB per CPU-second; and a trainer on the same machine
that takes Arrow batches from a real server whose store and page cache are warm. Bytes are those of values and offsets.

    python -m benchmarks.strings --repeats 5 --json benchmarks/results/strings.json
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

from benchmarks import harness
from penstock_service.batch.gather import gather
from penstock_service.batch.visit import plan_visit

CHUNKS, CHUNK_BYTES, BUNDLE_BYTES = 32, 16 << 20, 4 << 20


@dataclass(frozen=True)
class Case:
    """Values of `mean` items, from half of that to half as much again."""

    name: str
    mean: int
    item: int  # bytes
    batch: int

    def column(self, rows: int, rng: np.random.Generator) -> pa.Array:
        ends = np.cumsum(rng.integers(self.mean // 2, self.mean * 3 // 2 + 1, rows), dtype=np.int32)
        offsets = pa.py_buffer(np.concatenate([np.zeros(1, np.int32), ends]))
        if self.item == 4:
            values = pa.array(rng.integers(0, 50_000, ends[-1], dtype=np.int32))
            return pa.Array.from_buffers(pa.list_(pa.int32()), rows, [None, offsets], children=[values])
        letters = pa.py_buffer(rng.integers(97, 123, ends[-1], dtype=np.uint8))
        return pa.Array.from_buffers(pa.string(), rows, [None, offsets, letters])

    def rows(self, size: int) -> int:
        return size // (self.mean * self.item + 4)

    def write(self, folder: Path, shards: int, shard_bytes: int) -> None:
        rng = np.random.default_rng(0)
        folder.mkdir()
        for shard in range(shards):
            table = pa.table({self.name: self.column(self.rows(shard_bytes), rng)})
            with pa.ipc.new_file(folder / f"{shard:05}.arrow", table.schema) as writer:
                writer.write_table(table)


CASES = (Case("tokens", 512, 4, 64), Case("text", 200, 1, 1024), Case("words", 20, 1, 8192))


class InProcess:
    """One bundle's rows out of 32 chunks, in random order."""

    def __init__(self, case: Case) -> None:
        self.rng = np.random.default_rng(1)
        self.chunks = {n: pa.record_batch({"c": case.column(case.rows(CHUNK_BYTES), self.rng)}) for n in range(CHUNKS)}
        self.rows = case.rows(BUNDLE_BYTES)

    def run(self, bundles: int) -> dict[str, float]:
        schema, size = self.chunks[0].schema, 0
        ours = arrows = 0.0
        for _ in range(bundles):
            chunk = self.rng.integers(0, CHUNKS, self.rows).astype(np.uint32)
            row = self.rng.integers(0, self.chunks[0].num_rows, self.rows).astype(np.uint32)
            visit = plan_visit(chunk, row)
            began = time.process_time()
            found = gather(schema, self.chunks, visit)
            middle = time.process_time()
            taken = [self.chunks[c].column(0).take(pa.array(visit.rows[first:end])) for c, first, end in visit.runs]
            other = pa.concat_arrays(taken).take(pa.array(visit.back))
            ended = time.process_time()
            if not found.column(0).equals(other):
                raise SystemExit("the two ways give different rows")
            ours, arrows, size = ours + middle - began, arrows + ended - middle, size + found.nbytes
        return {"gather_gb_per_cpu_s": size / ours / 1e9, "take_gb_per_cpu_s": size / arrows / 1e9}


CLIENT = """
import json, sys, time
import penstock
target, name, batch, transport, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5])
with penstock.connect(target) as client:
    with client.stream(name, batch_size=batch, seed=1, output="arrow", columns=[name], transport=transport) as stream:
        for _ in stream: pass
        print("begin", flush=True); sys.stdin.readline()
        began, cpu, rows, size = time.perf_counter(), time.process_time(), 0, 0
        for _ in range(epochs):
            for item in stream:
                rows += item.num_rows; size += item.nbytes
        seconds = time.perf_counter() - began
print(json.dumps({"rows": rows, "bytes": size, "seconds": seconds, "cpu": time.process_time() - cpu}))
"""


def deliver(case: Case, target: str, process: psutil.Process, transport: str, epochs: int) -> dict[str, float]:
    arguments = [sys.executable, "-c", CLIENT, target, case.name, str(case.batch), transport, str(epochs)]
    client = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdout is not None
    assert client.stdin is not None
    client.stdout.readline()
    before = harness.cpu_seconds(process)
    client.stdin.write("go\n")
    client.stdin.flush()
    found: dict[str, Any] = json.loads(client.stdout.readline())
    server = harness.cpu_seconds(process) - before
    client.wait(30)
    gigabytes = found["bytes"] / 1e9
    return {
        f"{transport}_gb_per_s": gigabytes / found["seconds"],
        f"{transport}_rows_per_s": found["rows"] / found["seconds"],
        f"{transport}_server_cpu_s_per_gb": server / gigabytes,
        f"{transport}_client_cpu_s_per_gb": found["cpu"] / gigabytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--shard-bytes", type=int, default=16 << 20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    alone = {case.name: InProcess(case) for case in CASES}
    results: dict[str, list[dict[str, Any]]] = {case.name: [] for case in CASES}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        for case in CASES:
            case.write(folder / case.name, 16, options.shard_bytes)
        with harness.server(folder, [folder / case.name for case in CASES]) as (process, target):
            for repeat in range(options.repeats):
                for case in CASES:
                    found = alone[case.name].run(20)
                    for transport in ("auto", "grpc"):
                        found |= deliver(case, target, process, transport, options.epochs)
                    results[case.name].append(found)
                    print(repeat, case.name, {k: round(v, 2) for k, v in found.items()}, file=sys.stderr)
    answer = harness.report({name: harness.spread(runs) for name, runs in results.items()}, options.repeats)
    columns = ("gather_gb_per_cpu_s", "take_gb_per_cpu_s", "auto_gb_per_s", "grpc_gb_per_s", "auto_server_cpu_s_per_gb")
    print(f"{'case':8} " + " ".join(f"{column:>24}" for column in columns))
    for name, numbers in answer["cases"].items():
        print(f"{name:8} " + " ".join(f"{numbers[column]['median']:24.2f}" for column in columns))
    harness.save(options.json, answer)


if __name__ == "__main__":
    main()
