"""Messages to the client, as bytes: control by protobuf, payload framed by hand."""

import json

from penstock_proto.v1 import data_pb2 as pb
from penstock_service.core.errors import Fenced, ServiceError
from penstock_service.core.feed import Bundle, EpochEnd, News, Opening
from penstock_service.deliver.compression import Decision
from penstock_service.deliver.transport import Transport


def opened(opening: Opening, session: str, offer: Transport, server: str, how: Decision) -> bytes:
    message = pb.Opened(
        session=session,
        schema=opening.schema.serialize().to_pybytes(),
        fingerprint=json.dumps(opening.fingerprint),
        plan=json.dumps(opening.plan),
        steps=opening.steps,
        rows=opening.rows,
        transport=offer.offered,
        transport_reason=offer.reason,
        slots=_slots(offer),
        payload=_payload(offer),
        server=server,
        cursor=opening.cursor.to_json(),
        datasets=opening.datasets,
        seed=opening.seed,
        notes=opening.notes,
        compression=_compression(how),
    )
    return _bytes(pb.ServerMessage(opened=message))


def filling(rows: int, of: int, stage: str) -> bytes:
    return _bytes(pb.ServerMessage(filling=pb.Filling(rows=rows, of=of, stage=stage)))


def bundle(made: Bundle, slot: int | None = None, socket: bool = False) -> bytes:
    message = pb.Bundle(
        epoch=made.epoch,
        first_step=made.first_step,
        steps=made.steps,
        body_bytes=made.body.size,
        segment=made.segment,
        taken=made.taken,
        spans=[pb.Span(segment=s.segment, units=s.units, digest=s.digest) for s in made.spans],
        rows=made.rows,
        units=made.units,
        last_rows=made.last_rows,
        last_units=made.last_units,
        last_valid=made.last_valid,
        ends_epoch=made.ends_epoch,
        rows_wait_us=int(made.rows_wait_seconds * 1e6),
        gather_us=int(made.gather_seconds * 1e6),
        substituted=made.substituted,
        slot=slot,
        socket=socket,
    )
    return _bytes(pb.ServerMessage(bundle=message))


def epoch_end(end: EpochEnd) -> bytes:
    message = pb.EpochEnd(
        epoch=end.epoch,
        steps=end.steps,
        dropped=end.dropped,
        padded=end.padded,
        repeated_rows=end.repeated,
        unread=end.unread,
        skipped_rows=end.skipped,
        substituted_rows=end.substituted,
    )
    return _bytes(pb.ServerMessage(epoch_end=message))


def journal(news: News) -> bytes:
    return _bytes(pb.ServerMessage(journal=pb.Journal(run=news.run, steps=news.steps, rows=news.rows)))


def draining(retry_after_ms: int, reason: str) -> bytes:
    return _bytes(pb.ServerMessage(draining=pb.Draining(retry_after_ms=retry_after_ms, reason=reason)))


def compression(how: Decision) -> bytes:
    return _bytes(pb.ServerMessage(compression=_compression(how)))


def heartbeat(sent: int) -> bytes:
    """`sent`: messages since Opened."""
    return _bytes(pb.ServerMessage(heartbeat=pb.Heartbeat(sent=sent)))


def error(problem: ServiceError) -> bytes:
    if isinstance(problem, Fenced):
        return _bytes(pb.ServerMessage(fenced=pb.Fenced(by=problem.by, message=str(problem))))
    message = pb.Error(code=problem.code, message=str(problem), retryable=problem.retryable)
    return _bytes(pb.ServerMessage(error=message))


def _compression(how: Decision) -> pb.Compression:
    return pb.Compression(codec=how.codec, reason=how.reason)


def _payload(offer: Transport) -> pb.Payload | None:
    socket = offer.socket
    return pb.Payload(host=socket.host, port=socket.port, nonce=socket.nonce) if socket is not None else None


def _slots(offer: Transport) -> pb.Slots | None:
    slots = offer.slots
    if slots is None:
        return None
    return pb.Slots(path=str(slots.path), count=slots.count, slot_bytes=slots.slot_bytes)


def _bytes(message: pb.ServerMessage) -> bytes:
    data: bytes = message.SerializeToString()
    return data
