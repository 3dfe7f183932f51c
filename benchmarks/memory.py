"""Does memory stay where it is? RssAnon + RssShmem of server and client over 1,000,000 batches.

One server and one client process, many epochs of a shuffled dataset; 500,000 batches first, until every thread has met
its largest bundle. Compared are the medians of the first and of the last tenth of what follows; `anonymous` leaves
slots of shared memory out. `--quick`: a tenth.

    python -m benchmarks.memory --json benchmarks/results/memory.json
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from benchmarks import harness, watching
from benchmarks.rows import Case

ROWS = Case("small", 262_144, 16, 32, 64 * 4 + 12)

CLIENT = """
import sys, time, torch, penstock
target, warm, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(1)
batches, began = 0, 0.0
with penstock.connect(target) as client, client.stream("small", batch_size=32, seed=1, pool_rows=50_000) as stream:
    while batches < warm + wanted:
        for batch in stream:
            batches += 1
            if batches == warm:
                began = time.perf_counter()
                print("warm", flush=True)
            if batches == warm + wanted:
                break
print(batches - warm, time.perf_counter() - began)
"""


def drift(samples: list[int]) -> dict[str, Any]:
    tenth = len(samples) // 10
    early, late = (statistics.median(part) for part in (samples[:tenth], samples[-tenth:]))
    return {
        "early_mb": early / 1e6,
        "late_mb": late / 1e6,
        "late_to_early": late / early,
        "peak_mb": max(samples) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        ROWS.write(folder / "small")
        with harness.server(folder, [folder / "small"]) as (process, target):
            wanted = 100_000 if options.quick else 1_000_000
            arguments = [sys.executable, "-c", CLIENT, target, str(wanted // 2), str(wanted)]
            client = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
            sides = {"server": process, "client": psutil.Process(client.pid)}
            readings = {side: partial(watching.held, one) for side, one in sides.items()}
            own = {
                f"{side}, anonymous": partial(watching.held, one, kinds=("RssAnon:",)) for side, one in sides.items()
            }
            with watching.Memory(readings | own) as memory:
                assert client.stdout is not None
                client.stdout.readline()
                first = len(memory.samples)
                output, _ = client.communicate()
    if client.returncode:
        raise SystemExit(f"the client ended with {client.returncode}")
    batches, seconds = output.split()
    cases: dict[str, Any] = {
        side: drift([sample[side] for _, sample in memory.samples[first:] if sample[side]])
        for side in (*readings, *own)
    }
    for side, case in cases.items():  # on the way, the first 500,000 included
        case["every_twentieth_mb"] = [
            round(memory.samples[i * (len(memory.samples) - 1) // 20][1][side] / 1e6, 1) for i in range(21)
        ]
    report = harness.report(cases, 1) | {"batches": int(batches), "seconds": float(seconds)}
    print(f"{int(batches):,} batches in {float(seconds):.0f} s ({int(batches) / float(seconds):,.0f} steps/s)")
    for side, case in cases.items():
        print(f"{side}: {case['early_mb']:.1f} MB, then {case['late_mb']:.1f} MB: {case['late_to_early']:.3f}")
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
