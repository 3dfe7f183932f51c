"""Payload sockets in memory. The server's session sends on one end, the client's receiver reads at the other.

The kernels buffer `room` bytes; who sends more waits. What is under way when a socket breaks may be lost, from its end.
"""

import asyncio
import io
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.blocks import U8
from penstock.unpacking import FromSocket
from penstock_proto.v1.frames import BadFrame
from penstock_service.deliver.carriers import Parts
from penstock_service.deliver.payload import Broken

if TYPE_CHECKING:
    from tests.laws.wire import Call

_NONCES = itertools.count()


class MemorySocket:
    """Both ends of one."""

    host, port = "memory", 1
    address = (host, port)

    def __init__(self, at: "MemoryPort") -> None:
        self.nonce = next(_NONCES).to_bytes(32)
        self.connected = False
        self.receiving = False
        self.over = False  # nothing is sent any more
        self.call: Call | None = None
        self._at = at
        self._under_way = bytearray()
        self._arrived = bytearray()
        self._swallowed = 0
        self._room = asyncio.Event()

    # -- the server's end ---------------------------------------------------------------------------------------

    async def send(self, parts: Parts) -> None:
        assert self.call is not None
        for part in parts:
            if self.call.silent:
                self._swallowed += len(part)
            elif not self.over:
                self._under_way += part
                self.call.changed.set()
            while len(self._under_way) + self._swallowed > self._at.room and not self.over:
                self._room.clear()
                await self._room.wait()
            if self.over:
                raise Broken("the payload socket is broken")

    def close(self) -> None:
        self._at.open.pop(self.nonce, None)
        self.lose(0)

    # -- the client's end ---------------------------------------------------------------------------------------

    def connect(self, call: "Call") -> None:
        self.connected, self.call = True, call

    def has_come(self, size: int) -> bool:
        """Is a body of `size` bytes there, or another one in its place?"""
        self._arrived += self._under_way
        self._under_way.clear()
        self._room.set()
        try:
            self._read(np.empty(size, np.uint8))
        except EOFError:
            return False
        except BadFrame:
            return True
        return True

    def receive(self, memory: U8) -> int:
        came = self._read(memory)
        del self._arrived[:came]
        return came

    def end(self) -> None:
        self.lose(0)

    # -- faults -------------------------------------------------------------------------------------------------

    def lose(self, size: int) -> None:
        """It breaks, and the last `size` bytes under way are lost."""
        if not self.over:
            self.over = True
            del self._under_way[max(0, len(self._under_way) - size) :]
        self._room.set()
        if self.call is not None:
            self.call.changed.set()

    def _read(self, memory: U8) -> int:
        file = io.BytesIO(self._arrived)

        def fill(view: memoryview) -> None:
            if file.readinto(view) < len(view):
                raise EOFError

        return FromSocket(fill).receive(memory)


class MemoryPort:
    """Stands for the server's `PayloadPort`."""

    listening = True

    def __init__(self, room: int) -> None:
        self.room = room
        self.open: dict[bytes, Any] = {}  # sockets that sessions have not closed yet, by nonce

    def expect(self) -> Any:
        made = MemorySocket(self)
        self.open[made.nonce] = made
        return made
