"""What a server offers besides gRPC, and what of it can be used here: shared memory first, then a socket of its own."""

from collections.abc import Callable
from typing import NamedTuple

from penstock.payload import Avoided, NoSocket, PayloadSocket, connect
from penstock.slots import Slots
from penstock_proto.v1 import data_pb2 as pb


class Taken(NamedTuple):
    """How bundles come."""

    slots: Slots | None
    socket: PayloadSocket | None
    proof: pb.Proof | None  # to be told to the server, if it has offered anything


def take(opened: pb.Opened, target: str, avoided: Avoided, heard: Callable[[], object]) -> Taken:
    """Map, or connect; where that fails it goes on with the next best, and `opened` says which that is and why."""
    problems: list[str] = []
    if opened.HasField("slots"):
        offer = opened.slots
        try:
            slots = Slots(offer.path, offer.count, offer.slot_bytes)
        except (OSError, ValueError) as error:
            problems.append(f"the client cannot map {offer.path}: {error}")
        else:
            return Taken(slots, None, pb.Proof(nonce=slots.nonce))
    if opened.HasField("payload"):
        try:
            socket = connect(opened.payload, target, avoided, heard)
        except NoSocket as error:
            problems.append(f"no payload socket: {error}")
        else:
            reason = "; ".join(problems)
            opened.transport, opened.transport_reason = "tcp", reason or opened.transport_reason
            return Taken(None, socket, pb.Proof(socket=True, reason=reason))
    if not problems:
        return Taken(None, None, None)
    opened.transport, opened.transport_reason = "grpc", "; ".join(problems)
    return Taken(None, None, pb.Proof(reason=opened.transport_reason))
