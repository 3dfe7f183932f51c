"""How a chunk is made: read, then the row transforms. Runs in workers, in threads or in processes."""

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import ReadTask, Slice
from penstock_service.source.read import read_task
from penstock_service.source.stores import Stores


def make_chunks(task: ReadTask, stores: Stores) -> Iterator[tuple[int, ChunkValue]]:
    """The chunks of `task`, in order. A module-level function: worker processes find it by name."""
    chain = task.chain
    if chain is None:
        yield from read_task(task, stores)
        return
    slices = dict(zip(task.chunks, task.slices, strict=True))
    for chunk, value in read_task(replace(task, chain=None), stores):
        yield chunk, chain.apply(value, _namer(slices[chunk]))


def _namer(slices: tuple[Slice, ...]) -> Callable[[int], str]:
    """Names stored rows of a chunk."""
    starts = [0, *accumulate(s.rows for s in slices)]

    def where(row: int) -> str:
        at = bisect_right(starts, row) - 1
        return f"{slices[at].path}, row {slices[at].first_row + row - starts[at]}"

    return where
