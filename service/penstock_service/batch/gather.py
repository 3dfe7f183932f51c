"""From index rows to bytes: the rows of one bundle, column by column, out of mapped chunks.

No Python runs per row, and where columns have fixed widths and no nulls none per chunk: `spans`. Never `take` on a
ChunkedArray or a Table: measured 0.04 GB/s.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.fixed import dense, item_bytes, item_type, items_of, rebuild
from penstock_service.batch.layout import Layouts
from penstock_service.batch.spans import Spans
from penstock_service.batch.together import together
from penstock_service.batch.varying import gather_varying, varying_bytes
from penstock_service.batch.visit import Visit
from penstock_service.core.feed import U8, Memory
from penstock_service.core.segment import U32

I64 = npt.NDArray[np.int64]

_PART: Final = 4 << 20  # bytes that one thread takes at a time


def gather_in_place(
    layouts: Layouts,
    batches: Mapping[int, pa.RecordBatch],
    chunk: U32,
    row: U32,
    memory: Memory,
    further: Sequence[npt.NDArray[np.generic]] = (),
) -> U8 | None:
    """The rows `chunk` and `row` [rows] as one Arrow record batch message, in what `memory` gives.

    None, and nothing was asked of `memory`, where a column has no fixed width or holds nulls. `further` are the last
    columns of the schema, [rows] each, in the order asked for.
    """
    rows = len(chunk)
    layout = layouts.of(rows)
    if layout is None:
        return None
    own = len(layouts.widths) - len(further)
    columns = layouts.columns(batches, own)
    if columns is None:
        return None
    message = memory(layout.size)
    layout.begin(message)
    places = [
        message[at : at + rows * width].view(item_type(width))
        for at, width in zip(layout.at, layouts.widths, strict=True)
    ]
    most = max(1, _PART // sum(layouts.widths))

    def part(number: int) -> None:
        here = slice(number * most, (number + 1) * most)
        among = columns.among(chunk[here])
        for spans, place in zip(columns.spans, places[:own], strict=True):
            spans.take(among, row[here], place[here])

    together(part, -(-rows // most))
    for values, place in zip(further, places[own:], strict=True):
        place[:] = values.view(place.dtype)
    return message


def gather(schema: pa.Schema, batches: Mapping[int, pa.RecordBatch], visit: Visit) -> pa.RecordBatch:
    """The rows of `visit` as one record batch of `schema`, whose columns are looked up by name."""
    arrays = [_column(field, batches, visit) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(field: pa.Field, batches: Mapping[int, pa.RecordBatch], visit: Visit) -> pa.Array:
    parts = [batches[chunk].column(field.name) for chunk, _, _ in visit.runs]
    width = item_bytes(field.type)
    if width and parts and all(dense(part) for part in parts):
        return _gather_fixed(field.type, width, parts, visit)
    if parts and varying_bytes(field.type):
        made = gather_varying(field.type, parts, visit.runs, visit.rows, visit.place)
        if made is not None:
            return made
    return _gather_any(field.type, parts, visit)


def _gather_fixed(kind: pa.DataType, width: int, parts: list[pa.Array], visit: Visit) -> pa.Array:
    out = np.empty(len(visit.rows), item_type(width))
    Spans([items_of(part, width, out.dtype) for part in parts]).take(*visit.wanted, out)
    return rebuild(kind, out, len(out))


def _gather_any(kind: pa.DataType, parts: list[pa.Array], visit: Visit) -> pa.Array:
    if not parts:
        return pa.array([], kind)
    taken = [
        part.take(pa.array(visit.rows[first:end])) for part, (_, first, end) in zip(parts, visit.runs, strict=True)
    ]
    return pa.concat_arrays(taken).take(pa.array(visit.back))
