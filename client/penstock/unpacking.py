"""Frames of a bundle, put together in its memory; those that are compressed are undone on the way."""

from typing import Final

import numpy as np
import pyarrow as pa

from penstock.blocks import U8
from penstock_proto.v1 import frames

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
        self.memory[self._filled : end] = np.frombuffer(_undone(frame), np.uint8)
        self._filled = end


def _undone(frame: frames.Frame) -> memoryview | pa.Buffer:
    if not frame.codec:
        return frame.data
    # Arrow allocates what it undoes; so small a block stays in the caches until it is copied.
    try:
        return pa.Codec(frame.codec).decompress(frame.data, frame.size)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise frames.BadFrame(f"{len(frame.data)} bytes of {frame.codec} cannot be undone: {error}") from error
