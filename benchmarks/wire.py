"""What does the wire cost alone, with nothing gathered; against a raw socket and Arrow Flight in the same run?

Ready bytes (4 MiB, 8 KiB rows) from one process to another over loopback, all kinds interleaved. Then the trainer's
CPU: seconds = steps * a + GB * b, fitted by least squares over runs with two batch sizes. Writes JSON.

    python -m benchmarks.wire --repeats 5 --json benchmarks/results/wire.json
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness

KINDS = ("penstock", "socket", "flight")  # of servers
OVER = {"shm": "auto", "tcp": "tcp", "grpc": "grpc"}  # what the client asks for
BATCHES = (2, 64)

READERS = {
    "socket": """
peer = socket.create_connection(("127.0.0.1", port))
buffer = bytearray(1 << 20)
def read(until):
    n = 0
    while n < until: n += peer.recv_into(buffer)
    return n, 0
""",
    "flight": """
import pyarrow.flight
reader = pyarrow.flight.connect(f"grpc://127.0.0.1:{port}").do_get(pyarrow.flight.Ticket(b""))
def read(until):
    n = 0
    while n < until: n += reader.read_chunk().data.nbytes
    return n, 0
""",
    "penstock": """
import penstock
stream = penstock.connect(f"127.0.0.1:{port}").stream("ready", batch_size=batch, transport=transport, output=output)
steps = iter(stream)
def read(until):
    n = taken = 0
    while n < until:
        next(steps); n += batch * 8192; taken += 1
    return n, taken
""",
}
CLIENT = """
import json, os, resource, socket, sys, time
port, total, batch, transport, output = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
{reader}
read(256e6)
began, cpu, faults = time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
size, taken = read(total)
seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
print(json.dumps(dict(gb_per_s=size / 1e9 / seconds, cpu_s_per_gb=cpu / (size / 1e9), cpu_s=cpu, gb=size / 1e9,
    steps=taken, faults_per_mb=faults / (size / 1e6))), flush=True)
os._exit(0)
"""


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """A server of `benchmarks.ready`; gives its port."""
    command = [sys.executable, "-m", "benchmarks.ready", kind]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
    finally:
        process.kill()
        process.wait(30)


def run(kind: str, port: str, gigabytes: float, batch: int = 32, transport: str = "grpc", output: str = "numpy") -> Any:
    script = CLIENT.replace("{reader}", READERS[kind])
    arguments = [port, str(gigabytes * 1e9), str(batch), transport, output]
    done = subprocess.run([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def fitted(runs: Sequence[dict[str, Any]]) -> dict[str, float]:
    """CPU for a step and for a GB."""
    cost = np.array([[r["steps"], r["gb"]] for r in runs])
    (step, gigabyte), *_ = np.linalg.lstsq(cost, np.array([r["cpu_s"] for r in runs]), rcond=None)
    return {"cpu_us_per_step": step * 1e6, "cpu_s_per_gb": gigabyte}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    wire: dict[str, list[dict[str, Any]]] = {
        "penstock over tcp": [],
        "penstock over grpc": [],
        "socket": [],
        "flight": [],
    }
    trainer: dict[str, list[dict[str, float]]] = {name: [] for name in OVER}
    with ExitStack() as stack:
        ports = {kind: stack.enter_context(serving(kind)) for kind in KINDS}
        for repeat in range(options.repeats):
            for name in wire:
                kind, _, over = name.partition(" over ")
                wire[name].append(run(kind, ports[kind], options.gigabytes, transport=over or "-"))
                print(repeat, name, wire[name][-1], file=sys.stderr)
            for name in ("penstock over tcp", "penstock over grpc"):
                for peer in ("socket", "flight"):
                    wire[name][-1][f"share_of_{peer}"] = wire[name][-1]["gb_per_s"] / wire[peer][-1]["gb_per_s"]
            for name, transport in OVER.items():
                runs = [run("penstock", ports["penstock"], options.gigabytes, b, transport, "torch") for b in BATCHES]
                trainer[name].append(fitted(runs))
                print(repeat, name, trainer[name][-1], file=sys.stderr)
    cases = {kind: harness.spread(runs) for kind, runs in wire.items()}
    cases.update({f"trainer over {name}": harness.spread(fits) for name, fits in trainer.items()})
    found = harness.report(cases, options.repeats)
    for name, case in found["cases"].items():
        print(f"{name:20}", *(f"{key} {value['median']:.3g}" for key, value in case.items()))
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
