"""Raw text: each line is a row of one column, `text`, without its line end; blank lines are rows."""

import numpy as np
import pyarrow as pa

from penstock_service.source.conform import cast_array
from penstock_service.source.schemas import Widened
from penstock_service.source.text.blocks import LINE_END, U8, Cut, RowBlock
from penstock_service.source.text.jsonl import byte_order_mark
from penstock_service.source.text.lines import cut_lines
from penstock_service.source.text.syntax import Head, Inferred

_SCHEMA = pa.schema([("text", pa.string())])
_RETURN = 13


class PlainText:
    semantics = 1
    optional_columns = False
    by_line = True

    def head(self, data: U8, last: bool) -> Head | None:
        return byte_order_mark(data)

    def cut(self, data: U8, last: bool, head: Head, whole: bool) -> Cut:
        return cut_lines(data, last)

    def infer(self, block: RowBlock, head: Head) -> Inferred:
        # what is no UTF-8 is found when rows are read
        return Inferred(block.num_rows, _SCHEMA, int(block.lengths().sum()) + 4 * block.num_rows)

    def parse(self, block: RowBlock, head: Head, schema: pa.Schema) -> pa.RecordBatch:
        batch = _lines(block)
        batch.validate(full=True)
        columns = [cast_array(batch.column(0), f.type) for f in schema if f.name == "text"]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def join(self, a: pa.Schema, b: pa.Schema) -> tuple[pa.Schema, list[Widened]]:
        return a, []


def _lines(block: RowBlock) -> pa.RecordBatch:
    """The rows as one string column: bytes without line ends, and offsets; copied once, no loop over rows."""
    data = block.bytes()
    ends = np.append(block.starts[1:], block.end) - block.starts[0] - 1  # the line end of each row
    drop = data == LINE_END
    returns = (ends > 0) & (data[ends - 1] == _RETURN)
    drop[ends[returns] - 1] = True
    dropped = np.arange(1, len(ends) + 1) + np.cumsum(returns)
    offsets = np.concatenate(([0], ends + 1 - dropped)).astype(np.int32)
    text = pa.py_buffer(data[~drop])
    return pa.RecordBatch.from_arrays(
        [pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), text)], schema=_SCHEMA
    )
