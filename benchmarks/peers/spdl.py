"""Meta's SPDL: its pipeline of threads over mapped NumPy files, a batch a task. It has no format of its own."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spdl.pipeline import PipelineBuilder

from benchmarks.peers.memmap import prepare as prepare
from benchmarks.rows import Case


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    columns: dict[str, Any] = {p.stem: np.load(p, mmap_mode="r") for p in sorted(folder.glob("*.npy"))}

    def fetch(wanted: Any) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.take(column, wanted, axis=0)) for name, column in columns.items()}

    def epoch(number: int) -> Iterator[dict[str, torch.Tensor]]:
        order = np.random.default_rng(number).permutation(case.rows)
        indices = (order[first : first + case.batch] for first in range(0, case.rows, case.batch))
        builder = PipelineBuilder().add_source(indices).pipe(fetch, concurrency=workers).add_sink(3)
        pipeline = builder.build(num_threads=workers)
        with pipeline.auto_stop():
            yield from pipeline

    yield epoch
