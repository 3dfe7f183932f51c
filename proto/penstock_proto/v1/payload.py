"""What travels over a payload socket: a greeting once, then the bodies of bundles as frames. Pure.

The client says HELLO and its session's nonce, the server WELCOME. From then on only the server speaks: the body of each
bundle whose header (on the gRPC stream) says `socket`, in the order of the headers, cut into frames. A frame is a head
of nine bytes and the bytes it tells of. Numbers are little-endian.
"""

from struct import Struct
from typing import Final, NamedTuple

from penstock_proto.v1.frames import CODECS, BadFrame

HELLO: Final = b"PENSTOCK"
NONCE: Final = 32  # bytes; the first 8 may be used to find the session, they are no secret
FINDS: Final = 8
WELCOME: Final = b"payload\n"

_HEAD: Final = Struct("<IIB")
HEAD: Final = _HEAD.size
_CODES: Final = {codec: code for code, codec in enumerate(("", *CODECS))}
_CODEC_OF: Final = {code: codec for codec, code in _CODES.items()}


class Head(NamedTuple):
    """What comes next on the socket."""

    length: int  # bytes that follow
    size: int  # bytes of the body that they are
    codec: str  # empty: they are as they are


def head(length: int, size: int, codec: str) -> bytes:
    """The head of a frame of `length` bytes that stand for `size` bytes of the body."""
    return _HEAD.pack(length, size, _CODES[codec])


def read_head(data: bytes | bytearray, left: int) -> Head:
    """The head in these HEAD bytes, where `left` bytes of the body are still to come.

    Raises:
        BadFrame: no server says so.
    """
    length, size, code = _HEAD.unpack(data)
    codec = _CODEC_OF.get(code)
    if codec is None:
        raise BadFrame(f"codec {code} in a frame; known are 0 to {len(CODECS)}")
    if not 0 < size <= left:
        raise BadFrame(f"a frame of {size} bytes where a bundle has {left} left")
    if length != size and (not codec or not 0 < length < size):
        raise BadFrame(f"a frame of {size} bytes cannot come as {length} bytes of {codec or 'plain data'}")
    return Head(length, size, codec)
