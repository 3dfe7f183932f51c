"""Where the rows of one step come from."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from penstock.link import Link
from penstock_proto.v1 import control_pb2 as pb
from penstock_proto.v1 import control_pb2_grpc

_SHOWN: Final = ("rank", "place", "dataset", "shard", "shard_row", "row", "segment", "unit")


@dataclass(frozen=True)
class Explanation:
    """The rows of a step in the order they have in the batch. Prints as a table; `rows()` is JSON.

    `table` has, for each row: `rank`, `place` (in the batch of that rank), `valid` (false: padding), `source` (which
    of `stream.sources`), `dataset`, `version`, `split`, `shard`, `shard_row` (row in the shard, as stored), `row`
    (number in the dataset: that of `batch.metadata.ids`), `segment`, `unit` (place in the segment) and `bad` (why the
    stored row is none; null: it is one).
    """

    epoch: int
    step: int
    skipped: bool  # the stream passes over this step
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """A dict for each row."""
        found: list[dict[str, Any]] = self.table.to_pylist()
        return found

    def __str__(self) -> str:
        lines = [[name.replace("_", " ") for name in (*_SHOWN, "")]]
        for row in self.rows():
            named = f"{row['dataset']}@{row['version']}" + ("" if row["split"] == "train" else f":{row['split']}")
            cells = [named if name == "dataset" else str(row[name]) for name in _SHOWN]
            lines.append([*cells, row["bad"] or ("" if row["valid"] else "padding")])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                cell.ljust(width) if name in ("dataset", "shard", "") else cell.rjust(width)
                for name, cell, width in zip((*_SHOWN, ""), line, widths, strict=True)
            ).rstrip()
            for line in lines
        ]
        skipped = " (skipped)" if self.skipped else ""
        return "\n".join([f"step {self.step} of epoch {self.epoch}{skipped}", *texts])


def ask(link: Link, request: pb.ExplainRequest) -> pa.Table:
    """One call; takes as long as reading the segments takes that must be read."""
    answer = link.call(control_pb2_grpc.ControlStub(link.channel()).Explain, request, None)
    return pa.ipc.open_stream(pa.py_buffer(answer.rows)).read_all()
