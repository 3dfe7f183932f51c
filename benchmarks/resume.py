"""How long does a resume take, and does it depend on where? First batch after connect at 1, 50 and 99 % of an epoch.

100,000,000 rows of 12 bytes, in few and in many shards; the default pool of 2,000,000 rows, so an epoch has 50 of them.
One epoch is streamed first: the chunk store is warm. Then for each place in turn, by a server that was started for it
("new server": nothing is in memory, no chunk is mapped) and once more ("same server": nobody reads any more, so it has
forgotten what waits in the pool). The first batch must be the one that followed the state in the first epoch.
`--quick` has a tenth of the rows and a pool of 200,000.

    python -m benchmarks.resume --json benchmarks/results/resume.json
"""

import argparse
import json
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

ROWS, BATCH = 100_000_000, 8192
SHARDS = {"few": 20, "many": 10_000}
PLACES = (0.01, 0.50, 0.99)


def write(folder: Path, shards: int, rows: int) -> Path:
    folder.mkdir()
    each = rows // shards
    for shard in range(shards):
        ids = np.arange(shard * each, (shard + 1) * each)
        table = pa.table({"id": ids, "x": ids.astype(np.float32)})
        pq.write_table(table, folder / f"{shard:06}.parquet", compression="none", use_dictionary=False)
    return folder


def subscribe(client: penstock.Client, name: str, rows: int) -> penstock.Stream:
    return client.stream(name, batch_size=BATCH, seed=5, output="numpy", pool_rows=rows // 50)


def states(target: str, name: str, rows: int) -> tuple[dict[float, Any], dict[float, bytes]]:
    """Streams one epoch. The states at the places, and the ids of the batch that follows each."""
    steps = -(-rows // BATCH)
    wanted = {int(steps * place): place for place in PLACES}
    found, follows = {}, {}
    with penstock.connect(target) as client, subscribe(client, name, rows) as stream:
        for number, batch in enumerate(stream, 1):
            if number - 1 in wanted:
                follows[wanted[number - 1]] = batch["id"].tobytes()
            if number in wanted:
                found[wanted[number]] = stream.state_dict()
    return found, follows


def resume(target: str, name: str, rows: int, state: Any) -> tuple[float, bytes]:
    """Seconds from connect to the first batch, and its ids."""
    began = time.perf_counter()
    with penstock.connect(target) as client, subscribe(client, name, rows) as stream:
        stream.load_state_dict(state)
        first = next(iter(stream))
        return time.perf_counter() - began, first["id"].tobytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = ROWS // 10 if options.quick else ROWS
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as temporary:
        folder = Path(temporary)
        paths = [write(folder / name, shards, rows) for name, shards in SHARDS.items()]
        known = {}
        with harness.server(folder, paths) as (_, target):
            for name in SHARDS:
                known[name] = states(target, name, rows)
        for repeat in range(options.repeats):
            for name, (found, follows) in known.items():
                for place, state in found.items():
                    with harness.server(folder, paths) as (_, target):
                        for what in ("new server", "same server"):
                            seconds, ids = resume(target, name, rows, state)
                            if ids != follows[place]:
                                raise SystemExit(f"resumed at {place:.0%} of {name} with other rows than follow it")
                            run = {"seconds": seconds, "cursor_bytes": len(json.dumps(state))}
                            results.setdefault(f"{name} shards, {place:.0%}, {what}", []).append(run)
                            print(repeat, name, place, what, f"{seconds:.3f}", file=sys.stderr)
    report = harness.report({case: harness.spread(runs) for case, runs in results.items()}, options.repeats)
    report["rows"] = rows
    for case, numbers in report["cases"].items():
        seconds, size = numbers["seconds"], numbers["cursor_bytes"]["max"]
        print(
            f"{case:30} {seconds['median']:.3f} s ({seconds['min']:.3f} to {seconds['max']:.3f}), cursor {size} bytes"
        )
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
