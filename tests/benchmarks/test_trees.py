import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import trees

BURN = "import time\nwhile time.process_time() < 0.3: pass"


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that has printed its first line; `code` ends by reading stdin."""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process


def test_cpu_counts_children_alive_and_ended() -> None:
    ended = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\nprint(1, flush=True)\ninput()"
    child = BURN + "\nprint(1, flush=True)\ninput()"
    alive = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    for code, processes in ((ended, 1), (alive, 2)):
        with running(code) as process:
            assert len(trees.members(process.pid)) == processes
            assert trees.cpu_seconds(process.pid) > 0.25  # the kernel counts in ticks
            process.communicate("\n")


def test_memory_is_summed_over_the_tree() -> None:
    size = 64 << 20
    child = f"held = b'x' * {size}\nprint(1, flush=True)\ninput()"
    parent = f"import subprocess, sys\nheld = b'x' * {size}\nsubprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    with running(parent) as process:
        held = trees.held(process.pid)
        assert 2 * size < held.own <= held.rss
        assert trees.pss(process.pid) > 2 * size
        process.communicate("\n")


def test_a_process_that_is_gone_has_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert trees.held(process.pid) == trees.Held(0, 0)
    assert trees.cpu_seconds(process.pid) == 0
    assert trees.members(os.getpid())[0] == os.getpid()
