"""Lists of varying length: padded, or as values and offsets."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.tensors.block import Block, decoded
from penstock.tensors.bundle import Cut, OpenTensors
from penstock.tensors.leaf import Array, Lender
from penstock.tensors.nulls import NullRule


@dataclass(frozen=True, slots=True)
class Lists:
    """Padded with zeros to the longest row of each step, with `<column>_mask`; or values with `<column>_offsets`.

    The mask (bool `[rows, longest]`) is true where there is data; with `nulls="mask"` a null item is none.
    Offsets are int64 `[rows + 1]`: row i holds values `offsets[i]` to `offsets[i + 1]`.
    """

    name: str
    item: Block
    rule: NullRule
    ragged: bool
    masked: bool  # null items are to be told from data

    @property
    def keys(self) -> tuple[str, ...]:
        """Values and mask, or values, offsets and perhaps `<column>_valid`."""
        if not self.ragged:
            return self.name, f"{self.name}_mask"
        keys = (self.name, f"{self.name}_offsets")
        return (*keys, f"{self.name}_valid") if self.masked else keys

    @property
    def unstacked(self) -> tuple[str, ...]:
        """All of them where ragged."""
        return self.keys if self.ragged else ()

    def open(self, array: pa.Array, lender: Lender, bundle: OpenTensors) -> None:
        """See `Column.open`."""
        array = decoded(array)
        self.rule.check_lists(array)
        offsets = np.zeros(len(array) + 1, np.int64)
        np.cumsum(pc.fill_null(array.value_lengths(), 0).to_numpy(), out=offsets[1:])
        # flatten() and not values: it honours slices, leaves out what lies under a null list and orders list views.
        values, missing = self.item.read(array.flatten(), lender)
        values = self.rule.apply(values, missing)
        valid = None
        if self.masked:
            valid = np.ones(values.shape, np.bool_) if missing is None else ~missing
        if self.ragged:
            bundle.add_cut(_ragged(self, bundle, values, offsets, valid))
        else:
            bundle.add_cut(_padded(self, bundle, values, offsets, valid))


def _padded(lists: Lists, bundle: OpenTensors, values: Array, offsets: Array, valid: Array | None) -> Cut:
    output, copies = bundle.output, bundle.copies
    again = 0 if output.cuts_tensors else 1  # a library that takes arrays copies what was padded
    key, mask_key = lists.keys
    wrap, wrap_mask = output.wrap_of(lists.item.leaf), output.wrap
    # An item of several numbers is data if any of them is.
    present = None if valid is None else np.logical_or.reduce(valid.reshape(len(valid), prod(valid.shape[1:])), axis=1)

    def cut(start: int, stop: int, into: dict[str, Any]) -> None:
        count = stop - start
        ends = offsets[start : stop + 1]
        first, last = int(ends[0]), int(ends[-1])
        lengths = ends[1:] - ends[:-1]
        width = int(lengths.max()) if count else 0
        items = values[first:last]
        shape = (count, width)
        mask = np.ones(shape, np.bool_)
        if count * width == last - first:  # all of one length: nothing to pad
            padded = items.reshape(*shape, *values.shape[1:])
            copies.bytes += again * padded.nbytes
        else:
            copies.bytes += (1 + again) * items.nbytes
            np.less(np.arange(width), lengths[:, None], out=mask)
            padded = np.zeros((*shape, *values.shape[1:]), values.dtype)
            padded[mask] = items
        if present is not None:
            mask[mask] = present[first:last]
        into[key] = wrap(padded)
        into[mask_key] = wrap_mask(mask)

    return cut


def _ragged(lists: Lists, bundle: OpenTensors, values: Array, offsets: Array, valid: Array | None) -> Cut:
    output, copies = bundle.output, bundle.copies
    keys, cuts_tensors = lists.keys, output.cuts_tensors
    items = [(keys[0], values, output.wrap_of(lists.item.leaf))]
    items += [] if valid is None else [(keys[2], valid, output.wrap)]
    if cuts_tensors:
        items = [(key, wrap(array), wrap) for key, array, wrap in items]

    def cut(start: int, stop: int, into: dict[str, Any]) -> None:
        ends = offsets[start : stop + 1]
        first, last = int(ends[0]), int(ends[-1])
        for key, array, wrap in items:
            part = array[first:last]
            if not cuts_tensors:
                copies.bytes += part.nbytes
                part = wrap(part)
            into[key] = part
        into[keys[1]] = output.wrap(ends - first)

    return cut
