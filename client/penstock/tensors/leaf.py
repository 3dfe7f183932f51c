"""Numbers: Arrow arrays of fixed width as NumPy arrays, without a copy where the bytes allow it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from penstock.errors import ConversionError
from penstock.tensors.copies import Copies

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Lender:
    """The bytes a record batch was read from, so that views of them can be writable. Made once per bundle."""

    owner: Array | None  # uint8 [bytes], writable
    address: int  # where they begin
    copies: Copies | None = None  # what had to be copied is counted there

    @classmethod
    def of(cls, writable: Array | None, copies: Copies | None = None) -> "Lender":
        """`writable` as it is given to `BundleConverter.open`."""
        if writable is None or not writable.flags.writeable:
            return cls(None, 0, copies)
        return cls(writable, writable.ctypes.data, copies)

    def copied(self, array: Array) -> Array:
        """Count a copy; returns it."""
        if self.copies is not None:
            self.copies.bytes += array.nbytes
        return array

    def view(self, buffer: pa.Buffer, dtype: np.dtype[Any], first: int, count: int) -> Array:
        """`count` values of a buffer from number `first` on, `[count]`, writable and aligned: a view, else a copy."""
        if count == 0:
            return np.empty(0, dtype)
        begin = buffer.address + first * dtype.itemsize
        aligned = begin % dtype.itemsize == 0
        if self.owner is not None and aligned:
            offset = begin - self.address
            end = offset + count * dtype.itemsize
            if offset >= 0 and end <= self.owner.nbytes:
                return self.owner[offset:end].view(dtype)
        # Buffers that Arrow allocated for this batch (decompressed, decoded, cast) are writable here as well.
        array = np.frombuffer(buffer, dtype, count, first * dtype.itemsize)
        return array if aligned and array.flags.writeable else self.copied(array.copy())


@dataclass(frozen=True, slots=True)
class Leaf:
    """How one Arrow type of fixed width is read."""

    column: str  # for messages
    type: pa.DataType
    stored: np.dtype[Any]  # of the values buffer
    tensor: np.dtype[Any]  # of the array handed to the output
    how: Literal["view", "bits", "decimal"] = "view"
    bfloat16: bool = False  # the 16 bits are one

    @property
    def floating(self) -> bool:
        """Has it a NaN to stand for null?"""
        return self.bfloat16 or self.tensor.kind == "f"

    def read(self, array: pa.Array, lender: Lender) -> Array:
        """`[len(array)]` of `tensor`, writable; what stands where the array is null is undefined.

        Raises:
            ConversionError: a uint64 is too big for int64.
        """
        if self.how == "bits":  # Arrow packs eight to a byte: always a copy
            unpacked: Array = (array.fill_null(False) if array.null_count else array).to_numpy(zero_copy_only=False)
            return lender.copied(unpacked if unpacked.flags.writeable else unpacked.copy())
        if self.how == "decimal":
            array = pc.cast(array, pa.float64())
        values = lender.view(array.buffers()[1], self.stored, array.offset, len(array))
        if self.stored == self.tensor:
            return values
        if self.stored == _UINT64:
            return self._signed(values, array)
        return lender.copied(values.astype(self.tensor))

    def _signed(self, values: Array, array: pa.Array) -> Array:
        signed = values.view(_INT64)
        too_big = signed < 0
        if array.null_count:
            too_big &= array.is_valid().to_numpy(zero_copy_only=False)
        count = int(too_big.sum())
        if count:
            raise ConversionError(
                f"column {self.column!r} (uint64): {count} of {len(array)} values are above {np.iinfo(np.int64).max}, "
                "the largest int64, and torch cannot compute with uint64. Cures: cast the column where it is stored, "
                'or take output="numpy"'
            )
        return signed


_UINT16: Final = np.dtype(np.uint16)
_UINT64: Final = np.dtype(np.uint64)
_INT64: Final = np.dtype(np.int64)


def leaf_of(
    column: str, dtype: pa.DataType, widened: Mapping[np.dtype[Any], np.dtype[Any]], mark: str = ""
) -> Leaf | None:
    """How to read a type of fixed width, or None where it is none.

    Args:
        widened: see `Output.widened`.
        mark: what the field's metadata says the bits are (`penstock.dtype`).

    Raises:
        ConversionError: the mark is not one for this type.
    """
    if mark:
        if mark != "bfloat16" or not pt.is_uint16(dtype):
            raise ConversionError(
                f'column {column!r} ({dtype}): its field says penstock.dtype={mark!r}: only "bfloat16" on uint16. '
                'Cures: correct it where it is stored; leave it out with columns=[...], or take output="arrow"'
            )
        return Leaf(column, dtype, _UINT16, _UINT16, bfloat16=True)
    if pt.is_boolean(dtype):
        return Leaf(column, dtype, np.dtype(np.bool_), np.dtype(np.bool_), "bits")
    if isinstance(dtype, pa.Bool8Type):
        return Leaf(column, dtype, np.dtype(np.int8), np.dtype(np.bool_))
    if pt.is_decimal(dtype):
        return Leaf(column, dtype, np.dtype(np.float64), np.dtype(np.float64), "decimal")
    if pt.is_integer(dtype) or pt.is_floating(dtype):
        stored: np.dtype[Any] = np.dtype(dtype.to_pandas_dtype())
        return Leaf(column, dtype, stored, widened.get(stored, stored))
    if unit_of(dtype) is not None:
        return Leaf(column, dtype, np.dtype(f"i{dtype.bit_width // 8}"), _INT64)
    return None


def unit_of(dtype: pa.DataType) -> str | None:
    """The unit of a date, time, timestamp or duration ("D", "s", "ms", "us", "ns"), else None."""
    if pt.is_date32(dtype):
        return "D"
    if pt.is_date64(dtype):
        return "ms"
    if pt.is_timestamp(dtype) or pt.is_time(dtype) or pt.is_duration(dtype):
        return str(dtype.unit)
    return None
