"""Servers and workers that are killed at moments nobody chose: every history gives the rows of an undisturbed one.

These begin with an empty store, on a server of their own; a tenth of CHAOS_HISTORIES says how many, CHAOS_SEED begins
them elsewhere. A failing history prints its seed. The many short histories are those of test_trainers.py.
"""

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import psutil
import pytest

import penstock
from penstock.subscription import Transport
from tests import datafiles
from tests.running import Running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

HISTORIES = -(-int(os.environ.get("CHAOS_HISTORIES", "50")) // 10)
FIRST = int(os.environ.get("CHAOS_SEED", "0"))
RANKS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("chaos")
    return [
        datafiles.parquet(folder / "a", 6, 2000, row_group=500),
        datafiles.jsonl(folder / "b", 3, 1500, first=100_000),
        datafiles.csv(folder / "c", 1, 1700, first=200_000),
    ]


class Reader(threading.Thread):
    """One rank: reads an epoch, changing its mind now and then (a state saved, the stream dropped and loaded again)."""

    def __init__(self, target: str, rank: int, seed: int) -> None:
        super().__init__(name=f"rank {rank}")
        self.target, self.rank, self.dice = target, rank, random.Random(seed)
        self.steps: list[list[int]] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with penstock.connect(self.target, job="chaos") as client:
                for step in self._steps(client):
                    self.steps.append(step)
        except BaseException as error:  # noqa: BLE001 - told by the test, which joins this thread
            self.error = error

    def _steps(self, client: penstock.Client) -> Iterator[list[int]]:
        state = None
        while True:
            stream = client.stream(
                ["a", "b", "c"],
                batch_size=30,
                seed=5,
                output="numpy",
                pool_rows=2500,
                rank=self.rank,
                world_size=RANKS,
                name="s",
                prefetch=self.dice.choice([1, 8, 64]),
                transport=self.dice.choice(get_args(Transport)),
            )
            with stream:
                if state is not None:
                    stream.load_state_dict(state)
                for batch in stream:
                    yield batch["id"].tolist()
                    state = stream.state_dict()
                    if self.dice.random() < 0.01:
                        break
                else:
                    return


def read_all(server: Running, seed: int, disturb: bool) -> list[list[int]]:
    """The steps of all ranks, put together."""
    dice = random.Random(seed)
    readers = [Reader(server.target, rank, seed * 100 + rank) for rank in range(RANKS)]
    for reader in readers:
        reader.start()
    while disturb and any(reader.is_alive() for reader in readers):
        readers[0].join(dice.uniform(0.0, 0.6))
        victim = dice.choice(["server", "server", "worker", "nobody"])
        if victim == "server":
            if dice.random() < 0.3:
                server.stop(signal.SIGTERM)
            else:
                server.kill()
            server.start()
        elif victim == "worker":
            workers = psutil.Process(server.process.pid).children(recursive=True)
            if workers:
                dice.choice(workers).kill()
        if dice.random() < 0.2:
            break
    for reader in readers:
        reader.join(120)
        assert not reader.is_alive(), f"{reader.name} hangs after {len(reader.steps)} steps"
        if reader.error is not None:
            raise reader.error
    assert len({len(reader.steps) for reader in readers}) == 1
    return [[row for part in step for row in part] for step in zip(*(r.steps for r in readers), strict=True)]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has never reached its server cannot know that it is only being killed again and again."""
    monkeypatch.setattr("penstock.standing.CONNECT_TIMEOUT", 60.0)


@pytest.fixture(scope="module")
def golden(data: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[list[int]]:
    with Running(tuple(map(str, data)), tmp_path_factory.mktemp("golden")) as server:
        steps = read_all(server, 0, disturb=False)
    rows = [row for step in steps for row in step]
    assert len(rows) == len(set(rows)) == 18_200
    return steps


@pytest.mark.parametrize("seed", range(FIRST, FIRST + HISTORIES))
def test_a_history_of_kills_gives_the_same_steps(
    data: list[Path], golden: list[list[int]], tmp_path: Path, seed: int
) -> None:
    kind = random.Random(seed).choice(["threads", "processes"])
    with Running(tuple(map(str, data)), tmp_path, ("--worker-kind", kind, "--chunk-rows", "400")) as server:
        assert read_all(server, seed, disturb=True) == golden, f"CHAOS_SEED={seed} CHAOS_HISTORIES=1 make chaos"
