"""Explains a step: a feed of its own is opened beside the stream's sessions and walks there without reading between."""

from dataclasses import replace
from typing import Final

import pyarrow as pa

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from penstock_service.app.position import read_cursor
from penstock_service.app.subscriptions import Subscriptions
from penstock_service.core.errors import InvalidRequest

_MOST_ROWS: Final = 500_000  # of one answer: about 40 MB


class Explaining:
    """Answers `Explain` of the control service, and of HTTP."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    async def explain(self, request: pb.Open, step: int, epoch: int | None, all_ranks: bool) -> pa.RecordBatch:
        """Where each row of a step comes from: `batch.explain.SCHEMA`.

        Args:
            request: what a session would be opened with. Its cursor says where steps are counted from, if the step
                does not lie behind it; else they are counted from the epoch's start, all of one size.
            epoch: default: that of the cursor, else of the request.

        Raises:
            InvalidRequest: there is no such step, or too many rows were asked for.
        """
        cursor = read_cursor(request.cursor)
        epoch = (request.epoch if cursor is None else cursor.epoch) if epoch is None else epoch
        rows = request.view.global_batch // (1 if all_ranks else max(1, request.view.world_size))
        if rows > _MOST_ROWS:
            raise InvalidRequest(
                f"step {step} has {rows} rows, and at most {_MOST_ROWS} are explained at once"
                + ("; ask for one rank" if all_ranks else "")
            )
        opening = await self._subscriptions.open(_beginning(request, cursor, epoch, step), looking=True)
        try:
            if opening.steps is not None and step >= opening.steps:
                raise InvalidRequest(f"there is no step {step}: an epoch has {opening.steps} steps, from 0 on")
            return await opening.feed.explain(step, all_ranks)
        finally:
            opening.close()


def _beginning(request: pb.Open, cursor: Cursor | None, epoch: int, step: int) -> pb.Open:
    """The request as it would be for a session that begins before the step."""
    made = pb.Open()
    made.CopyFrom(request)
    made.epoch = epoch
    del made.view.skip[:]  # a step that is skipped can be explained too
    if cursor is not None and (cursor.epoch != epoch or cursor.step > step):
        cursor = replace(cursor, epoch=epoch, segment=0, taken=0, step=0, digest=0)
        made.cursor = cursor.to_json()
    return made
