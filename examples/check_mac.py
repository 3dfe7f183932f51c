"""Proves on a Mac what this project could only write, not run: MLX arrays that share memory with received bytes.

python examples/check_mac.py          (needs: pip install 'penstock[service,mlx]')

Prints a line for each promise of docs/mlx.md: ok, FAILED, or "not here". Ends with 1 if one failed.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import numpy as np
import pyarrow as pa
import pyarrow.parquet

import penstock
from penstock.tensors.copies import PAGE, page_aligned, pages_of
from penstock.tensors.to_mlx import why_not_unified

ROWS, WIDTH, BATCH = 4096, 4096, 256  # 16 KiB a row, 4 MiB a step


def main() -> int:
    reason = why_not_unified()
    metal = "is here" if mx.metal.is_available() else "is not here"
    print(f"mlx {version('mlx')}, Metal {metal}, pages of {PAGE} bytes")
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        target, server = serve(Path(name))
        try:
            with penstock.connect(target) as client:
                checks = [
                    ("MLX adopts page-aligned memory without a copy", lambda: adopts(reason)),
                    ("values are those that were stored, with sharing as without", lambda: same_values(client)),
                    ("large columns are not copied", lambda: copies(client, reason)),
                    ("batches that are kept stay what they were", lambda: kept(client)),
                    ("memory does not grow over epochs", lambda: bounded(client)),
                ]
                for what, check in checks:
                    failed += not told(what, check)
                for unified in (None, False):
                    print(f"unified_memory={unified}: {rate(client, unified):,.0f} MB/s")
        finally:
            server.terminate()
            server.wait(30)
    return 1 if failed else 0


def serve(folder: Path) -> tuple[str, "subprocess.Popen[str]"]:
    (folder / "rows").mkdir()
    values = np.arange(ROWS * WIDTH, dtype=np.float32) % 65_521
    wide = pa.FixedSizeListArray.from_arrays(pa.array(values), WIDTH)
    pa.parquet.write_table(pa.table({"id": range(ROWS), "x": wide}), folder / "rows" / "a.parquet")
    command = [sys.executable, "-m", "penstock_service", "serve", str(folder / "rows"), "--grpc", "127.0.0.1:0"]
    command += ["--http", "127.0.0.1:0", "--state-dir", str(folder / "state"), "--store-dir", str(folder / "store")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None  # noqa: S101 - it is a pipe
    line = server.stdout.readline()
    if "grpc=" not in line:
        raise SystemExit("the server did not start: penstock doctor, or penstock serve, says why")
    return line.split("grpc=")[1].split()[0], server


def told(what: str, check: Callable[[], str]) -> bool:
    """One line; a check gives what it saw, or raises."""
    try:
        print(f"ok        {what}: {check()}")
    except NotHereError as absent:
        print(f"not here  {what}: {absent}")
    except Exception as error:  # noqa: BLE001 - whatever happens is the finding
        print(f"FAILED    {what}: {error!r}")
        return False
    return True


class NotHereError(Exception):
    """The check needs Metal."""


def adopts(reason: str) -> str:
    if reason:
        raise NotHereError(reason)
    memory = page_aligned(64 << 20)
    started = time.perf_counter()
    array = mx.from_dlpack(pages_of(memory), copy=False)
    mx.eval(array)
    seconds = time.perf_counter() - started
    memory[1 << 20] = 9
    if array[1 << 20].item() != 9:
        raise AssertionError("what is written afterwards is not seen: it was copied")
    return f"64 MiB in {seconds * 1e3:.2f} ms"


def same_values(client: penstock.Client) -> str:
    for unified in (None, False):
        with client.stream("rows", batch_size=BATCH, output="mlx", unified_memory=unified) as stream:
            for batch in stream:
                want = (batch.id[:, None] * WIDTH + mx.arange(WIDTH)[None, :]) % 65_521
                if not mx.array_equal(batch.x, want.astype(mx.float32)).item():
                    raise AssertionError(f"step {batch.metadata.step} differs with unified_memory={unified}")
    return f"{ROWS} rows twice"


def copies(client: penstock.Client, reason: str) -> str:
    with client.stream("rows", batch_size=BATCH, output="mlx") as stream:
        for batch in stream:
            mx.eval(batch.x.sum())
        found = float(stream.profile()["copies"])
    if reason:
        raise NotHereError(f"{found:.2f} copies")
    if found > 0.1:
        raise AssertionError(f"{found:.2f} copies")
    return f"{found:.2f} copies"


def kept(client: penstock.Client) -> str:
    with client.stream("rows", batch_size=BATCH, output="mlx") as stream:
        batches = [(batch.x, mx.sum(batch.x).item()) for batch in stream]
    if any(mx.sum(x).item() != total for x, total in batches):
        raise AssertionError("a batch changed after it was handed out")
    return f"{len(batches)} batches, after the stream was closed"


def bounded(client: penstock.Client) -> str:
    peaks = []
    with client.stream("rows", batch_size=BATCH, output="mlx") as stream:
        for _ in range(6):
            for batch in stream:
                mx.eval(batch.x.sum())
            peaks.append(mx.get_active_memory())
    if peaks[-1] > peaks[1] + (256 << 20):
        raise AssertionError(f"active memory after each epoch: {peaks}")
    return f"{peaks[-1] >> 20} MiB active after 6 epochs of {ROWS * WIDTH * 4 >> 20} MiB"


def rate(client: penstock.Client, unified: bool | None) -> float:
    with client.stream("rows", batch_size=BATCH, output="mlx", unified_memory=unified) as stream:
        for _ in range(3):
            for batch in stream:
                mx.eval(batch.x.sum())
        return float(stream.profile()["bytes_per_s"]) / 1e6


if __name__ == "__main__":
    sys.exit(main())
