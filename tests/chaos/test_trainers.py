"""Trainers in processes of their own that are killed, stopped and started again, on servers that die too.

Each history is drawn from its seed. What every trainer wrote down before its last saved state, and what its successors
got after it, put together over ranks, are the rows of an undisturbed run in their order.
CHAOS_HISTORIES says how many histories, CHAOS_SEED which is the first; a failing one prints its seed.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil
import pytest

import penstock
from tests import datafiles
from tests.chaos.trainer import Job, read
from tests.running import Running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]

HISTORIES = int(os.environ.get("CHAOS_HISTORIES", "50"))
FIRST = int(os.environ.get("CHAOS_SEED", "0"))

MIXED = {"pool_rows": 600, "seed": 5}  # 150 rows leave at a time: more than twenty segments in an epoch
STREAMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "three datasets": (["a", "b", "c"], MIXED),
    "a filtered mixture that ends with the first": (
        {"a": 2.0, "b": 1.0, "c": 1.0},
        {**MIXED, "until": "first", "rows": [{"filter": "y != 3"}], "row_ids": True},
    ),
    "a mixture that reads some rows again": ({"a": 1.0, "c": 3.0}, {**MIXED, "until": "repeat", "epoch_rows": 4000}),
    "stored order": (["a", "b", "c"], {"shuffle": False, "prefetch": 2}),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("trainers")
    data = [
        datafiles.parquet(folder / "a", 5, 500, row_group=125),
        datafiles.jsonl(folder / "b", 2, 500, first=100_000),
        datafiles.csv(folder / "c", 1, 700, first=200_000),
    ]
    flags = ("--chunk-rows", "100", "--worker-kind", "processes", "--workers", "1", "--store-bytes", "64KiB")
    with Running(tuple(map(str, data)), folder / "server", flags) as running:
        yield running


@pytest.fixture(scope="module")
def golden(server: Running) -> dict[str, list[int]]:
    orders = {}
    with penstock.connect(server.target) as client:
        for name, (datasets, wish) in STREAMS.items():
            with client.stream(datasets, batch_size=64, output="numpy", **wish) as stream:
                orders[name] = [int(i) for batch in stream for i in batch["id"]]
    assert sorted(orders["stored order"]) == sorted(set(orders["three datasets"]))
    assert len(orders["stored order"]) == 4200
    return orders


class History:
    """Some ranks, one fault after another, and what all of them got."""

    def __init__(self, server: Running, folder: Path, seed: int) -> None:
        self.server, self.folder, self.seed = server, folder, seed
        self.dice = random.Random(seed)
        self.stream = self.dice.choice(list(STREAMS))
        self.told: list[str] = []
        self.rows: list[int] = []  # of incarnations that have ended, up to the state that the next one began at
        self.incarnation, self.ended = 0, False
        self.begin(self.dice.choice([1, 2, 3]), "")

    def begin(self, world: int, state: str) -> None:
        datasets, wish = STREAMS[self.stream]
        self.incarnation += 1
        batch, transport = self.dice.choice([8, 15, 20]), self.dice.choice(["auto", "tcp", "grpc"])
        self.jobs = [
            Job(
                self.server.target,
                f"history {self.seed}",
                datasets,
                rank,
                world,
                batch,
                {**wish, "transport": transport},
                self.folder / f"{self.incarnation}-{rank}.jsonl",
                state,
            )
            for rank in range(world)
        ]
        self.processes = [job.start() for job in self.jobs]

    # -- faults -------------------------------------------------------------------------------------------------

    def kill_a_trainer(self) -> None:
        rank = self.dice.randrange(len(self.jobs))
        end(self.processes[rank])
        self.jobs[rank] = self.jobs[rank].resumed()
        self.processes[rank] = self.jobs[rank].start()

    def stop_a_trainer(self) -> None:
        process = self.dice.choice(self.processes)
        if process.is_alive():
            assert process.pid is not None
            with contextlib.suppress(ProcessLookupError):  # it has come to its end meanwhile
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(self.dice.uniform(0.05, 0.5))
                os.kill(process.pid, signal.SIGCONT)

    def change_the_world(self) -> None:
        """All trainers die; others, perhaps more or fewer, go on from the latest state that all of them had saved."""
        for process in self.processes:
            end(process)
        state = self.collect()
        if not self.ended:
            self.begin(self.dice.choice([1, 2, 3, 4]), state)

    def kill_the_server(self) -> None:
        if self.dice.random() < 0.4:
            self.server.stop(signal.SIGTERM)
        else:
            self.server.kill()
        self.server.start()

    def kill_a_worker(self) -> None:
        for worker in psutil.Process(self.server.process.pid).children(recursive=True)[-1:]:
            worker.kill()

    def run(self) -> list[int]:
        faults = [
            *[self.kill_a_trainer, self.kill_a_trainer, self.stop_a_trainer, self.change_the_world],
            *[self.change_the_world, self.kill_a_worker, self.kill_the_server],
        ]
        for _ in range(self.dice.randint(1, 4)):
            time.sleep(self.dice.uniform(0.02, 0.4))
            fault = self.dice.choice(faults)
            if self.ended:
                break
            if fault == self.kill_the_server:
                faults.remove(fault)  # once in a history: it takes seconds to start
            self.told.append(fault.__name__)
            fault()
        if not self.ended:
            for process in self.processes:
                process.join(60)
                assert process.exitcode == 0, f"{self}: a trainer ended with {process.exitcode}"
            self.collect()
        return self.rows

    def stop(self) -> None:
        for process in self.processes:
            end(process)

    # -- what they got ------------------------------------------------------------------------------------------

    def collect(self) -> str:
        """Rows of this incarnation up to the latest state that every rank had saved, or to the end; gives the state."""
        found = [read(job.file) for job in self.jobs]
        state, self.ended = "", all(f.ended for f in found)
        if self.ended:
            steps = len(found[0].steps)
            assert len({len(f.steps) for f in found}) == 1, f"{self}: steps of ranks: {[len(f.steps) for f in found]}"
        else:
            steps = min(f.saved_at for f in found)
            state = next(f.saved for f in found if f.saved_at == steps)
        self.rows += [i for step in zip(*(f.steps[:steps] for f in found), strict=False) for part in step for i in part]
        return state or self.jobs[0].state

    def __str__(self) -> str:
        return f"{self.stream}, {', '.join(self.told)}; CHAOS_SEED={self.seed} CHAOS_HISTORIES=1 make chaos"


def end(process: ForkServerProcess) -> None:
    process.kill()
    process.join(10)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_trainers_that_die_go_on_from_their_states_as_if_nothing_had_been(
    server: Running, golden: dict[str, list[int]], tmp_path: Path, seed: int
) -> None:
    history = History(server, tmp_path, seed)
    try:
        assert history.run() == golden[history.stream], str(history)
    finally:
        history.stop()
    assert "ended by a bug" not in server.log.read_text(), str(history)
