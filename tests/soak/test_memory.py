"""Memory of server and client stays where it is, however long they run. SOAK_SECONDS (default 20) says how long."""

import os
import time
from pathlib import Path

import psutil
import pytest

import penstock
from tests import datafiles
from tests.conftest import Serve

SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
pytestmark = [pytest.mark.soak, pytest.mark.timeout(int(SECONDS) * 2 + 120)]


def held(pid: int) -> int:
    """Anonymous and shared memory in bytes: mapped chunks belong to the page cache."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def test_memory_is_flat_over_epochs_streams_and_restarted_loops(serve: Serve, tmp_path: Path) -> None:
    if not Path("/proc/self/status").exists():
        pytest.skip("reads the kernel's own numbers, which only Linux has")
    server = serve(datafiles.parquet(tmp_path / "rows", 8, 5000))
    me, batches, samples = os.getpid(), 0, []
    began = time.monotonic()
    with penstock.connect(server.target) as client:
        while (passed := time.monotonic() - began) < SECONDS:
            with client.stream("rows", batch_size=8, output="numpy", pool_rows=8000, seed=batches % 5) as stream:
                for batch in stream:
                    batches += 1
                    if batch.metadata.step == 4000:
                        break
            if passed > SECONDS / 3:
                samples.append((held(server.process.pid), held(me)))
    quarter = max(1, len(samples) // 4)
    for name, side in (("server", 0), ("client", 1)):
        early = sorted(s[side] for s in samples[:quarter])[quarter // 2]
        late = sorted(s[side] for s in samples[-quarter:])[quarter // 2]
        assert late <= early * 1.05 + (8 << 20), f"{name}: {early >> 20} MiB, then {late >> 20} after {batches} batches"
    assert psutil.Process(server.process.pid).num_threads() < 60
    print(f"{batches} batches; server and client held {[f'{b / 1e6:.0f} MB' for b in samples[-1]]}")
