"""One column of many chunks as one array, or a few: NumPy copies rows out of an array in one call, each byte once.

Chunks are mapped anywhere. But where the values of several lie whole items apart, an array over all the memory from the
first to the last has every one of them at an index; what lies between them belongs to others and is never asked for.
Chunk by chunk a bundle took hundreds of calls, each of which lets go of the GIL and waits for it
(docs/decisions/gathering.md).
"""

from collections.abc import Mapping, Sequence
from threading import local
from types import SimpleNamespace
from typing import Final

import numpy as np
import numpy.typing as npt

from penstock_service.batch.visit import Visit, plan_visit
from penstock_service.core.segment import U32

I64 = npt.NDArray[np.int64]
Items = npt.NDArray[np.void]

_PIECE: Final = 1 << 19  # bytes that are taken first and copied then, where that cannot be done at once
_BLOCK: Final = 2 << 20  # bytes on their way from arrays to their places: they fit a core's own cache
_DENSE: Final = 1 << 16  # numbers of chunks that lie this near each other are looked up in a table
_LEAST: Final = 4096  # rows at a time: below, calls cost more than copies
_WIDE: Final = 2048  # bytes of a value from which it goes to its place at once

_own = local()  # of each thread: memory of a block, as the next one will need it


class Spans:
    """The values of one column in each of several chunks."""

    def __init__(self, values: Sequence[Items]) -> None:
        """`values` of each chunk, all of one type; they must live as long as this does."""
        self._lengths = np.array([len(items) for items in values])
        kind = values[0].dtype
        begins = np.array([items.__array_interface__["data"][0] for items in values])
        apart = begins % kind.itemsize
        self._arrays: list[Items] = []
        self._array_of = np.empty(len(values), np.int64)
        self._first = np.empty(len(values), np.int64)
        for rest in np.unique(apart):
            of = np.flatnonzero(apart == rest)
            begin = int(begins[of].min())
            self._array_of[of] = len(self._arrays)
            self._first[of] = (begins[of] - begin) // kind.itemsize
            self._arrays.append(_over(begin, int((self._first[of] + self._lengths[of]).max()), kind))

    def take(self, chunk: I64, row: U32 | I64, out: Items) -> None:
        """Copy row `row` [n] of the chunk numbered `chunk` [n], for each in that order, to `out` [n], contiguous.

        Raises IndexError for a row that a chunk does not have.
        """
        if len(row) and int(row.max()) >= int(self._lengths.min()) and bool((row >= self._lengths[chunk]).any()):
            raise IndexError(f"row {int(row[row >= self._lengths[chunk]][0])} of a chunk that has fewer")
        index = self._first[chunk] + row
        if len(self._arrays) == 1:
            _take(self._arrays[0], index, out)
            return
        array = self._array_of[chunk]
        most = max(_LEAST, _BLOCK // out.itemsize)
        for at in range(0, len(out), most):
            visit = plan_visit(array[at : at + most], index[at : at + most])
            _take_by_array(self._arrays, visit, out[at : at + most])


class Columns:
    """Several columns of the same chunks."""

    def __init__(self, values: Mapping[int, Sequence[Items]]) -> None:
        """`values` of each column, by the number of the chunk."""
        numbers = sorted(values)
        self.spans = tuple(Spans(column) for column in zip(*(values[number] for number in numbers), strict=True))
        self._numbers = np.array(numbers)
        self._least = np.uint32(numbers[0])
        self._table: I64 | None = None
        if numbers[-1] - numbers[0] < _DENSE:
            self._table = np.full(numbers[-1] - numbers[0] + 1, len(numbers))
            self._table[self._numbers - numbers[0]] = np.arange(len(numbers))

    def among(self, chunk: U32) -> I64:
        """What `spans` call each chunk; one that is not there is an IndexError, here or there."""
        if self._table is not None:
            found: I64 = self._table[chunk - self._least]
            return found
        at = np.searchsorted(self._numbers, chunk)
        if (at == len(self._numbers)).any() or (self._numbers[at] != chunk).any():
            raise IndexError("a row of a chunk that is not there")
        return at


def _over(begin: int, items: int, kind: np.dtype[np.void]) -> Items:
    """An array over memory from `begin` on, whoever it belongs to."""
    memory = {"version": 3, "data": (begin, True), "shape": (items * kind.itemsize,), "typestr": "|u1"}
    return np.asarray(SimpleNamespace(__array_interface__=memory)).view(kind)


def _take(array: Items, index: I64, out: Items) -> None:
    """The items of `array` at `index` [n], to `out` [n]. The GIL is free meanwhile, whatever their number."""
    if not np.may_share_memory(array, out):
        array.take(index, out=out, mode="clip")  # other modes would copy to `out` from a buffer
        return
    # `out` lies between two chunks. NumPy would copy all of it twice to be sure; pieces stay in the caches.
    most = max(1, _PIECE // out.itemsize)
    for at in range(0, len(index), most):
        out[at : at + most] = array.take(index[at : at + most], mode="clip")


def _take_by_array(arrays: Sequence[Items], visit: Visit, out: Items) -> None:
    """Array by array. Narrow values are put into order in memory that stays in the caches, so that `out` is written
    from its first byte to its last: scattered over 16 MiB they took twice as long (256 bytes: 176 and 80 ns). Wide ones
    are scattered: 8 KiB took 2.4 instead of 4.0 µs.
    """
    if out.itemsize < _WIDE:
        block = _block(out)
        for array, first, end in visit.runs:
            _take(arrays[array], visit.rows[first:end], block[first:end])
        _take(block, visit.back, out)
        return
    # `part[rows]` would hold the GIL as long as it copies; whoever else wants it waits for 5 ms then.
    most = max(1, _BLOCK // out.itemsize)
    for array, first, end in visit.runs:
        for at in range(first, end, most):
            to = min(at + most, end)
            block = _block(out[at:to])
            _take(arrays[array], visit.rows[at:to], block)
            out[visit.place[at:to]] = block


def _block(like: Items) -> Items:
    """Memory of this thread, with the length and type of `like`."""
    if like.nbytes > _BLOCK:
        return np.empty_like(like)
    if not hasattr(_own, "block"):
        _own.block = np.empty(_BLOCK, np.uint8)
    block: Items = _own.block[: like.nbytes].view(like.dtype)
    return block
