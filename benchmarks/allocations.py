"""How much memory does a step allocate anew, at the server and at the trainer, when everything has warmed up?

Counted as page faults (memory that is used again causes none): `ru_minflt` of the trainer, `minflt` of the server's
process. One server; runs over shared memory and over gRPC, interleaved. Chunks are mapped files: their pages fault in
once for each epoch that maps them, which is no allocation; both kinds of run have it.

    python -m benchmarks.allocations --repeats 5 --json benchmarks/results/allocations.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.rows import CASES

CLIENT = """
import json, resource, sys
import torch, penstock
target, dataset, batch, transport = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
with penstock.connect(target) as client:
    with client.stream(dataset, batch_size=batch, seed=1, transport=transport, reshuffle=False) as stream:
        for _ in range(2):
            for _ in stream: pass
        before, began = stream.profile(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        print("warm", flush=True); sys.stdin.readline()
        for _ in stream: pass
        after, faults = stream.profile(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - began
        keys = ("steps", "bytes", "buffers_reused", "buffers_allocated", "buffers_plain")
        print(json.dumps({"faults": faults, **{key: after[key] - before[key] for key in keys}}), flush=True)
        sys.stdin.readline()
"""


def faults(pid: int) -> int:
    """Minor page faults of a process so far."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def run(target: str, pid: int, dataset: str, batch: int, transport: str) -> dict[str, Any]:
    arguments = [sys.executable, "-c", CLIENT, target, dataset, str(batch), transport]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        assert client.stdout.readline() == "warm\n"
        before = faults(pid)
        print("go", file=client.stdin, flush=True)
        found = json.loads(client.stdout.readline())
        server = faults(pid) - before
        print("end", file=client.stdin, flush=True)
    megabytes = found["bytes"] / 1e6
    return {
        "steps": found["steps"],
        "server_faults_per_step": server / found["steps"],
        "server_faults_per_mb": server / megabytes,
        "client_faults_per_step": found["faults"] / found["steps"],
        "client_faults_per_mb": found["faults"] / megabytes,
        "client_buffers_allocated_per_step": (found["buffers_allocated"] + found["buffers_plain"]) / found["steps"],
        "client_buffers_reused": found["buffers_reused"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        for case in CASES:
            case.write(folder / case.name)
        with harness.server(folder, [folder / case.name for case in CASES]) as (process, target):
            for repeat in range(options.repeats):
                for case in CASES:
                    for over, transport in (("shm", "auto"), ("tcp", "tcp"), ("grpc", "grpc")):
                        found = run(target, process.pid, case.name, case.batch, transport)
                        results.setdefault(f"{case.name} over {over}", []).append(found)
                        print(repeat, case.name, over, found, file=sys.stderr)
    report = harness.report({name: harness.spread(runs) for name, runs in results.items()}, options.repeats)
    for name, case_ in report["cases"].items():
        print(f"{name:18}", *(f"{key} {value['median']:.3g}" for key, value in case_.items()))
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
