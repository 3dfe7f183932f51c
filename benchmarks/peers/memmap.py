"""What one writes by hand without any library: NumPy files, mapped, a torch Dataset that gives one row at a time."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.rows import Case


class Rows(Dataset[dict[str, torch.Tensor]]):
    """Rows of one folder of .npy files, a file a column."""

    def __init__(self, folder: Path) -> None:
        # "c" maps copy-on-write: torch warns of arrays that cannot be written.
        self.columns = {p.stem: torch.from_numpy(np.load(p, mmap_mode="c")) for p in sorted(folder.glob("*.npy"))}

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        return {name: column[row] for name, column in self.columns.items()}


def prepare(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    files: dict[str, Any] = {}
    each = case.rows // case.shards
    for shard in range(case.shards):
        for name, values in case.columns(shard).items():
            if name not in files:
                shape = (case.rows, *values.shape[1:])
                files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", values.dtype, shape)
            files[name][shard * each : (shard + 1) * each] = values


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    batches = DataLoader(
        Rows(folder), batch_size=case.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    yield lambda _: iter(batches)
