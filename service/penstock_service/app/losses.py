"""Chunks that cannot be had for reasons that are not in their bytes: left out through the journal, or not at all."""

from dataclasses import replace

import numpy as np

from penstock_proto.v1.cursor import Cursor
from penstock_service.app.run import RunSegments
from penstock_service.app.runs import Runs
from penstock_service.batch.policy import Applied, Listener
from penstock_service.core.errors import InvalidRequest, SourceGone, Unavailable
from penstock_service.core.journal import Place
from penstock_service.core.segment import Segment


class Losses:
    """What one session does about them where its policy is other than `fail`."""

    def __init__(self, runs: Runs, segments: RunSegments, applied: Applied, listener: Listener) -> None:
        self._runs = runs
        self._applied = applied
        self._segments = segments
        self._listener = listener

    async def lost(self, place: Place, segment: Segment) -> None:
        """Has the journal leave out the chunks that `segment` lacks, from `place` on. A file that is gone takes all
        its chunks with it.

        Raises:
            SourceUnreadable: some rank was given rows of that segment already.
            Unavailable: not all ranks are connected.
        """
        lost = np.array(segment.lost, np.int64)
        await self._listener.heard(place.epoch, replace(segment, bad=segment.bad.of_chunks(lost), kin={}))

        def unit_of(cursor: Cursor) -> int:
            return self._applied.unit_of(cursor, segment)

        for part in self._segments.by_source(lost):
            manifest = part.dataset.manifest
            chunks = set(part.own.tolist())
            faults = [segment.bad.faults[part.first + own] for own in part.own.tolist()]
            for fault in faults:
                if isinstance(fault, SourceGone) and fault.shard:
                    chunks.update(manifest.chunks_of(fault.shard))
            more = f" (and {len(chunks) - 1} more chunks)" if len(chunks) > 1 else ""
            try:
                reason = f"{faults[0]}{more}"
                await self._runs.unreadable(self._segments, part.source, sorted(chunks), reason, place, unit_of)
            except InvalidRequest as left:  # a rank has left in between: it comes back, and so does this one
                raise Unavailable(str(left)) from left
