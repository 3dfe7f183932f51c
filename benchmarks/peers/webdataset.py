"""WebDataset: tar files, shuffled by shards and through a buffer of 1,000 rows, as its README does."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import webdataset as wds

from benchmarks.rows import Case


def prepare(folder: Path, case: Case) -> None:
    folder.mkdir(parents=True)
    each = case.rows // case.shards
    with wds.ShardWriter(str(folder / "%05d.tar"), maxcount=each, verbose=0) as out:
        for shard in range(case.shards):
            columns = case.columns(shard)
            for place in range(each):
                row = {name: values[place] for name, values in columns.items()}
                sample: dict[str, Any] = {"__key__": f"{shard * each + place:09}"}
                if "tokens" in row:
                    out.write(sample | {"tokens.npy": row["tokens"]})
                else:
                    facts = {"id": int(row["id"]), "label": int(row["label"])}
                    out.write(sample | {"x.npy": row["x"], "json": facts})


@contextlib.contextmanager
def loader(folder: Path, case: Case, workers: int) -> Iterator[Callable[[int], Iterator[dict[str, torch.Tensor]]]]:
    files = [str(path) for path in sorted(folder.iterdir())]
    dataset = wds.WebDataset(files, shardshuffle=case.shards).shuffle(1000).decode()
    dataset = dataset.to_tuple("tokens.npy") if case.name == "tokens" else dataset.to_tuple("x.npy", "json")
    batches = wds.WebLoader(dataset, batch_size=case.batch, num_workers=workers, persistent_workers=workers > 0)

    def epoch(_: int) -> Iterator[dict[str, torch.Tensor]]:
        for first, *facts in batches:
            yield {"x": first, **facts[0]} if facts else {"tokens": first}

    yield epoch
