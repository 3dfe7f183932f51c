"""Where a feed begins: the cursor a client brings, checked against the stream it is opened on."""

import re
from dataclasses import replace

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


def begin(request: pb.Open, stream: Stream, view: View, cursor: Cursor | None, notes: list[str]) -> Cursor:
    """Where the feed begins: at the cursor, if it is one of this stream or the client insists.

    Raises:
        CursorMismatch: with what differs, field by field.
    """
    fingerprint, plan = stream.fingerprint(), stream.plan.to_json()
    if cursor is None:
        start = Cursor(request.epoch, 0, 0, 0, view.global_batch, stream.seed, 0, plan, fingerprint)
        return replace(start, skip=view.skip)
    here = replace(cursor, global_batch=view.global_batch, skip=view.skip)
    differing = _differing(cursor, stream)
    if not request.force:
        if differing:
            raise CursorMismatch(
                f"this state belongs to another stream; what differs: {'; '.join(differing)}. Open the stream as it "
                "was when the state was saved, or begin a new epoch without the state; "
                "load_state_dict(state, force=True) goes on at its position all the same and promises nothing"
            )
        return here
    if differing:
        notes.append(
            f"a state of another stream was forced upon this one: it goes on at segment {cursor.segment} after "
            f"{cursor.taken} units, step {cursor.step}, of epoch {cursor.epoch}; rows may be missed or come again. "
            f"What differs: {'; '.join(differing)}"
        )
    # No digest: what the segment was then is not compared with what it is now.
    return replace(here, seed=stream.seed, digest=0, plan=plan, fingerprint=fingerprint)


def _differing(cursor: Cursor, stream: Stream) -> list[str]:
    """What is not as it was, by field: the hash in the cursor, the hash now and what it stands for."""
    fingerprint, words = stream.fingerprint(), _words(stream)
    found = [
        f"{name} (cursor {cursor.fingerprint.get(name, 'none')}, now {fingerprint.get(name, 'none')}"
        f"{': ' + words[name] if name in words else ''})"
        for name in sorted({*fingerprint, *cursor.fingerprint})
        if cursor.fingerprint.get(name) != fingerprint.get(name)
    ]
    if cursor.seed != stream.seed:
        found.append(f"seed (cursor {cursor.seed}, now {stream.seed})")
    return found


def _words(stream: Stream) -> dict[str, str]:
    """What the stream is now, for people, by field of the fingerprint."""
    chains = sum(bool(source.chain) for source in stream.sources)
    return {
        "sources": ", ".join(source.label for source in stream.sources),
        "versions": ", ".join(source.reference for source in stream.sources),
        "weights": " : ".join(map(str, stream.weights)),
        "transforms": f"of {chains} of {len(stream.sources)} datasets",
        "pool": ", ".join(f"{name} {value}" for name, value in stream.plan.to_json().items()),
        "end": f"until={stream.until!r}, epoch_rows={stream.epoch_rows}",
        "order": f"shuffle={stream.shuffle}, reshuffle={stream.reshuffle}",
    }
