"""What does a server cost that has nothing to do? CPU of a core, with no session and with 8 idle ones.

Idle sessions are trainers that took a step and then nothing: their windows are full. CPU is that of the server process
over some seconds; how often its threads woke up is counted by the kernel (voluntary context switches).

    python -m benchmarks.idle --json benchmarks/results/idle.json
"""

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from benchmarks import harness
from benchmarks.rows import Case

ROWS = Case("small", 65_536, 4, 32, 64 * 4 + 12)
SESSIONS = (0, 1, 8)

CLIENT = """
import sys
import penstock
with penstock.connect(sys.argv[1], job=sys.argv[2]) as client:
    stream = client.stream("small", batch_size=32, seed=1, prefetch=8, output="numpy")
    stream.get_batch()
    print("idle", flush=True)
    sys.stdin.readline()
"""


def wakes(process: psutil.Process) -> int:
    """How often threads of the process gave the processor up by themselves, which is how often they were woken."""
    total = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        lines = status.read_text().splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total


def run(process: psutil.Process, target: str, sessions: int, seconds: float) -> dict[str, Any]:
    with ExitStack() as stack:
        for n in range(sessions):
            command = [sys.executable, "-c", CLIENT, target, f"job-{n}"]
            client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(client.communicate, "\n")
            assert client.stdout is not None
            client.stdout.readline()
        time.sleep(2)  # look-ahead has come to its end
        cpu, woken, began = harness.cpu_seconds(process), wakes(process), time.perf_counter()
        time.sleep(seconds)  # the stretch that is measured
        passed = time.perf_counter() - began
        return {
            "core_share": (harness.cpu_seconds(process) - cpu) / passed,
            "wakes_per_s": (wakes(process) - woken) / passed,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, list[dict[str, Any]]] = {f"{n} sessions": [] for n in SESSIONS}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        ROWS.write(folder / "small")
        with harness.server(folder, [folder / "small"]) as (process, target):
            for _ in range(options.repeats):
                for sessions in SESSIONS:
                    results[f"{sessions} sessions"].append(run(process, target, sessions, options.seconds))
    found = harness.report({case: harness.spread(runs) for case, runs in results.items()}, options.repeats)
    print(f"{'':12} {'share of a core':>16} {'wakes/s':>10}")
    for case, numbers in found["cases"].items():
        print(f"{case:12} {numbers['core_share']['median']:16.2%} {numbers['wakes_per_s']['median']:10.1f}")
    harness.save(options.json, found)


if __name__ == "__main__":
    main()
