"""MosaicML Streaming: MDS shards on the local disk, its StreamingDataset in a torch DataLoader."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.rows import FEATURES, TOKENS, Case

COLUMNS = {
    "tokens": {"tokens": f"ndarray:int32:{TOKENS}"},
    "small": {"x": f"ndarray:float32:{FEATURES}", "id": "int64", "label": "int32"},
}


_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")


def _streaming() -> Any:
    """The package. It imports torchvision, whose wheels are built for CUDA and fail beside a CPU build of torch."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:  # no image is read here: it only has to be imported
        for name in ("nms", "qnms"):
            _OPERATORS.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import streaming

    return streaming


streaming = _streaming()


def prepare(folder: Path, case: Case) -> None:
    with streaming.MDSWriter(out=str(folder), columns=COLUMNS[case.name]) as out:
        for shard in range(case.shards):
            columns = case.columns(shard)
            for row in zip(*columns.values(), strict=True):
                out.write(dict(zip(columns, row, strict=True)))


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    streaming.base.util.clean_stale_shared_memory()  # of a run that was stopped
    dataset = streaming.StreamingDataset(local=str(folder), shuffle=True, batch_size=case.batch)
    batches: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        dataset, batch_size=case.batch, num_workers=workers, persistent_workers=workers > 0
    )
    yield lambda _: iter(batches)
