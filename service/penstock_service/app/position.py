"""Where a feed begins: the cursor a client brings, checked against the stream it is opened on."""

import re
from dataclasses import asdict

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import BadCursor, Cursor
from penstock_service.batch.view import View
from penstock_service.core.errors import CursorMismatch, InvalidRequest
from penstock_service.core.plan import PlanConstants
from penstock_service.mix.stream import Stream


def read_cursor(text: str) -> Cursor | None:
    if not text:
        return None
    try:
        return Cursor.from_json(text)
    except BadCursor as error:
        raise InvalidRequest(f"the state that was loaded is no cursor: {error}") from error


def check_start(text: str) -> str:
    """`Open.start` as it is, if it is one."""
    if text and not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", text):
        raise InvalidRequest(f"start {text!r}: must be EPOCH.SEGMENT.TAKEN, three numbers, or empty")
    return text


def carried_plan(cursor: Cursor | None) -> PlanConstants | None:
    if cursor is None:
        return None
    try:
        return PlanConstants.from_json(dict(cursor.plan))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"the plan constants in the state are not whole: {error!r}") from error


def begin(request: pb.Open, stream: Stream, view: View, cursor: Cursor | None) -> Cursor:
    """Where the feed begins: at the cursor, if it is one of this stream."""
    fingerprint, plan = stream.fingerprint(), stream.plan.to_json()
    if cursor is None:
        return Cursor(request.epoch, 0, 0, 0, view.global_batch, stream.seed, 0, plan, fingerprint)
    differing = [
        f"{name} (cursor {cursor.fingerprint.get(name, 'none')}, now {fingerprint.get(name, 'none')})"
        for name in sorted({*fingerprint, *cursor.fingerprint})
        if cursor.fingerprint.get(name) != fingerprint.get(name)
    ]
    if cursor.seed != stream.seed:
        differing.append(f"seed (cursor {cursor.seed}, now {stream.seed})")
    if differing:
        raise CursorMismatch(
            f"this state belongs to another stream; what differs: {'; '.join(differing)}. "
            "Open the stream as it was when the state was saved, or begin a new epoch without the state"
        )
    return Cursor(**{**asdict(cursor), "global_batch": view.global_batch})
