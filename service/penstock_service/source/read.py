"""Reading: the chunks of one task, made in one pass over its read units."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pyarrow as pa

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import ReadTask, Slice
from penstock_service.core.errors import SourceChanged
from penstock_service.source.conform import join_values
from penstock_service.source.digest import check_same
from penstock_service.source.format import ShardFile
from penstock_service.source.formats import format_named
from penstock_service.source.place import Place
from penstock_service.source.places import place_at
from penstock_service.source.stores import DEFAULTS, Stores


def read_task(task: ReadTask, stores: Stores = DEFAULTS) -> Iterator[tuple[int, ChunkValue]]:
    """Ordinal and value of each chunk of `task`, in order, made to its schema. Runs in any thread or process.

    Raises SourceChanged (a file is gone or has another size), SourceUnreadable (a read failed), DataError (what was
    read cannot be understood; single rows that cannot are errors in the value instead).
    """
    schema = pa.ipc.read_schema(pa.py_buffer(task.schema))
    values = _slice_values(place_at(task.root, stores), [s for slices in task.slices for s in slices], schema)
    for chunk, slices in zip(task.chunks, task.slices, strict=True):
        yield chunk, join_values([next(values) for _ in slices], schema)


def _slice_values(place: Place, slices: list[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
    """The value of each slice, in order; consecutive slices of a shard share one opening."""
    shards = [list(group) for _, group in groupby(slices, key=lambda s: (s.path, s.fingerprint))]
    if place.parallel == 1 or len(shards) == 1:
        for of_shard in shards:
            yield from _shard_values(place, of_shard, schema)
        return
    # Several shards in one task are small ones in one chunk: each costs a few round trips, and together little memory.
    with ThreadPoolExecutor(min(place.parallel, len(shards)), thread_name_prefix="shards") as pool:
        try:
            for values in pool.map(lambda of_shard: list(_shard_values(place, of_shard, schema)), shards):
                yield from values
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _shard_values(place: Place, slices: list[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
    file = shard_file(place, slices[0].path)
    check_same(file, slices[0].fingerprint)
    yield from format_named(slices[0].format).read(file, slices, schema)


def shard_file(place: Place, path: str) -> ShardFile:
    """A shard as it is now. Raises SourceChanged where there is none."""
    state = place.state(path)
    if state is None:
        raise SourceChanged(f"{place.full(path)} is gone. Put it back, or register the dataset again without it.")
    return ShardFile(place, path, state)
