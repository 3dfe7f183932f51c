"""Server, workers and client without the calls that only Linux has: what else would a Mac lack?"""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]

LINUX_ONLY = """
import mmap, os, select
for module, names in {
    os: "posix_fallocate posix_fadvise sched_getaffinity sched_setaffinity fdatasync copy_file_range memfd_create "
        "eventfd pidfd_open splice getrandom pipe2 O_TMPFILE O_DIRECT",
    mmap: "MADV_REMOVE MADV_HUGEPAGE MADV_DONTFORK MAP_POPULATE",
    select: "epoll",
}.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
"""

TRAINER = """
import os, sys
import penstock
assert not hasattr(os, "posix_fallocate")
target, transport = sys.argv[1:]
with penstock.connect(target) as client:
    with client.stream("rows", batch_size=40, seed=3, output="numpy", transport=transport) as stream:
        ids = sorted(i for batch in stream for i in batch["id"].tolist())
        print(ids == list(range(2000)), stream.profile()["transport"])
"""


@pytest.fixture
def lacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LINUX_ONLY)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_every_row_comes_over_every_transport(serve: Serve, tmp_path: Path, kind: str) -> None:
    data = datafiles.parquet(tmp_path / "rows", shards=4, rows=500)
    server = serve(data, "--worker-kind", kind, "--chunk-rows", "300")
    for asked, used in (("auto", "shm"), ("tcp", "tcp"), ("grpc", "grpc")):
        trainer = [sys.executable, "-c", TRAINER, server.target, asked]
        done = subprocess.run(trainer, check=True, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["True", used], done.stderr
    assert server.stop() == 0
    assert "Traceback" not in server.log.read_text()


def test_a_server_opens_as_many_files_as_it_may(serve: Serve, tmp_path: Path) -> None:
    """macOS begins with 256, a shell on Linux with 1,024; each session takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server = serve(datafiles.parquet(tmp_path / "rows", shards=1, rows=10))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE)[0] >= min(hard, 10_240)
