"""Columns: what an Arrow type becomes, decided when the stream is opened; bundle after bundle is then opened by it.

Dense     numbers, one or a block of them per row        [rows, ...]
Lists     lists of varying length                        padded + mask, or values + offsets (see lists.py)
Objects   strings, binaries, maps and what holds them    a Python list, one item per row
Struct    its fields, each a column of its own           "a.b"
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.tensors.block import Block, decoded
from penstock.tensors.bundle import OpenTensors
from penstock.tensors.leaf import Lender
from penstock.tensors.nulls import NullRule


class Column(Protocol):
    """One column of the schema, planned."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys it will have in a batch, in order."""
        ...

    @property
    def unstacked(self) -> tuple[str, ...]:
        """Those of its keys whose leading dimension is not the rows."""
        return ()

    def open(self, array: pa.Array, lender: Lender, bundle: OpenTensors) -> None:
        """Converts the column of a whole bundle and adds it to `bundle`; raises ConversionError."""
        ...


@dataclass(frozen=True, slots=True)
class Dense(Column):
    """One tensor `[rows, ...]`; with `nulls="mask"` also `<column>_valid` of the same shape, unless NaN says it."""

    name: str
    block: Block
    rule: NullRule
    masked: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """One key, or two."""
        return (self.name, f"{self.name}_valid") if self.masked else (self.name,)

    def open(self, array: pa.Array, lender: Lender, bundle: OpenTensors) -> None:
        """See `Column.open`."""
        values, missing = self.block.read(array, lender)
        bundle.add_array(self.name, self.rule.apply(values, missing), self.block.leaf.bfloat16)
        if self.masked:
            valid = np.ones(values.shape, np.bool_) if missing is None else ~missing
            bundle.add_array(f"{self.name}_valid", valid)


@dataclass(frozen=True, slots=True)
class Objects(Column):
    """A Python list of str or bytes, or of lists, pairs and dicts of them; None where the row is null."""

    name: str
    fill: pa.Scalar | None

    @property
    def keys(self) -> tuple[str, ...]:
        """One key."""
        return (self.name,)

    def open(self, array: pa.Array, lender: Lender, bundle: OpenTensors) -> None:
        """See `Column.open`."""
        array = decoded(array)
        if self.fill is not None and array.null_count:
            array = pc.fill_null(array, self.fill)
        bundle.add_sliceable(self.name, array.to_pylist())


@dataclass(frozen=True, slots=True)
class Struct(Column):
    """Its fields; where the struct is null, so is every field."""

    fields: tuple[Column, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """Those of its fields."""
        return tuple(key for field in self.fields for key in field.keys)

    @property
    def unstacked(self) -> tuple[str, ...]:
        """Those of its fields."""
        return tuple(key for field in self.fields for key in field.unstacked)

    def open(self, array: pa.Array, lender: Lender, bundle: OpenTensors) -> None:
        """See `Column.open`."""
        for field, child in zip(self.fields, decoded(array).flatten(), strict=True):
            field.open(child, lender, bundle)
