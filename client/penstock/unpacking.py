"""Frames of a bundle, put together in its memory; those that are compressed are undone on the way."""

from collections.abc import Callable
from typing import Final

import numpy as np
import pyarrow as pa

from penstock.blocks import U8
from penstock_proto.v1 import frames, payload

CODECS: Final = tuple(codec for codec in frames.CODECS if pa.Codec.is_available(codec))


class Assembly:
    """The body of one bundle, whose frames are coming."""

    def __init__(self, memory: U8) -> None:
        self.memory = memory
        self._filled = 0

    @property
    def whole(self) -> bool:
        return self._filled == len(self.memory)

    def add(self, message: bytes) -> None:
        """Raises frames.BadFrame: it is none, or more than was announced."""
        frame = frames.decode(message)
        end = self._filled + frame.size
        if end > len(self.memory):
            raise frames.BadFrame(f"frames of {end} bytes for a bundle of {len(self.memory)}")
        data = _undone(frame.data, frame.size, frame.codec) if frame.codec else frame.data
        self.memory[self._filled : end] = np.frombuffer(data, np.uint8)
        self._filled = end


class FromSocket:
    """Bodies that come over a payload socket: what is not compressed is received where it stays."""

    def __init__(self, fill: Callable[[memoryview], object]) -> None:
        """`fill` receives as many bytes as fit; it raises where they do not come."""
        self._fill = fill
        self._scratch = bytearray()

    def receive(self, memory: U8) -> int:
        """One body; returns how many bytes came. Raises frames.BadFrame, and whatever `fill` does."""
        head = bytearray(payload.HEAD)
        came = filled = 0
        while filled < len(memory):
            self._fill(memoryview(head))
            told = payload.read_head(head, len(memory) - filled)
            place = memory[filled : filled + told.size]
            if told.codec:
                packed = self._packed(told.length)
                self._fill(packed)
                place[:] = np.frombuffer(_undone(packed, told.size, told.codec), np.uint8)
            else:
                self._fill(place.data)
            filled += told.size
            came += payload.HEAD + told.length
        return came

    def _packed(self, size: int) -> memoryview:
        if len(self._scratch) < size:
            self._scratch = bytearray(size)
        return memoryview(self._scratch)[:size]


def _undone(packed: memoryview, size: int, codec: str) -> pa.Buffer:
    # Arrow allocates what it undoes; so small a block stays in the caches until it is copied.
    try:
        return pa.Codec(codec).decompress(packed, size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise frames.BadFrame(f"{len(packed)} bytes of {codec} cannot be undone: {error}") from error
