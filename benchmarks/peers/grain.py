"""Google's Grain: ArrayRecord files, globally shuffled by index, batched, read ahead by its threads or processes."""

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grain
import numpy as np
import torch
from array_record.python.array_record_module import ArrayRecordWriter

from benchmarks.rows import FEATURES, Case

SMALL = np.dtype([("x", np.float32, FEATURES), ("id", np.int64), ("label", np.int32)])


def prepare(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    for shard in range(case.shards):
        columns = case.columns(shard)
        if "tokens" in columns:
            records: Any = columns["tokens"]
        else:
            records = np.empty(case.rows // case.shards, SMALL)
            for name, values in columns.items():
                records[name] = values
        writer = ArrayRecordWriter(str(folder / f"{shard:05}.array_record"), "group_size:1")
        for record in records:
            writer.write(record.tobytes())
        writer.close()


def _tokens(record: bytes) -> dict[str, Any]:
    return {"tokens": np.frombuffer(record, np.int32)}


def _small(record: bytes) -> dict[str, Any]:
    row = np.frombuffer(record, SMALL)[0]
    return {name: row[name] for name in ("x", "id", "label")}


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    source = grain.sources.ArrayRecordDataSource([str(path) for path in sorted(folder.iterdir())])

    dataset = grain.MapDataset.source(source).shuffle(seed=1).repeat()
    parsed = dataset.map(_tokens if case.name == "tokens" else _small).batch(case.batch).to_iter_dataset()
    if workers:
        parsed = parsed.mp_prefetch(grain.multiprocessing.MultiprocessingOptions(num_workers=workers))
    batches = iter(parsed)  # goes on into the next epoch: its processes stay

    def epoch(_: int) -> Iterator[dict[str, torch.Tensor]]:
        for batch in itertools.islice(batches, case.rows // case.batch):
            yield {name: torch.from_numpy(values) for name, values in batch.items()}

    yield epoch
