"""Small real files for tests. Every row has an `id` of its own, so that lost and doubled rows can be told."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet


def table(first: int, rows: int) -> pa.Table:
    ids = np.arange(first, first + rows)
    return pa.table({"id": ids, "x": ids * 0.5, "y": ids % 7})


def parquet(folder: Path, shards: int, rows: int, first: int = 0, row_group: int = 1000) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        found = table(first + shard * rows, rows)
        pa.parquet.write_table(found, folder / f"{shard:04}.parquet", row_group_size=row_group)
    return folder


def jsonl(folder: Path, shards: int, rows: int, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        lines = [json.dumps(row) for row in table(first + shard * rows, rows).to_pylist()]
        (folder / f"{shard:04}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def csv(folder: Path, shards: int, rows: int, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        lines = [f"{r['id']},{r['x']:.1f},{r['y']}" for r in table(first + shard * rows, rows).to_pylist()]
        (folder / f"{shard:04}.csv").write_text("\n".join(["id,x,y", *lines]) + "\n")
    return folder
