"""Hugging Face datasets, streaming: Parquet files through its shuffle buffer (1,000 rows by default)."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import torch
from torch.utils.data import DataLoader

from benchmarks.rows import Case


def prepare(folder: Path, case: Case) -> None:
    case.write(folder)


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    files = [str(path) for path in sorted(folder.iterdir())]
    dataset = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    dataset = dataset.shuffle(seed=1).with_format("torch")
    batches: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        dataset, batch_size=case.batch, num_workers=workers, persistent_workers=workers > 0
    )

    def epoch(number: int) -> Iterator[dict[str, torch.Tensor]]:
        dataset.set_epoch(number)
        return iter(batches)

    yield epoch
