"""Penstock: a server process of Parquet files with a warm chunk store, and a client of it over shared memory."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import torch

import penstock
from benchmarks import harness
from benchmarks.rows import Case


def prepare(folder: Path, case: Case) -> None:
    case.write(folder / case.name)
    with loader(folder, case, 0) as epoch:  # fills the store
        for _ in epoch(0):
            pass


@contextlib.contextmanager
def loader(
    folder: Path, case: Case, workers: int, transport: Literal["auto", "tcp", "grpc"] = "auto"
) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    with (
        harness.server(folder, [folder / case.name]) as (_, target),
        penstock.connect(target) as client,
        client.stream(case.name, batch_size=case.batch, seed=1, transport=transport) as stream,
    ):
        yield lambda _: iter(stream)
