"""Framing of the payload by hand, wire-compatible with data.proto, so that protobuf never touches the payload's bytes.

A `ServerMessage{frame: Frame{data: ...}}` is tag, length, tag, length, bytes: five to twelve bytes before the data. A
compressed one has its size before that, and a tag that names the codec.
"""

from typing import Final, NamedTuple

FRAME_BYTES: Final = 1 << 20
"""Data bytes of one frame: measured fastest (fewer page faults of fresh allocations than with larger ones)."""

CODECS: Final = ("lz4", "zstd")
"""What data may be compressed with, cheapest first; the names are also those of Arrow's codecs."""

_OUTER: Final = 4 << 3 | 2  # ServerMessage.frame
_DATA: Final = 1 << 3 | 2  # Frame.data
_SIZE: Final = 100 << 3  # Frame.size
_PACKED: Final = {"lz4": 101 << 3 | 2, "zstd": 102 << 3 | 2}
_CODEC_OF: Final = {tag: codec for codec, tag in _PACKED.items()}


class BadFrame(ValueError):
    """Bytes that are no frame although they begin like one."""


class Frame(NamedTuple):
    """The data of one message."""

    data: memoryview
    size: int  # bytes of the data, before compression
    codec: str = ""  # empty: the data is as it is


def encode(data: memoryview) -> bytes:
    """The message that carries `data`: its one copy."""
    inner = _varint(len(data))
    return b"".join((bytes((_OUTER,)), _varint(1 + len(inner) + len(data)), bytes((_DATA,)), inner, data))


def encode_packed(packed: bytes | memoryview, size: int, codec: str) -> bytes:
    """The message that carries `packed`, which `codec` made of `size` bytes."""
    inner = _varint(_SIZE) + _varint(size) + _varint(_PACKED[codec]) + _varint(len(packed))
    return b"".join((bytes((_OUTER,)), _varint(len(inner) + len(packed)), inner, packed))


def is_frame(message: bytes) -> bool:
    return bool(message) and message[0] == _OUTER


def decode(message: bytes) -> Frame:
    """The data of a message for which `is_frame` is true, without a copy.

    Raises:
        BadFrame: the lengths do not add up.
    """
    length, at = _read_varint(message, 1)
    if length != len(message) - at:
        raise BadFrame(f"a frame says it has {length} bytes, but {len(message) - at} follow")
    if length == 0:
        return Frame(memoryview(b""), 0)
    tag, at = _read_varint(message, at)
    if tag == _DATA:
        data = _rest(message, at)
        return Frame(data, len(data))
    size = 0
    if tag == _SIZE:
        size, at = _read_varint(message, at)
        tag, at = _read_varint(message, at)
    if tag not in _CODEC_OF:
        raise BadFrame(f"unexpected tag {tag} in a frame")
    return Frame(_rest(message, at), size, _CODEC_OF[tag])


def _rest(message: bytes, at: int) -> memoryview:
    size, at = _read_varint(message, at)
    if size != len(message) - at:
        raise BadFrame(f"a frame's data should have {size} bytes, but {len(message) - at} follow")
    return memoryview(message)[at:]


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise BadFrame("a length in a frame has no end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
