"""How long does a trainer wait after its server was killed? kill -9 to the next batch that the new server made.

A client streams with a small window; the server is killed in the middle of an epoch and started again at once, with the
same command. Reported: seconds from the kill to the first batch of the new server, of those the seconds until the new
process said it was ready, and the difference: what reconnecting, seeking and gathering cost.

    python -m benchmarks.restart --json benchmarks/results/restart.json
"""

import argparse
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import penstock
from benchmarks import harness
from benchmarks.rows import Case

ROWS = Case("small", 4_194_304, 32, 256, 64 * 4 + 12)
PACE = 0.002  # seconds of a training step; slower than the server, so that the window is full when it is killed
WINDOW = 8  # steps


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Trainer(threading.Thread):
    """Steps through the stream and notes when each batch came."""

    def __init__(self, stream: penstock.Stream) -> None:
        super().__init__(daemon=True)
        self.came: list[float] = []
        self.enough = threading.Event()
        self._stream = stream

    def run(self) -> None:
        with self._stream as stream:
            for _ in stream:
                self.came.append(time.perf_counter())
                if self.enough.wait(PACE):
                    return

    def after(self, batches: int) -> float:
        """When the batch came before which there were so many; waits for it."""
        while len(self.came) <= batches:
            if not self.is_alive():
                raise SystemExit("the trainer ended before the server was back")
            time.sleep(0.001)  # a thousandth of what is measured; the reader thread tells nobody
        return self.came[batches]


def run(folder: Path, port: int) -> dict[str, float]:
    paths, address = [folder / "small"], f"127.0.0.1:{port}"
    with harness.server(folder, paths, grpc=address) as (process, target), penstock.connect(target) as client:
        stream = client.stream("small", batch_size=256, seed=3, output="numpy", pool_rows=400_000, prefetch=WINDOW)
        trainer = Trainer(stream)
        trainer.start()
        trainer.after(4000)
        killed = time.perf_counter()
        process.kill()
        process.wait()
        with harness.server(folder, paths, grpc=address):
            ready = time.perf_counter()
            before = sum(t < ready for t in trainer.came)  # the window is drained, or will be in a moment
            gap = max(range(1, before + WINDOW + 2), key=lambda i: trainer.after(i) - trainer.after(i - 1))
            back = trainer.after(gap)
            trainer.enough.set()
            trainer.join()
    return {
        "kill_to_batch_s": back - killed,
        "process_start_s": ready - killed,
        "beyond_start_s": back - ready,
        "longest_wait_s": back - trainer.came[gap - 1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder, port = Path(name), free_port()
        ROWS.write(folder / "small")
        for repeat in range(options.repeats):
            results.append(run(folder, port))
            print(repeat, {k: round(v, 3) for k, v in results[-1].items()}, file=sys.stderr)
    report = harness.report({"kill -9": harness.spread(results)}, options.repeats)
    for key, value in report["cases"]["kill -9"].items():
        print(f"{key:16} {value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})")
    harness.save(options.json, report)


if __name__ == "__main__":
    main()
