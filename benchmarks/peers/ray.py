"""Ray Data: Parquet files in shuffled order through its local shuffle buffer, one machine with Ray's own defaults."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import ray
import torch

from benchmarks.rows import Case


def prepare(folder: Path, case: Case) -> None:
    case.write(folder)


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    ray.init(include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    dataset = ray.data.read_parquet(str(folder), shuffle="files")

    def epoch(_: int) -> Iterator[dict[str, torch.Tensor]]:
        return iter(dataset.iter_torch_batches(batch_size=case.batch, local_shuffle_buffer_size=case.buffer))

    try:
        yield epoch
    finally:
        ray.shutdown()
