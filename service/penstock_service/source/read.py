"""Reading: the chunks of one task, made in one pass over its read units."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pyarrow as pa

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import ReadTask, Slice
from penstock_service.core.errors import DataError, SourceGone
from penstock_service.source.conform import join_values
from penstock_service.source.format import ShardFile
from penstock_service.source.formats import format_named
from penstock_service.source.place import LocalPlace, Place
from penstock_service.source.places import place_at
from penstock_service.source.same import check_same
from penstock_service.source.stores import DEFAULTS, Stores
from penstock_service.source.text.format import TextFormat, is_plain
from penstock_service.source.text.packed import is_tiny, read_packed
from penstock_service.source.text.syntax import Syntax

_FEW = 4  # files that are read one by one rather than parted again


def read_task(task: ReadTask, stores: Stores = DEFAULTS) -> Iterator[tuple[int, ChunkValue]]:
    """Ordinal and value of each chunk of `task`, in order, made to its schema. Runs in any thread or process.

    Raises SourceChanged (a file is gone or holds something else), SourceUnreadable (a read failed), DataError (what was
    read cannot be understood; single rows that cannot are errors in the value instead).
    """
    schema = pa.ipc.read_schema(pa.py_buffer(task.schema))
    place = place_at(task.root, stores)
    if len(task.chunks) == 1 and place.parallel == 1:
        (chunk,), (slices,) = task.chunks, task.slices
        yield chunk, join_values(list(_values(place, slices, schema)), schema)
        return
    values = _slice_values(place, [s for slices in task.slices for s in slices], schema)
    for chunk, slices in zip(task.chunks, task.slices, strict=True):
        yield chunk, join_values([next(values) for _ in slices], schema)


def _values(place: Place, slices: Sequence[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
    """The value of `slices` in order, in one or more parts: tiny text files next to each other are parsed together."""
    for (name, tiny), group in groupby(slices, key=lambda s: (s.format, is_tiny(s) and is_plain(s.path))):
        run = list(group)
        kind = format_named(name)
        if tiny and isinstance(kind, TextFormat):
            yield from _packed_values(kind.syntax, place, run, schema)
        else:
            yield from _slice_values(place, run, schema)


def _packed_values(syntax: Syntax, place: Place, run: list[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
    """Together if all are flawless; else in halves, until what is not stands nearly alone."""
    packed = read_packed(syntax, place, run, schema) if len(run) > 1 else None
    if packed is not None:
        yield packed
    elif len(run) <= _FEW:
        yield from _slice_values(place, run, schema)
    else:
        yield from _packed_values(syntax, place, run[: len(run) // 2], schema)
        yield from _packed_values(syntax, place, run[len(run) // 2 :], schema)


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
    try:
        file = shard_file(place, slices[0].path)
        check_same(file, slices[0])
        try:
            for value in format_named(slices[0].format).read(file, slices, schema):
                _check_still(file, slices[0])
                yield value
        except DataError:
            _check_still(file, slices[0])  # what is being rewritten may look like anything
            raise
    except SourceGone as gone:
        gone.shard = slices[0].path  # all its chunks are gone with it, not only those of this task
        raise


def _check_still(file: ShardFile, piece: Slice) -> None:
    """What was read is what was registered, though somebody may write to the file. Of objects that is a round trip."""
    if isinstance(file.place, LocalPlace) and (now := shard_file(file.place, file.path)).state != file.state:
        check_same(now, piece)


def shard_file(place: Place, path: str) -> ShardFile:
    """A shard as it is now. Raises SourceGone where there is none."""
    state = place.state(path)
    if state is None:
        raise SourceGone(f"{place.full(path)} is gone. Put it back, or register the dataset again without it.")
    return ShardFile(place, path, state)
