"""Payload onto the wire: cut into frames, each compressed where that is wanted, while the one before it goes.

What a frame looks like there, and who takes it, is the carrier's (carriers.py).
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

import pyarrow as pa

from penstock_proto.v1 import frames
from penstock_service.core.errors import InvalidRequest
from penstock_service.core.feed import U8
from penstock_service.deliver.carriers import Carrier, Parts
from penstock_service.deliver.compression import NONE, Chooser, Decision

_WORTH: Final = 0.95  # what is not packed to less goes as it is


class _Packed(NamedTuple):
    frame: Parts
    codec: str
    before: int
    after: int
    seconds: float


class Wire:
    """How one session's bundles travel where they are not in shared memory."""

    def __init__(self, carrier: Carrier, frame_bytes: int, codec: str = NONE, chooser: Chooser | None = None) -> None:
        """`codec` for every frame, or a `chooser` of it."""
        self.carrier = carrier  # may be another one between two bodies
        self.sent_bytes = 0
        self._decision: Decision | None = None  # of the chooser, until somebody took it
        self._frame_bytes = frame_bytes
        self._codec = codec
        self._chooser = chooser
        self._codecs: dict[str, pa.Codec] = {}

    @property
    def codec(self) -> str:
        """What frames are compressed with."""
        return self._chooser.codec if self._chooser is not None else self._codec

    def take_decision(self) -> Decision | None:
        """How frames are compressed by now, if that has changed since the last call."""
        decision, self._decision = self._decision, None
        return decision

    async def send(self, body: U8) -> None:
        """Nobody but the caller refers to `body` when this returns. If it raises, a thread still may."""
        data, size = body.data, self._frame_bytes
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        packing = self._begin(pieces, 0)
        for number, piece in enumerate(pieces):
            packed = await packing if packing is not None else None
            if packed is not None:
                self._note(packed)
            packing = self._begin(pieces, number + 1)
            await self._put(packed.frame if packed is not None else self.carrier.frame(piece, len(piece)))

    def _begin(self, pieces: Sequence[memoryview], number: int) -> "asyncio.Future[_Packed] | None":
        """Compress a piece in a thread; None where it goes as it is, or there is none."""
        if number >= len(pieces):
            return None
        codec = self._chooser.next() if self._chooser is not None else self._codec
        if codec == NONE:
            return None
        return asyncio.get_running_loop().run_in_executor(None, self._pack, pieces[number], codec)

    def _pack(self, piece: memoryview, codec: str) -> _Packed:
        started = time.perf_counter()
        if codec not in self._codecs:
            self._codecs[codec] = pa.Codec(codec)
        packed = self._codecs[codec].compress(piece)
        seconds = time.perf_counter() - started
        if packed.size >= _WORTH * len(piece):
            return _Packed(self.carrier.frame(piece, len(piece)), codec, len(piece), len(piece), seconds)
        # A slice, because Arrow's own view of a buffer that has shrunk still has the length it had.
        frame = self.carrier.frame(memoryview(packed.slice(0, packed.size)), len(piece), codec)
        return _Packed(frame, codec, len(piece), packed.size, seconds)

    def _note(self, packed: _Packed) -> None:
        if self._chooser is not None:
            self._chooser.packed(packed.codec, packed.before, packed.after, packed.seconds, time.monotonic())

    async def _put(self, frame: Parts) -> None:
        started = time.perf_counter()
        await self.carrier.put(frame)
        size = sum(map(len, frame))
        self.sent_bytes += size
        if self._chooser is not None:
            decision = self._chooser.written(size, time.perf_counter() - started, time.monotonic())
            self._decision = decision or self._decision


class Wished(NamedTuple):
    """How a session begins: a decision, and whether it may change."""

    decision: Decision
    chooser: Chooser | None = None


def wire_of(carrier: Carrier, frame_bytes: int, wished: Wished | None) -> Wire:
    """None: nothing is compressed."""
    if wished is None:
        return Wire(carrier, frame_bytes)
    return Wire(carrier, frame_bytes, wished.decision.codec, wished.chooser)


def settle(wish: str, codecs: Sequence[str], here: bool, shared: bool) -> Wished:
    """What a client that can undo `codecs` gets.

    Args:
        here: it is on this host.
        shared: its bundles go through shared memory.

    Raises:
        InvalidRequest: a wish that is none, or a codec that the client or this server lacks.
    """
    if wish in ("", NONE):
        return Wished(Decision(NONE, "the client asked for none"))
    if wish == "auto":
        if here:
            return Wished(Decision(NONE, "client and server are on one host"))
        both = [codec for codec in frames.CODECS if codec in codecs and pa.Codec.is_available(codec)]
        return Wished(Decision(NONE, "until the link has been measured"), Chooser(both))
    if wish not in frames.CODECS:
        raise InvalidRequest(f"compression={wish!r}: must be 'auto', 'none', 'lz4' or 'zstd'")
    for whose, lacks in (("the client", wish not in codecs), ("this server", not pa.Codec.is_available(wish))):
        if lacks:
            raise InvalidRequest(f"compression={wish!r}: pyarrow of {whose} was built without it; take another")
    if shared:
        return Wished(Decision(wish, "the client asked for it; bundles in shared memory are not compressed"))
    return Wished(Decision(wish, "the client asked for it"))
