"""What frames of payload are put on: messages of the gRPC stream, or a payload socket."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from penstock_proto.v1 import frames, payload
from penstock_service.deliver.payload import Part, PayloadSocket

Write = Callable[[bytes], Awaitable[None]]
Parts = tuple[Part, ...]


class Carrier(Protocol):
    """Where a session's frames go, one after another."""

    def frame(self, data: memoryview, size: int, codec: str = "") -> Parts:
        """The frame of `data`: bytes of a body as they are, or `size` of them compressed. May run in any thread."""
        ...

    async def put(self, parts: Parts) -> None:
        """Returns when nobody refers to the frame any more."""
        ...


class Counting:
    """Writes messages, and counts them. Of its own, for a session must not lie in a ring with what it writes to."""

    def __init__(self, write: Write) -> None:
        self._write = write
        self.written = 0

    async def __call__(self, message: bytes) -> None:
        self.written += 1
        await self._write(message)


class GrpcMessages:
    """A message for each frame: its bytes are copied into it."""

    def __init__(self, write: Write) -> None:
        self._write = write

    def frame(self, data: memoryview, size: int, codec: str = "") -> Parts:
        return (frames.encode_packed(data, size, codec) if codec else frames.encode(data),)

    async def put(self, parts: Parts) -> None:
        for message in parts:
            assert isinstance(message, bytes)  # noqa: S101 - made above
            await self._write(message)


class SocketFrames:
    """A head and the bytes themselves, which only the kernel copies."""

    def __init__(self, socket: PayloadSocket) -> None:
        self._socket = socket

    def frame(self, data: memoryview, size: int, codec: str = "") -> Parts:
        return payload.head(len(data), size, codec), data

    async def put(self, parts: Parts) -> None:
        await self._socket.send(parts)
