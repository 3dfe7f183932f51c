"""Sparse rows: struct<indices: list<integer>, values: list<number>> of a known width, as CSR."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import ConversionError
from penstock.tensors.block import Block, decoded
from penstock.tensors.bundle import OpenTensors
from penstock.tensors.columns import Column
from penstock.tensors.leaf import Array, Lender
from penstock.tensors.nulls import NullRule


@dataclass(frozen=True, slots=True)
class Sparse(Column):
    """One sparse CSR tensor `[rows, width]` where the library has them (torch), else the three arrays of one.

    Those are `<column>` values `[stored]`, `<column>_indices` int64 `[stored]`, `<column>_indptr` int64 `[rows + 1]`:
    row i has values and indices `indptr[i]` to `indptr[i + 1]`. Indices ascend within a row, whatever was stored.
    """

    name: str
    indices: Block
    values: Block
    rule: NullRule
    width: int
    whole: bool  # one tensor

    @property
    def keys(self) -> tuple[str, ...]:
        """One key, or three."""
        return (self.name,) if self.whole else (self.name, f"{self.name}_indices", f"{self.name}_indptr")

    @property
    def unstacked(self) -> tuple[str, ...]:
        """The three arrays: their leading dimension is not the rows."""
        return () if self.whole else self.keys

    def open(self, array: pa.Array, lender: Lender, bundle: OpenTensors) -> None:
        """See `Column.open`; also raises where indices and values do not make a row."""
        array = decoded(array)
        parts = dict(zip([f.name for f in array.type], map(decoded, array.flatten()), strict=True))
        offsets = self._offsets(parts["indices"], parts["values"])
        indices, absent = self.indices.read(parts["indices"].flatten(), lender)
        if absent is not None:
            raise self._error(f"{int(absent.sum())} indices in this bundle are null")
        values = self.rule.apply(*self.values.read(parts["values"].flatten(), lender))
        indices, values = self._in_order(indices.astype(np.int64, copy=False), values, offsets)
        wrap, csr = bundle.output.wrap_of(self.values.leaf), bundle.output.csr

        def cut(start: int, stop: int, into: dict[str, Any]) -> None:
            ends = offsets[start : stop + 1]
            first, last = int(ends[0]), int(ends[-1])
            row_ends, of, what = ends - first, indices[first:last], wrap(values[first:last])
            if not bundle.output.cuts_tensors:
                bundle.copies.bytes += of.nbytes + values[first:last].nbytes
            if csr is not None:
                into[self.name] = csr(row_ends, of, what, self.width)
            else:
                plain = bundle.output.wrap
                into.update(zip(self.keys, (what, plain(of), plain(row_ends)), strict=True))

        bundle.add_cut(cut)

    def _offsets(self, indices: pa.Array, values: pa.Array) -> Array:
        lengths = []
        for lists in (indices, values):
            self.rule.check_lists(lists)
            lengths.append(pc.fill_null(lists.value_lengths(), 0).to_numpy())
        wrong = np.flatnonzero(lengths[0] != lengths[1])
        if len(wrong):
            of, what = (int(length[wrong[0]]) for length in lengths)
            raise self._error(
                f"{len(wrong)} rows in this bundle have not as many indices as values (the first: {of} and {what})"
            )
        offsets = np.zeros(len(indices) + 1, np.int64)
        np.cumsum(lengths[0], out=offsets[1:])
        return offsets

    def _in_order(self, indices: Array, values: Array, offsets: Array) -> tuple[Array, Array]:
        outside = indices[(indices < 0) | (indices >= self.width)]
        if len(outside):
            raise self._error(
                f"{len(outside)} indices in this bundle are not from 0 to {self.width - 1} (the first: {outside[0]})"
            )
        place = np.repeat(np.arange(len(offsets) - 1) * self.width, np.diff(offsets)) + indices
        steps = np.diff(place)
        if (steps < 0).any():
            order = np.argsort(place, kind="stable")
            indices, values, steps = indices[order], values[order], np.diff(place[order])
        if (steps == 0).any():
            twice = int(indices[1:][steps == 0][0])
            raise self._error(f"index {twice} comes twice in one row")
        return indices, values

    def _error(self, what: str) -> ConversionError:
        return ConversionError(
            f"column {self.name!r} ({self.rule.type}), sparse with width {self.width}: {what}. Cures: mend it where it "
            'is stored, declare another width, or take output="arrow"'
        )
