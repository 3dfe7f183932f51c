"""Where the rows of one step come from, without fetching them: segment, shard and row of each."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.fetch import stored_rows
from penstock_service.batch.view import View
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.segment import BySource, Segment

I64 = npt.NDArray[np.int64]

_NAMED: Final = pa.dictionary(pa.int32(), pa.string())
SCHEMA: Final = pa.schema(
    [
        ("rank", pa.int32()),
        ("place", pa.int32()),  # in the batch of the rank
        ("valid", pa.bool_()),  # false: padding
        ("source", pa.int32()),
        ("dataset", _NAMED),
        ("version", _NAMED),
        ("split", _NAMED),
        ("shard", _NAMED),
        ("shard_row", pa.int64()),  # as stored, from 0
        ("row", pa.int64()),  # number in the dataset's stored order
        ("segment", pa.int64()),
        ("unit", pa.int64()),  # place in the segment
        ("bad", pa.string()),  # why it is no row; null: it is one
    ]
)


class Reached(NamedTuple):
    """A feed that stands before a step: the segments that hold its units, and those it is filled up from."""

    segments: Sequence[Segment]
    taken: int  # units of the first one that earlier steps took
    left: int  # units up to the epoch's end, or at least a step
    head: Sequence[Segment]  # the epoch's first segments, where the last step goes on with them


def explain(view: View, ranks: Sequence[int], reached: Reached, by_source: BySource) -> pa.RecordBatch:
    """The rows of the step for each of `ranks`, in the order they would have: `SCHEMA`."""
    parts = [_units(replace(view, rank=rank), reached) for rank in ranks]
    units = np.concatenate([found for found, _ in parts]) + reached.taken
    segments = [*reached.segments, *reached.head]
    edges = np.cumsum([0, *(s.units for s in segments)])
    of = np.searchsorted(edges, units, side="right") - 1
    place = units - edges[of]
    chunk, stored = np.empty(len(units), np.int64), np.empty(len(units), np.int64)
    reasons: dict[int, str] = {}
    for i in np.unique(of).tolist():
        mine = np.flatnonzero(of == i)
        chunk[mine], stored[mine] = _stored(segments[i], place[mine])
        for bad in (segments[i].bad, segments[i].stand_ins):  # of a row that stands for a bad one: the bad one
            hit = np.flatnonzero(np.isin(place[mine], bad.unit))
            found = bad.take(np.searchsorted(bad.unit, place[mine][hit]))
            chunk[mine[hit]], stored[mine[hit]] = found.chunk, found.stored
            said = (f"{where}: {reason}" for where, reason in found.reasons(by_source))
            reasons.update(zip(mine[hit].tolist(), said, strict=True))
    rows = [len(found) for found, _ in parts]
    where = _where(chunk, stored, by_source)
    numbers = np.array([segment.number for segment in segments], np.int64)
    columns: dict[str, Any] = {
        "rank": np.repeat(np.array(ranks, np.int32), rows),
        "place": np.concatenate([np.arange(n, dtype=np.int32) for n in rows]),
        "valid": np.concatenate([np.arange(n) < valid for n, (_, valid) in zip(rows, parts, strict=True)]),
        **where,
        "segment": numbers[of],
        "unit": place,
        "bad": [reasons.get(i) for i in range(len(units))],
    }
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def _units(view: View, reached: Reached) -> tuple[I64, int]:
    """Units of a rank from the step's first one on, and how many of them are data."""
    if reached.left >= view.global_batch:
        units = view.full_steps(0, 1)
        return units, len(units)
    last = view.last_step(reached.left, sum(s.units for s in reached.head) or reached.left)
    assert last is not None  # noqa: S101 - a step that is dropped is not reached
    return last.units, len(last.units) if last.valid is None else last.valid


def _stored(segment: Segment, units: I64) -> tuple[I64, I64]:
    """Chunk of the stream and stored row in it; the row of bad units is for the caller to say."""
    chunk, row = segment.chunk[units].astype(np.int64), segment.row[units].astype(np.int64)
    for c in np.unique(chunk).tolist():
        mine = chunk == c
        row[mine] = stored_rows(row[mine], segment.absent.get(c))
    return chunk, row


def _where(chunk: I64, stored: I64, by_source: BySource) -> dict[str, Any]:
    """Dataset, shard and row by chunk of the stream and stored row in it."""
    source, row = np.empty(len(chunk), np.int32), np.empty(len(chunk), np.int64)
    shard, shard_row = np.empty(len(chunk), np.int64), np.empty(len(chunk), np.int64)
    datasets: list[DatasetVersion] = []
    which = np.empty(len(chunk), np.int32)  # of them
    paths: list[str] = []
    for number, part in enumerate(by_source(np.unique(chunk))):
        manifest = part.dataset.manifest
        mine = np.flatnonzero((chunk >= part.first) & (chunk < part.first + manifest.chunks))
        row[mine] = stored[mine] + manifest.chunk_start[chunk[mine] - part.first]
        at = np.searchsorted(manifest.shard_start, row[mine], side="right") - 1
        shard_row[mine] = row[mine] - manifest.shard_start[at]
        shards, back = np.unique(at, return_inverse=True)
        shard[mine] = back + len(paths)
        paths += manifest.shards["path"].take(pa.array(shards)).to_pylist()
        source[mine], which[mine] = part.source, number
        datasets.append(part.dataset)
    return {
        "source": source,
        "dataset": _named(which, [dataset.name for dataset in datasets]),
        "version": _named(which, [dataset.version for dataset in datasets]),
        "split": _named(which, [dataset.split for dataset in datasets]),
        "shard": _named(shard.astype(np.int32), paths),
        "shard_row": shard_row,
        "row": row,
    }


def _named(which: npt.NDArray[np.int32], names: list[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(which), pa.array(names, pa.string()))
