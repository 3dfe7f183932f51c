"""Raw text: each line is a row of one column, `text`, without its line end; blank lines are rows."""

import numpy as np
import pyarrow as pa

from penstock_service.source.blocks import LINE_END, U8, Cut, RowBlock
from penstock_service.source.conform import cast_array
from penstock_service.source.jsonl import byte_order_mark
from penstock_service.source.lines import cut_lines
from penstock_service.source.schemas import Widened
from penstock_service.source.syntax import Head

_SCHEMA = pa.schema([("text", pa.string())])
_RETURN = 13


class PlainText:
    optional_columns = False
    by_line = True

    def head(self, data: U8, last: bool) -> Head | None:
        return byte_order_mark(data)

    def cut(self, data: U8, last: bool, head: Head, whole: bool) -> Cut:
        return cut_lines(data, last)

    def infer(self, block: RowBlock, head: Head) -> pa.Table:
        # what is no UTF-8 is found when rows are read; the scan needs only the size
        return pa.Table.from_batches([_lines(block)], _SCHEMA)

    def parse(self, block: RowBlock, head: Head, schema: pa.Schema) -> pa.RecordBatch:
        batch = _lines(block)
        batch.validate(full=True)
        return pa.RecordBatch.from_arrays(
            [cast_array(batch.column(0), f.type) if f.name == "text" else pa.nulls(batch.num_rows, f.type) for f in schema],
            schema=schema,
        )

    def join(self, a: pa.Schema, b: pa.Schema) -> tuple[pa.Schema, list[Widened]]:
        return a, []


def _lines(block: RowBlock) -> pa.RecordBatch:
    """The rows as one string column: bytes without line ends, and offsets; copied once, no loop over rows."""
    data = block.bytes()
    ends = np.append(block.starts[1:], block.end) - block.starts[0] - 1
    drop = data == LINE_END
    if (data == _RETURN).any():
        returns = ends[(ends > 0) & (data[ends - 1] == _RETURN)] - 1
        drop[returns] = True
    dropped = np.cumsum(drop, dtype=np.int64)[ends]
    offsets = np.concatenate(([0], ends + 1 - dropped)).astype(np.int32)
    text = pa.py_buffer(data[~drop])
    return pa.RecordBatch.from_arrays(
        [pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), text)], schema=_SCHEMA
    )
