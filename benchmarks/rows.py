"""The rows that benchmarks move, the same in every format."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Columns = dict[str, npt.NDArray[Any]]

TOKENS, FEATURES, TINY_FEATURES, CLASSES = 2048, 64, 24, 10


@dataclass(frozen=True)
class Case:
    """Rows of one shape.

    "tokens" are 2,048 int32, the first of which is the row's number; "small" 64 float32, id and label; "tiny" 24
    float32 and label.
    """

    name: str
    rows: int
    shards: int
    batch: int
    row_bytes: int

    @property
    def buffer(self) -> int:
        """Rows of a shuffle buffer, where a peer needs one and has no default: 1,024, or four batches."""
        return max(1024, 4 * self.batch)

    def part(self, share: int) -> "Case":
        """A `share`-th of the rows, at least a batch, in as many shards."""
        return replace(self, rows=max(self.rows // share, self.batch))

    def columns(self, shard: int) -> Columns:
        """The rows of one shard."""
        each = self.rows // self.shards
        rng = np.random.default_rng([0, shard])
        ids = np.arange(shard * each, (shard + 1) * each)
        if self.name == "tokens":
            tokens = rng.integers(0, 50_000, (each, TOKENS), dtype=np.int32)
            tokens[:, 0] = ids
            return {"tokens": tokens}
        label = rng.integers(0, CLASSES, each, dtype=np.int32)
        if self.name == "tiny":
            return {"x": rng.random((each, TINY_FEATURES), dtype=np.float32), "label": label}
        return {"x": rng.random((each, FEATURES), dtype=np.float32), "id": ids, "label": label}

    def write(self, folder: Path) -> None:
        """As Parquet, one file a shard, neither compressed nor dictionary-encoded: that reads fastest."""
        import pyarrow as pa  # only here: some peers come without it
        import pyarrow.parquet as pq

        folder.mkdir(parents=True)
        for shard in range(self.shards):
            arrays = {
                name: pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
                if values.ndim == 2
                else pa.array(values)
                for name, values in self.columns(shard).items()
            }
            path = folder / f"{shard:05}.parquet"
            pq.write_table(pa.table(arrays), path, compression="none", use_dictionary=False)


CASES = (
    Case("tokens", 65_536, 16, 32, 4 * TOKENS),
    Case("small", 1_048_576, 16, 4096, 4 * FEATURES + 12),
    Case("tiny", 1_048_576, 16, 8, 4 * TINY_FEATURES + 4),
)
RACED = CASES[:2]  # whose rows can be told apart


def ids(batch: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Which rows a batch holds."""
    found = batch["tokens"][:, 0] if "tokens" in batch else batch["id"]
    return np.array(found, np.int64)


def checksum(batch: Mapping[str, Any]) -> int:
    """A sum over rows that changes when values are wrong, or come with another row; the order does not matter."""
    values = np.asarray(batch["tokens"] if "tokens" in batch else batch["x"])
    if "tokens" not in batch:  # float32 in [0, 1): all bits count
        values = (values.astype(np.float64) * (1 << 24)).astype(np.int64)
    total = values.sum(axis=1, dtype=np.int64)
    if "label" in batch:
        total = total * 16 + np.asarray(batch["label"]).astype(np.int64)
    return int((total * (ids(batch) + 1)).sum())
