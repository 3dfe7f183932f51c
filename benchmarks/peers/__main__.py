"""One entrant at work, in its own environment: `python -m benchmarks.peers JOB`, JOB as JSON (benchmarks/lap.py).

Answers are lines of JSON on what was stdout; what the peer itself prints goes to stderr.
"""

import contextlib
import ctypes
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import rows

Batches = Iterator[dict[str, Any]]
Epoch = Callable[[int], Batches]
BLOCKS = 256  # how well rows are mixed is told by how many of so many parts of the dataset meet in a batch
PR_SET_CHILD_SUBREAPER = 36


def endless(epoch: Epoch) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while True:
        for batch in epoch(number):
            yield number, batch
        number += 1


def size(batch: dict[str, Any]) -> int:
    return len(next(iter(batch.values())))


def mixed(batches: list[Any], case: rows.Case) -> float:
    """Parts of the dataset in a batch, as a share of those that chance alone brings."""
    full = [batch for batch in batches if len(batch) == case.batch] or batches
    met = float(np.mean([len(np.unique(batch * BLOCKS // case.rows)) for batch in full]))
    return met / (BLOCKS * (1 - (1 - 1 / BLOCKS) ** len(full[0])))


def race(peer: Any, case: rows.Case, job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """Warms up, says so, and when told to go takes batches for `seconds`."""
    began = time.perf_counter()
    with peer.loader(Path(job["folder"]), case, job["workers"]) as epoch:
        opened = time.perf_counter()
        batches = endless(epoch)
        number, batch = next(batches)
        first = time.perf_counter()
        seen = [rows.ids(batch)]
        shapes = {name: [str(x.dtype).removeprefix("torch."), *x.shape] for name, x in batch.items()}
        while number == 0 and time.perf_counter() - first < job["warm"]:
            number, batch = next(batches)
            if number == 0:
                seen.append(rows.ids(batch))
        together = np.concatenate(seen)
        say(
            {
                "open_s": opened - began,
                "first_batch_s": first - opened,
                "mixed": mixed(seen, case),
                "twice": len(together) - len(np.unique(together)),
                "batch": shapes,
            }
        )
        sys.stdin.readline()
        taken = steps = 0
        began = now = time.perf_counter()
        deadline = began + job["seconds"]
        for _, batch in batches:
            taken += size(batch)
            steps += 1
            now = time.perf_counter()
            if now >= deadline:
                break
        say({"rows": taken, "steps": steps, "seconds": now - began})
        sys.stdin.readline()


def check(peer: Any, case: rows.Case, job: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> None:
    """One whole epoch: every row once, with its own values, in batches of the same shape."""
    wanted = sum(rows.checksum(case.columns(shard)) for shard in range(case.shards))
    with peer.loader(Path(job["folder"]), case, job["workers"]) as epoch:
        seen, total, odd = [], 0, 0
        for batch in epoch(0):
            seen.append(rows.ids(batch))
            total += rows.checksum(batch)
            odd += size(batch) != case.batch
    every = np.concatenate(seen)
    distinct = len(np.unique(every))
    say(
        {
            "rows": len(every),
            "of": case.rows,
            "twice": len(every) - distinct,
            "missing": case.rows - distinct,
            "odd_batches": odd,
            "values": "as written" if (total - wanted) % (1 << 64) == 0 else "wrong",
        }
    )


def versions(packages: list[str]) -> dict[str, str]:
    """Of what is pinned, and of what came with it and matters."""
    found = {name: version(name) for name in packages}
    for name in ("numpy", "pyarrow"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def main() -> int:
    job: dict[str, Any] = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what peers print is no answer
    with contextlib.suppress(OSError, AttributeError):  # Linux: orphans stay in this tree, where they are counted
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    try:
        case = rows.Case(**job["case"])
        peer = importlib.import_module(f"benchmarks.peers.{job['module']}")
        if job["action"] == "prepare":
            peer.prepare(Path(job["folder"]), case)
            say({"versions": versions(job["packages"])})
        else:
            {"race": race, "check": check}[job["action"]](peer, case, job, say)
    except Exception as e:  # noqa: BLE001 - whatever fails in a peer belongs into the table, in one line
        traceback.print_exc()
        say({"error": f"{type(e).__name__}: {e}".strip().splitlines()[0]})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
