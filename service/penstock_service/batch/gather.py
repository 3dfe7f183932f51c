"""From index rows to bytes: the rows of one bundle, column by column, out of mapped chunks.

No Python runs per row. Rows are visited chunk by chunk (sorted by chunk and row, so that pages are touched once) into a
block, which is then put into the order asked for. Never `take` on a ChunkedArray or a Table: measured 0.04 GB/s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.core.segment import U32

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Visit:
    """In which order the rows of a bundle are read."""

    runs: tuple[tuple[int, int, int], ...]  # (chunk, first, end) of the sorted rows
    rows: I64  # sorted by (chunk, row): rows of the chunk's batch
    back: I64  # where each wanted row lies among the sorted ones


def plan_visit(chunk: U32, row: U32) -> Visit:
    """`chunk` and `row` [n] in the order wanted."""
    key = (chunk.astype(np.uint64) << np.uint64(32)) | row
    order = np.argsort(key)
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    sorted_chunk = chunk[order]
    edges = np.flatnonzero(np.diff(sorted_chunk)) + 1
    firsts = [0, *edges.tolist()]
    ends = [*edges.tolist(), len(order)]
    runs = tuple(zip(sorted_chunk[firsts].tolist(), firsts, ends, strict=True)) if len(order) else ()
    return Visit(runs, row[order].astype(np.int64), back)


def gather(schema: pa.Schema, batches: Mapping[int, pa.RecordBatch], visit: Visit) -> pa.RecordBatch:
    """The rows of `visit` as one record batch of `schema`, whose columns are looked up by name."""
    arrays = [_column(field, batches, visit) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _column(field: pa.Field, batches: Mapping[int, pa.RecordBatch], visit: Visit) -> pa.Array:
    parts = [batches[chunk].column(field.name) for chunk, _, _ in visit.runs]
    width = _item_bytes(field.type)
    if width and parts and all(_dense(part) for part in parts):
        return _gather_fixed(field.type, width, parts, visit)
    return _gather_any(field.type, parts, visit)


def _gather_fixed(kind: pa.DataType, width: int, parts: list[pa.Array], visit: Visit) -> pa.Array:
    item = _item_type(width)
    block = np.empty(len(visit.rows), item)
    for part, (_, first, end) in zip(parts, visit.runs, strict=True):
        np.take(_items(part, width, item), visit.rows[first:end], out=block[first:end], mode="clip")
    out = np.empty(len(visit.rows), item)
    np.take(block, visit.back, out=out, mode="clip")
    return _rebuild(kind, out, len(out))


def _gather_any(kind: pa.DataType, parts: list[pa.Array], visit: Visit) -> pa.Array:
    if not parts:
        return pa.array([], kind)
    taken = [
        part.take(pa.array(visit.rows[first:end])) for part, (_, first, end) in zip(parts, visit.runs, strict=True)
    ]
    return pa.concat_arrays(taken).take(pa.array(visit.back))


def _item_bytes(kind: pa.DataType) -> int:
    """Bytes of one value where all have the same number of whole bytes, else 0."""
    if isinstance(kind, pa.BaseExtensionType):
        return _item_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return _item_bytes(kind.value_type) * int(kind.list_size)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    if pa.types.is_primitive(kind) and kind.bit_width % 8 == 0:
        return int(kind.bit_width // 8)
    return 0


def _dense(array: pa.Array) -> bool:
    """No nulls at any depth."""
    if isinstance(array, pa.ExtensionArray):
        return _dense(array.storage)
    if array.null_count:
        return False
    return not pa.types.is_fixed_size_list(array.type) or _dense(array.values)


def _items(array: pa.Array, width: int, item: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """The values of a dense fixed-width array as items of `width` bytes, without a copy."""
    offset, array = array.offset, array.storage if isinstance(array, pa.ExtensionArray) else array
    rows, scale = len(array), 1
    while pa.types.is_fixed_size_list(array.type):
        scale *= int(array.type.list_size)
        inner = array.values
        offset = offset * int(array.type.list_size) + inner.offset
        array = inner.storage if isinstance(inner, pa.ExtensionArray) else inner
    data = array.buffers()[-1]
    if data is None:
        return np.empty(rows, item)
    return np.frombuffer(data, item, count=rows, offset=offset * (width // scale))


def _item_type(width: int) -> np.dtype[np.void]:
    """An item of `width` bytes that NumPy copies as a whole: an integer where there is one of that size."""
    kind: np.dtype[np.void] = np.dtype(f"u{width}" if width in (1, 2, 4, 8) else (np.void, width))
    return kind


def _rebuild(kind: pa.DataType, items: npt.NDArray[np.void], length: int) -> pa.Array:
    """An array of `kind` over the bytes of `items`."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _rebuild(kind.storage_type, items, length))
    if pa.types.is_fixed_size_list(kind):
        values = _rebuild(kind.value_type, items, length * int(kind.list_size))
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(items)])
