"""Hugging Face datasets, map-style: an Arrow dataset on disk, formatted as torch, in a shuffling torch DataLoader."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import datasets
import torch
from torch.utils.data import DataLoader

from benchmarks.rows import Case


def prepare(folder: Path, case: Case) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        case.write(Path(name, "parquet"))
        files = [str(path) for path in sorted(Path(name, "parquet").iterdir())]
        datasets.Dataset.from_parquet(files, cache_dir=name).save_to_disk(str(folder))


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    dataset = datasets.load_from_disk(str(folder)).with_format("torch")
    batches: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        dataset, batch_size=case.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    yield lambda _: iter(batches)
