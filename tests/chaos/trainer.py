"""A trainer in a process of its own, to be killed: what it got is in a file before it asks for more."""

import ctypes
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import penstock

SAVE_EVERY = 5  # steps: ranks save at the same ones, as trainers do

# Forked of a process that has imported everything and opened nothing: a trainer is there in milliseconds.
_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.chaos.trainer"])


@dataclass(frozen=True)
class Job:
    """What one rank is to read, and where it writes down what it got."""

    target: str
    job: str
    datasets: Any
    rank: int
    world_size: int
    batch: int  # rows per rank
    wish: dict[str, Any]
    file: Path
    state: str = ""  # where to begin; empty: at the start
    pace: float = 0.0  # seconds of work after each step
    hold_gil: float = 0.0  # seconds, once, after the first steps

    def start(self) -> ForkServerProcess:
        process = _context.Process(target=_train, args=(self,))
        process.start()
        return process

    def resumed(self) -> "Job":
        """The same rank again, from the state it saved last; what came after that is forgotten."""
        found = read(self.file)
        lines = [json.dumps({"ids": ids}) for ids in found.steps[: found.saved_at]]
        if found.saved:
            lines.append(json.dumps({"state": found.saved}))
        self.file.write_text("".join(f"{line}\n" for line in lines))
        return replace(self, state=found.saved or self.state)


@dataclass
class Found:
    """What a file says: the ids of each step, the last state and after how many steps it was saved."""

    steps: list[list[int]]
    saved: str
    saved_at: int
    ended: bool
    reconnects: int = 0
    error: str = ""


def read(file: Path) -> Found:
    """A last line that was cut off by a kill is no line."""
    found = Found([], "", 0, False)
    text = file.read_text() if file.exists() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        said = json.loads(line)
        if "ids" in said:
            found.steps.append(said["ids"])
        elif "state" in said:
            found.saved, found.saved_at = said["state"], len(found.steps)
        elif "error" in said:
            found.error = said["error"]
        else:
            found.ended, found.reconnects = True, said["reconnects"]
    return found


def _train(job: Job) -> None:
    log = os.open(job.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(said: dict[str, Any]) -> None:
        os.write(log, (json.dumps(said) + "\n").encode())
        os.fsync(log)

    try:
        _read_epoch(job, note)
    except penstock.PenstockError as error:
        note({"error": f"{type(error).__name__}: {error}"})
        raise


def _read_epoch(job: Job, note: Callable[[dict[str, Any]], None]) -> None:
    with penstock.connect(job.target, job=job.job) as client:
        stream = client.stream(
            job.datasets,
            batch_size=job.batch,
            rank=job.rank,
            world_size=job.world_size,
            output="numpy",
            name="s",
            **job.wish,
        )
        with stream:
            if job.state:
                stream.load_state_dict(json.loads(job.state))
            _wait_for_server(stream)
            for batch in stream:
                ids = batch["id"][batch["valid"]] if "valid" in batch else batch["id"]  # a rank with none gets padding
                note({"ids": ids.tolist()})
                if "row_ids" in job.wish:
                    assert len(batch.metadata.ids) == len(batch["id"])
                step = batch.metadata.step
                if step % SAVE_EVERY == SAVE_EVERY - 1:
                    note({"state": json.dumps(stream.state_dict())})
                time.sleep(job.pace)
                if step == 10 and job.hold_gil:
                    ctypes.PyDLL(None).usleep(int(job.hold_gil * 1e6))  # PyDLL: a call that does not let go of the GIL
            note({"reconnects": stream.profile()["reconnects"]})


def _wait_for_server(stream: penstock.Stream) -> None:
    """A trainer started while the server is being started gives up after ten seconds; its launcher starts it again."""
    for _ in range(5):
        try:
            assert stream.plan
        except penstock.ServerUnavailable:
            continue
        return
