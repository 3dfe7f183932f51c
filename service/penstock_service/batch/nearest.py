"""Which row stands for a bad one: the nearest good row of the same shard by stored position, the lower of two.

A function of positions alone: how a shard is cut into chunks changes nothing. The chunk of the bad row is looked at
first, its neighbours only where a nearer row may lie there.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.dataset import Manifest
from penstock_service.core.errors import CHUNK_FAULTS
from penstock_service.core.segment import ChunkSource, Fault, SourceChunks

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Stretch:
    """Positions from `begin` up to `end`, all of which were looked at, and the good ones among them, ascending."""

    begin: int
    end: int
    good: I64


@dataclass(frozen=True)
class Nearest:
    """For each bad position: the good one found so far (-1: none), and on which side a nearer one may lie."""

    good: I64
    look_below: Bools
    look_above: Bools


def nearest(bad: I64, shard_begin: I64, shard_end: I64, known: Stretch) -> Nearest:
    """The nearest good row in `known` of each of `bad`, within its shard, all [n]; `bad` lie in `known`."""
    far = np.int64(1) << 62
    at = np.searchsorted(known.good, bad)
    padded = np.concatenate([[-far], known.good, [far]])
    below, above = padded[at], padded[at + 1]
    to_below = np.where(below >= shard_begin, bad - below, far)
    to_above = np.where(above < shard_end, above - bad, far)
    best = np.minimum(to_below, to_above)
    found = np.where(best == far, -1, np.where(to_below <= to_above, below, above))
    return Nearest(
        found,
        (known.begin > shard_begin) & (bad - known.begin + 1 <= best),
        (known.end < shard_end) & (known.end - bad < best),
    )


class Neighbours:
    """Finds stand-ins in the chunks of one source."""

    def __init__(self, chunks: ChunkSource, part: SourceChunks, faults: Mapping[int, Fault]) -> None:
        """`faults`: what is known of chunks, by their number in the stream."""
        self._chunks = chunks
        self._dataset = part.dataset
        self._infos: dict[int, Fault] = {c - part.first: fault for c, fault in faults.items()}

    async def find(self, chunk: int, stored: I64) -> tuple[I64, I64]:
        """For the bad rows `stored` of `chunk`: chunks of the dataset and rows of their batches; -1 where no row of
        the shard is good. All [n]."""
        manifest = self._dataset.manifest
        bad = stored + int(manifest.chunk_start[chunk])
        good = np.full(len(bad), -1, np.int64)
        left = np.arange(len(bad))
        first, end = chunk, chunk + 1
        known = await self._stretch(chunk)
        while len(left):
            shard = np.searchsorted(manifest.shard_start, bad[left], side="right") - 1
            now = nearest(bad[left], manifest.shard_start[shard], manifest.shard_start[shard + 1], known)
            good[left] = now.good
            below, above = bool(now.look_below.any()), bool(now.look_above.any())
            left = left[now.look_below | now.look_above]
            if below:
                first -= 1
                known = _joined(await self._stretch(first), known)
            if above:
                known = _joined(known, await self._stretch(end))
                end += 1
        return await self._located(manifest, good)

    async def _located(self, manifest: Manifest, good: I64) -> tuple[I64, I64]:
        chunk = np.searchsorted(manifest.chunk_start, good, side="right") - 1
        row = np.full(len(good), -1, np.int64)
        for c in np.unique(chunk[good >= 0]).tolist():
            here = np.flatnonzero(chunk == c)
            present = await self._present(c)
            row[here] = np.searchsorted(present, good[here] - int(manifest.chunk_start[c]))
        return np.where(good >= 0, chunk, -1), row

    async def _stretch(self, chunk: int) -> Stretch:
        start = self._dataset.manifest.chunk_start
        begin, end = int(start[chunk]), int(start[chunk + 1])
        return Stretch(begin, end, await self._present(chunk) + begin)

    async def _present(self, chunk: int) -> I64:
        info = self._infos.get(chunk)
        if info is None:
            try:
                info = (await self._chunks.infos(self._dataset, [chunk]))[0]
            except CHUNK_FAULTS as fault:
                info = fault
            self._infos[chunk] = info
        if not isinstance(info, ChunkInfo):
            return np.empty(0, np.int64)
        return await asyncio.to_thread(info.present_rows)


def _joined(below: Stretch, above: Stretch) -> Stretch:
    return Stretch(below.begin, above.end, np.concatenate([below.good, above.good]))
