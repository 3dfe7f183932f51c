"""Columns whose values have one width: seen as items of so many bytes, and put together again."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def item_bytes(kind: pa.DataType) -> int:
    """Bytes of one value where all have the same number of whole bytes, else 0."""
    if isinstance(kind, pa.BaseExtensionType):
        return item_bytes(kind.storage_type)
    if pa.types.is_fixed_size_list(kind):
        return item_bytes(kind.value_type) * int(kind.list_size)
    if pa.types.is_fixed_size_binary(kind):
        return int(kind.byte_width)
    if pa.types.is_primitive(kind) and kind.bit_width % 8 == 0:
        return int(kind.bit_width // 8)
    return 0


def dense(array: pa.Array) -> bool:
    """No nulls at any depth."""
    if isinstance(array, pa.ExtensionArray):
        return dense(array.storage)
    if array.null_count:
        return False
    return not pa.types.is_fixed_size_list(array.type) or dense(array.values)


def items_of(array: pa.Array, width: int, item: np.dtype[np.void]) -> npt.NDArray[np.void]:
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


def item_type(width: int) -> np.dtype[np.void]:
    """An item of `width` bytes that NumPy copies as a whole: an integer where there is one of that size."""
    kind: np.dtype[np.void] = np.dtype(f"u{width}" if width in (1, 2, 4, 8) else (np.void, width))
    return kind


def rebuild(kind: pa.DataType, items: npt.NDArray[np.void], length: int) -> pa.Array:
    """An array of `kind` over the bytes of `items`."""
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, rebuild(kind.storage_type, items, length))
    if pa.types.is_fixed_size_list(kind):
        values = rebuild(kind.value_type, items, length * int(kind.list_size))
        return pa.FixedSizeListArray.from_arrays(values, type=kind)
    return pa.Array.from_buffers(kind, length, [None, pa.py_buffer(items)])
