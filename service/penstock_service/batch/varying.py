"""Columns whose values have many widths: strings, binaries, and lists of values of one width.

Each row wanted becomes a view (length, chunk, first byte) in the order wanted; Arrow then copies the bytes behind the
views once, whatever the number of chunks. `take` would copy them three times, and lists item by item.
"""

import sys
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.fixed import dense, item_bytes, item_type, items_of, rebuild

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]
Runs = Sequence[tuple[int, int, int]]  # (chunk, first, end) of the rows

_INLINE: Final = 12  # bytes that a view holds itself
_MOST: Final = (1 << 31) - 1  # what a view, and a column with offsets of 32 bits, can count
_STRINGS: Final = (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)


def varying_bytes(kind: pa.DataType) -> int:
    """Bytes of one item of a value: 1 in strings and binaries, that of an item in lists; 0 where it is neither."""
    if isinstance(kind, pa.BaseExtensionType):
        return varying_bytes(kind.storage_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return item_bytes(kind.value_type)
    return int(_is_string(kind))


def gather_varying(kind: pa.DataType, parts: Sequence[pa.Array], runs: Runs, rows: I64, place: I64) -> pa.Array | None:
    """Rows of `parts` as one array of `kind`: `rows` of each run are rows of its part, `place` is where each belongs.

    None where this cannot be done: an item of a list is null, or the bytes are more than 32 bits can count.
    """
    if isinstance(kind, pa.BaseExtensionType):
        stored = [part.storage for part in parts]
        made = gather_varying(kind.storage_type, stored, runs, rows, place)
        return made if made is None else pa.ExtensionArray.from_storage(kind, made)
    width = varying_bytes(kind)
    if sys.byteorder != "little":  # a view is written as two integers
        return None
    views = np.zeros((len(rows), 2), np.int64)
    valid = np.ones(len(rows), np.bool_)
    data: list[pa.Buffer] = []
    for number, (part, (_, first, end)) in enumerate(zip(parts, runs, strict=True)):
        if not _is_string(kind) and not dense(part.values):
            return None
        offsets, values = _values(part, width)
        here = rows[first:end]
        start = offsets[here].astype(np.int64) * width
        length = offsets[here + 1].astype(np.int64) * width - start
        if part.null_count:
            valid[first:end] = _valid(part, here)
            length[~valid[first:end]] = 0
        base, stop = int(start.min()), int((start + length).max())
        if stop - base > _MOST:
            return None
        start -= base
        data.append(pa.py_buffer(values[base:stop]))
        views[first:end, 0] = length
        views[first:end, 1] = start << 32 | number
        _put_inline(views[first:end], values[base:stop], start, length)
    total = int(views[:, 0].astype(np.uint32).sum(dtype=np.int64))
    wide = _offset_type(kind) is np.int64 or total > _MOST
    if wide and _offset_type(kind) is np.int32 and total // width > _MOST:
        return None
    ordered = np.empty(len(rows), "V16")
    ordered[place] = views.view("V16").reshape(-1)
    seen = pa.Array.from_buffers(pa.binary_view(), len(rows), [None, pa.py_buffer(ordered), *data])
    nulls = None
    if not valid.all():
        told = np.empty_like(valid)
        told[place] = valid
        nulls = pa.py_buffer(np.packbits(told, bitorder="little"))
    return _rebuilt(kind, width, seen.cast(pa.large_binary() if wide else pa.binary()), nulls)


def _is_string(kind: pa.DataType) -> bool:
    return any(of(kind) for of in _STRINGS)


def _offset_type(kind: pa.DataType) -> type[np.int32 | np.int64]:
    large = pa.types.is_large_list(kind) or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)
    return np.int64 if large else np.int32


def _values(part: pa.Array, width: int) -> tuple[I32 | I64, U8]:
    """Without a copy: the offsets of a column, in items, one more than there are rows; and the bytes they count in."""
    if not len(part):
        return np.zeros(1, np.int64), np.empty(0, np.uint8)
    if _is_string(part.type):
        buffer = part.buffers()[2]
        data = np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)
    else:
        data = items_of(part.values, width, item_type(width)).view(np.uint8)
    first, end = part.offset, part.offset + len(part) + 1
    if _offset_type(part.type) is np.int64:
        return np.frombuffer(part.buffers()[1], np.int64)[first:end], data
    return np.frombuffer(part.buffers()[1], np.int32)[first:end], data


def _valid(part: pa.Array, rows: I64) -> npt.NDArray[np.bool_]:
    bits = np.frombuffer(part.buffers()[0], np.uint8)
    at = rows + part.offset
    found: npt.NDArray[np.bool_] = (bits[at >> 3] >> (at & 7) & 1).astype(np.bool_)
    return found


def _put_inline(views: I64, data: U8, start: I64, length: I64) -> None:
    """A view of few bytes holds them itself, behind its length. What it holds behind those is never looked at."""
    short = np.flatnonzero((length <= _INLINE) & (length > 0))
    if not len(short):
        return
    kept = min(2 * _INLINE, len(data))
    tail = np.zeros(kept + _INLINE, np.uint8)  # what lies near the end, and may be read past
    tail[:kept] = data[len(data) - kept :]
    words = views.view(np.uint32)  # [rows, 4], over the same memory
    inside = start[short] + _INLINE <= len(data)
    for rows, source, shift in ((short[inside], data, 0), (short[~inside], tail, len(data) - kept)):
        if len(rows):
            every = np.ndarray((len(source) - _INLINE + 1,), f"V{_INLINE}", source, strides=(1,))
            words[rows, 1:] = every[start[rows] - shift].view(np.uint32).reshape(-1, 3)


def _rebuilt(kind: pa.DataType, width: int, made: pa.Array, nulls: pa.Buffer | None) -> pa.Array:
    _, offsets, data = made.buffers()
    data = pa.py_buffer(b"") if data is None else data
    if _is_string(kind):
        return pa.Array.from_buffers(kind, len(made), [nulls, offsets, data])
    counted = np.frombuffer(offsets, np.int64 if pa.types.is_large_binary(made.type) else np.int32)[: len(made) + 1]
    items = (counted // width).astype(_offset_type(kind), copy=False)
    count = int(items[-1])
    values = rebuild(kind.value_type, np.frombuffer(data, item_type(width), count), count)
    return pa.Array.from_buffers(kind, len(made), [nulls, pa.py_buffer(items)], children=[values])
