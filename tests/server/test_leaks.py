"""Streams that are opened and left in every way leave nothing behind: no session, thread or file, on either side."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests import datafiles
from tests.running import Running

Serve = Callable[..., Running]

# The server's pool for blocking calls grows to its own bound (CPUs + 4) whenever it likes.
POOL = (psutil.cpu_count() or 1) + 4

SCRIPT = """
import gc, itertools, json, os, signal, sys, threading, time
import psutil
import penstock

target = sys.argv[1]
me = psutil.Process()
over = itertools.cycle(["auto", "tcp", "grpc"])

def break_off(client):
    for batch in client.stream("rows", batch_size=10, transport=next(over), output="numpy"):
        break

def raise_inside(client):
    try:
        with client.stream("rows", batch_size=10, transport=next(over), output="numpy") as stream:
            for batch in stream:
                raise ValueError("the trainer's own trouble")
    except ValueError:
        pass

def collect(client):
    class Trainer:
        def __init__(self):
            self.me = self
            self.stream = client.stream("rows", batch_size=10, transport=next(over), output="numpy", prefetch=2)
            self.stream.get_batch()
    Trainer()
    gc.collect()

def close_twice(client):
    stream = client.stream("rows", batch_size=10, transport=next(over), output="numpy")
    next(iter(stream))
    stream.close()
    stream.close()

def only_look(client):
    len(client.stream("rows", batch_size=10, transport=next(over), output="numpy"))

def read_to_the_end(client):
    assert sum(len(b["id"]) for b in client.stream("rows", batch_size=10, transport=next(over), output="numpy")) == 500

def be_refused(client):
    try:
        client.stream("nothing", batch_size=10, transport=next(over), output="numpy").get_batch()
    except penstock.DatasetNotFound:
        pass

def move_about(client):
    with client.stream("rows", batch_size=10, transport=next(over), output="numpy") as stream:
        for n in (3, 5, 7):
            stream.get_batch(n)
        stream.reset()
        stream.get_batch()

def fork(client):
    stream = client.stream("rows", batch_size=10, transport=next(over), output="numpy", prefetch=2)
    stream.get_batch()
    child = os.fork()
    if child == 0:
        try:
            for _ in range(5):
                stream.get_batch()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    stream.get_batch()

def killed(client):
    child = os.fork()
    if child == 0:
        own = penstock.connect(target)
        stream = own.stream("rows", batch_size=10, transport=next(over), output="numpy")
        stream.get_batch()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

WAYS = [break_off, raise_inside, collect, close_twice, only_look, read_to_the_end, be_refused, move_about, fork, killed]

def round():
    with penstock.connect(target) as client:
        for way in WAYS:
            way(client)
    next(over)  # another transport for each way than the round before
    gc.collect()

def held():
    return {"threads": me.num_threads(), "files": me.num_fds()}

def settled(limit):
    # What was let go ends a moment later, on its own thread.
    deadline = time.monotonic() + 20
    while any(held()[k] > limit[k] for k in limit) and time.monotonic() < deadline:
        time.sleep(0.1)
    return held()

def say(what):
    print(json.dumps(what), flush=True)
    sys.stdin.readline()

for _ in range(2):
    round()
time.sleep(1)
before = held()
say({"before": before})
for _ in range(6):
    round()
say({"after": settled(before), "receivers": [t.name for t in threading.enumerate() if t.name == "penstock-receiver"]})
"""


def held(server: Running) -> dict[str, int]:
    process = psutil.Process(server.process.pid)
    return {"threads": process.num_threads(), "files": process.num_fds()}


def settle(server: Running, limit: dict[str, int] | None = None) -> dict[str, int]:
    """What the server holds when no session is left (and it holds no more than `limit`, or seconds have passed)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        idle = json.loads(server.get("/api/v1/sessions"))["sessions"] == []
        if idle and (limit is None or all(held(server)[k] <= limit[k] for k in limit)):
            break
        time.sleep(0.1)
    return held(server)


def test_streams_left_in_every_way_leave_nothing_behind(serve: Serve, tmp_path: Path) -> None:
    server = serve(datafiles.parquet(tmp_path / "rows", shards=2, rows=250), "--workers", "2")
    client = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SCRIPT, server.target],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdout is not None
    assert client.stdin is not None
    with client:
        before = json.loads(client.stdout.readline())["before"]
        there = settle(server)
        there["threads"] += POOL
        client.stdin.write("on\n")
        client.stdin.flush()
        found = json.loads(client.stdout.readline())
        after = settle(server, there)
        opened = server.metric("penstock_sessions_opened_total")
        client.stdin.write("end\n")
    assert client.returncode == 0
    assert opened >= 8 * 9  # so the rounds did what they say
    assert found["receivers"] == []
    assert all(found["after"][k] <= before[k] for k in before), (before, found)
    assert json.loads(server.get("/api/v1/sessions"))["sessions"] == []
    assert json.loads(server.get("/api/v1/jobs"))["jobs"] == []
    assert all(after[k] <= there[k] for k in there), (there, after)
    assert "session ended by a bug" not in server.log.read_text()
