"""Numbers in a shape that is the same for every row."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from penstock.tensors.leaf import Array, Leaf, Lender


@dataclass(frozen=True, slots=True)
class Block:
    """The row of a dense column, or an item of a list."""

    leaf: Leaf
    sizes: tuple[int, ...]  # of the fixed-size lists it is stored as, from the outside in
    shape: tuple[int, ...]  # of one row, as stored
    axes: tuple[int, ...] | None  # a permutation of the stored axes: how the row is meant

    def read(self, array: pa.Array, lender: Lender) -> tuple[Array, Array | None]:
        """Values `[len(array), ...]`, and where they are missing (bool, the same shape) or None where nowhere.

        What stands where a value is missing is undefined. Writable.
        """
        count = len(array)
        lead: tuple[int, ...] = (count,)
        missing: list[Array] = []
        for size in (*self.sizes, None):
            array = decoded(array)
            if array.null_count:
                missing.append(array.is_null().to_numpy(zero_copy_only=False).reshape(lead))
            if size is not None:
                array = array.values.slice(array.offset * size, len(array) * size)
                lead = (*lead, size)
        values = self._turned(self.leaf.read(array, lender).reshape(count, *self.shape))
        if not missing:
            return values, None
        anywhere = np.zeros(lead, np.bool_)
        for level in missing:
            anywhere |= level.reshape(level.shape + (1,) * (len(lead) - level.ndim))
        return values, self._turned(anywhere.reshape(count, *self.shape))

    def _turned(self, values: Array) -> Array:
        return values if self.axes is None else values.transpose(0, *(axis + 1 for axis in self.axes))


def decoded(array: pa.Array) -> pa.Array:
    """The same values without dictionary, run-end encoding and extension type around them."""
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pt.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif pt.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        else:
            return array
