"""What stands where Arrow has null: NaN, the user's `fill`, zero under a mask, or an error that names the cures."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from penstock.errors import ConversionError, InvalidRequest
from penstock.tensors.leaf import Array, Leaf, Lender


@dataclass(frozen=True, slots=True)
class NullRule:
    """The rule of one column."""

    column: str
    type: pa.DataType  # of the whole column, for messages
    mode: Literal["error", "mask"]
    fill: Any | None  # a scalar of the tensor's dtype
    nan: Any | None = None  # the same, where NumPy does not know the numbers as floats

    def apply(self, values: Array, missing: Array | None) -> Array:
        """`values` with something sensible where `missing` (bool, the same shape) is true; written in place.

        Raises:
            ConversionError: something is missing and the dtype has no NaN, and no cure was asked for.
        """
        if missing is None:
            return values
        value = self.fill
        if value is None:
            if self.nan is not None:
                value = self.nan
            elif values.dtype.kind == "f":
                value = np.nan
            elif self.mode == "mask":
                value = 0
            else:
                count = int(missing.sum())
                raise ConversionError(
                    f"column {self.column!r} ({self.type}): {count} of {missing.size} values in this bundle are null, "
                    f"and a tensor of {values.dtype} has no room for that. Cures: fill={{{self.column!r}: 0}} puts a "
                    f'value there; nulls="mask" puts 0 there and says where in {self.mask_key!r}; or cast the column '
                    "to a float where it is stored"
                )
        values[missing] = value
        return values

    def check_lists(self, lists: pa.Array) -> None:
        """Whether null lists may pass as empty ones.

        Raises:
            ConversionError: there are some and no cure was asked for.
        """
        if lists.null_count and self.fill is None and self.mode == "error":
            raise ConversionError(
                f"column {self.column!r} ({self.type}): {lists.null_count} of {len(lists)} lists in this bundle are "
                f'null. Cures: nulls="mask" or fill={{{self.column!r}: 0}} takes them for empty lists'
            )

    @property
    def mask_key(self) -> str:
        """The key that will say where data is under `nulls="mask"`."""
        varying = pt.is_list(self.type) or pt.is_large_list(self.type)
        return f"{self.column}_mask" if varying else f"{self.column}_valid"


def fill_scalar(leaf: Leaf, value: Any) -> Any:
    """The user's `fill` for a column of numbers, as a scalar of the tensor's dtype.

    Raises:
        InvalidRequest: it is no value of the column's type.
    """
    if leaf.bfloat16:
        fill_array(leaf.column, pa.float32(), value)
        return bfloat16_bits(float(value))
    return leaf.read(fill_array(leaf.column, leaf.type, value), Lender.of(None))[0]


def bfloat16_bits(value: float) -> Any:
    """The nearest bfloat16 (ties to even) as a uint16 scalar."""
    if np.isnan(value):
        return np.uint16(0x7FC0)
    bits = int(np.float32(value).view(np.uint32))
    return np.uint16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


def fill_array(column: str, dtype: pa.DataType, value: Any) -> pa.Array:
    """One value as an Arrow array of the column's type; raises InvalidRequest where it is none."""
    allowed = f"fill={{{column!r}: {value!r}}}: must be a value of the column's type, {dtype}"
    if value is None:
        raise InvalidRequest(allowed)
    try:
        one = pa.array([value], pa.bool_() if isinstance(dtype, pa.Bool8Type) else dtype)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{allowed} ({error})") from error
    if pt.is_integer(dtype) and one[0].as_py() != value:  # pyarrow cuts 1.5 down to 1
        raise InvalidRequest(allowed)
    return one
