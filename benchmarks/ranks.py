"""How do ranks add up? Rows/s over all ranks of one job at 1, 2, 4, 8 and 16 ranks, and who was busy.

Each rank is a process on the same machine; the store and the page cache are warm (one epoch is read first and not
counted), and runs of different sizes are interleaved. Windows are small (2 MiB), so that little was made before the
clock began. CPU of the server and of the clients stands beside the rows/s, in cores: where both together come near the
machine's cores, those end the growth; where the server alone stays near one core, its event loop does. `--quick`: a
short epoch, twice.

    python -m benchmarks.ranks --json benchmarks/results/ranks.json
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

import psutil

from benchmarks import harness
from benchmarks.rows import Case

RANKS = (1, 2, 4, 8, 16)

CLIENT = """
import json, sys, time
import penstock
target, rank, world, batch, epochs, job, over = (sys.argv[1], *map(int, sys.argv[2:6]), *sys.argv[6:8])
with penstock.connect(target, job=job) as client:
    stream = client.stream("small", global_batch_size=batch, rank=rank, world_size=world, seed=1, output="numpy",
        prefetch_bytes=2 << 20, transport=over)
    for _ in stream: pass
    print("warm", flush=True); sys.stdin.readline()
    rows, began, cpu = 0, time.perf_counter(), time.process_time()
    for _ in range(epochs):
        for item in stream: rows += item.metadata.rows
    print(json.dumps({"rows": rows, "cpu": time.process_time() - cpu}), flush=True)
    sys.stdin.readline()
"""


def run(case: Case, process: psutil.Process, target: str, ranks: int, epochs: int, over: str) -> dict[str, Any]:
    job = f"{ranks}-{time.monotonic_ns()}"
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, target, *map(str, (rank, ranks, case.batch, epochs)), job, over],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    for client in clients:
        assert client.stdout is not None
        client.stdout.readline()
    time.sleep(0.5)  # the look-ahead has filled the windows: nobody works
    cpu, idle, began = harness.cpu_seconds(process), psutil.cpu_times().idle, time.perf_counter()
    for client in clients:
        assert client.stdin is not None
        client.stdin.write("go\n")
        client.stdin.flush()
    said = []
    for client in clients:
        assert client.stdout is not None
        said.append(json.loads(client.stdout.readline()))
    seconds = time.perf_counter() - began
    server = harness.cpu_seconds(process) - cpu
    busy = (os.cpu_count() or 1) - (psutil.cpu_times().idle - idle) / seconds
    for client in clients:
        client.communicate("\n", timeout=30)
    rows = sum(each["rows"] for each in said)
    trainers = sum(each["cpu"] for each in said)
    return {
        "rows_per_s": rows / seconds,
        "server_cores": server / seconds,
        "client_cores": trainers / seconds,
        "busy_cores": busy,
        "server_cpu_us_per_row": server / rows * 1e6,
        "client_cpu_us_per_row": trainers / rows * 1e6,
    }


def ended_by(numbers: dict[str, dict[str, float]]) -> str:
    """What was used up at this size, in words."""
    cores = os.cpu_count() or 1
    server, clients, busy = (numbers[f"{what}_cores"]["median"] for what in ("server", "client", "busy"))
    if busy > 0.85 * cores:
        others = max(0.0, busy - server - clients)
        return f"the machine's {cores} cores" + (f", {others:.1f} of them by other work" if others > 0.2 else "")
    return "the server's event loop" if server > 0.9 else "none: somebody waits"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--transport", choices=("auto", "tcp", "grpc"), default="auto")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, repeats, epochs = (262_144, 2, 4) if options.quick else (1_048_576, options.repeats, 3)
    case = Case("small", rows, 16, 4096, 64 * 4 + 12)
    results: dict[str, list[dict[str, Any]]] = {f"{ranks} ranks": [] for ranks in RANKS}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        case.write(folder / case.name)
        with harness.server(folder, [folder / case.name]) as (process, target):
            for repeat in range(repeats):
                for ranks in RANKS:
                    numbers = run(case, process, target, ranks, epochs, options.transport)
                    results[f"{ranks} ranks"].append(numbers)
                    print(repeat, ranks, numbers, file=sys.stderr)
    cases: dict[str, Any] = {name: harness.spread(runs) for name, runs in results.items()}
    names = ("rows/s", "server cores", "client cores", "busy cores", "server us/row", "client us/row")
    print(f"{'':9} " + " ".join(f"{name:>13}" for name in names) + "  used up")
    for name, numbers in cases.items():
        rate, *rest = (number["median"] for number in numbers.values())
        used = ended_by(numbers)
        print(f"{name:9} {rate:13,.0f} " + " ".join(f"{value:13.3f}" for value in rest) + f"  {used}")
        numbers["used_up"] = used
    harness.save(options.json, harness.report(cases, repeats))


if __name__ == "__main__":
    main()
