"""The wire in memory: the server's own handler at one end, the client's own receiver at the other, faults between.

Messages are the bytes that gRPC would carry; the payload sockets beside it are in sockets.py. What the kernels and
HTTP/2 buffer is `room` messages; who writes more waits. A cut loses messages from the end of what is under way; a
half-open call carries nothing more in either direction until keepalive notices.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import grpc

from penstock.errors import PenstockError, ServerUnavailable
from penstock.link import Link
from penstock.receiver import SILENCE, Item, Memory, Receiver, Where
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1 import frames
from tests.laws.sockets import MemoryPort, MemorySocket
from tests.laws.virtual import VirtualLoop

KEEPALIVE = 40.0  # seconds until either end notices that the other is gone
PATIENCE = 600.0  # seconds of waiting for an item after which a history has found a hang

Handler = Callable[["Call"], Coroutine[Any, Any, None]]


class Call:
    """One RPC; to the server's handler it is the context."""

    def __init__(self, network: "Network") -> None:
        self.network = network
        self.under_way: deque[bytes] = deque()  # to the client
        self.lost: str | None = None  # why nothing comes after what is under way
        self.silent = False  # half-open: nothing passes any more
        self.changed = asyncio.Event()  # for the client: a message, or the end
        self._swallowed = 0
        self._room = asyncio.Event()
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None
        self.socket: MemorySocket | None = None
        self.at: Callable[[], pb.Position | None] = lambda: None  # what the trainer gets next

    # -- the server's end: what DataService uses of grpc.aio's context ------------------------------------------

    async def read(self) -> Any:
        return await self._said.get()

    def peer(self) -> str:
        return "memory"

    async def write(self, message: bytes) -> None:
        if self.lost is not None:
            raise grpc.aio.UsageError("RPC already finished.")
        if self.silent:
            self._swallowed += 1
        else:
            self.under_way.append(message)
            self.changed.set()
        while len(self.under_way) + self._swallowed > self.network.room:
            self._room.clear()
            await self._room.wait()

    def begin(self, handler: Handler) -> None:
        self.task = self.network.loop.create_task(handler(self))
        self.task.add_done_callback(self._handled)

    def _handled(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.network.loop.uncaught.append({"exception": task.exception()})
        if not self.silent:
            self._end("the server ended the call")

    # -- the client's end ---------------------------------------------------------------------------------------

    def say(self, message: pb.ClientMessage) -> None:
        if not self.silent and self.lost is None:
            self._said.put_nowait(message.SerializeToString())

    def end(self) -> None:
        if not self.silent and self.lost is None:
            self._said.put_nowait(grpc.aio.EOF)

    def take(self) -> bytes:
        self._room.set()
        return self.under_way.popleft()

    def cancel(self) -> None:
        self.under_way.clear()
        if not self.silent:  # else the server does not hear of it before keepalive does
            self._end("cancelled")
            self.stop_server()

    # -- faults -------------------------------------------------------------------------------------------------

    def cut(self, lose: int) -> None:
        """The connection breaks; the last `lose` messages under way are lost with it."""
        for _ in range(min(lose, len(self.under_way))):
            self.under_way.pop()
        if self.socket is not None:
            self.socket.lose(20 * lose)
        self._end("connection reset by peer")
        self.stop_server()

    def half_open(self, lose: int) -> None:
        for _ in range(min(lose, len(self.under_way))):
            self.under_way.pop()
        self.silent = True
        self.network.silent_until = self.network.loop.time() + KEEPALIVE
        self.network.loop.call_later(KEEPALIVE, self.cut, 0)

    def break_socket(self, lose: int) -> None:
        if self.socket is not None:
            self.socket.lose(lose)

    def swallow(self, which: int) -> None:
        """A message on its way is lost, and neither end hears of it: what gRPC does where a process forks."""
        if self.under_way:
            del self.under_way[which % len(self.under_way)]

    def stop_server(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _end(self, why: str) -> None:
        if self.lost is None:
            self.lost = why
            self.changed.set()


@dataclass
class Network:
    """Where clients find the server, if it is up."""

    loop: VirtualLoop
    room: int
    handler: Handler | None = None
    calls: list[Call] = field(default_factory=list)
    interrupt_after: int | None = None  # items until Ctrl-C is pressed
    port: MemoryPort | None = None  # of payload, as long as the server lives
    wall: bool = False  # clients cannot reach that port
    silent_until = 0.0  # some call is
    to_come: list[tuple[int, Callable[[], None]]] = field(default_factory=list)  # faults, and after how many items

    def item_asked(self) -> None:
        """A client asks for an item: what is to go wrong now does."""
        due = [fault for after, fault in self.to_come if after == 0]
        self.to_come = [(after - 1, fault) for after, fault in self.to_come if after]
        for fault in due:
            fault()

    def call(self) -> Call:
        call = Call(self)
        if self.handler is None:
            call.cut(0)
        else:
            self.calls = [c for c in self.calls if c.task is not None and not c.task.done()]
            self.calls.append(call)
            call.begin(self.handler)
        return call


class MemoryReceiver(Receiver):
    """The client's receiver with no thread: whoever waits for an item lets the world go on until it is there."""

    def __init__(self, network: Network, message: pb.Open, where: Where, memory: Memory | None) -> None:
        super().__init__(_NoChannel(), message, "memory", (), where, memory)
        self._network = network
        self._first = message

    def start(self) -> None:
        self.call = self._call = self._network.call()
        self.call.at = self._requests.at
        self._requests = self.call  # type: ignore[assignment] # it takes what is said, like theirs
        self.call.say(pb.ClientMessage(open=self._first))
        self._heard = self._network.loop.time()

    def get(self) -> Item:
        self._network.item_asked()
        item = self._network.loop.run_until_complete(self._next())
        if self._network.interrupt_after is not None:
            self._network.interrupt_after -= 1
            if self._network.interrupt_after < 0:
                self._network.interrupt_after = None
                raise KeyboardInterrupt
        return item

    async def _next(self) -> Item:
        loop, began = self._network.loop, self._network.loop.time()
        while not self._items:
            self._take_all()
            if self._items:
                break
            self.call.changed.clear()
            try:
                async with asyncio.timeout_at(self._heard + SILENCE):
                    await self.call.changed.wait()
            except TimeoutError:
                return ServerUnavailable("silence")
            assert loop.time() - began < PATIENCE, "the server lives, but nothing comes"
        return self._items.popleft()

    def _take_offer(self, opened: pb.Opened) -> None:
        if not opened.HasField("payload"):
            return
        socket = self._network.port.open.get(opened.payload.nonce) if self._network.port is not None else None
        if self._network.wall or socket is None:
            opened.transport, opened.transport_reason = "grpc", "no payload socket: a wall"
            self._requests.say(pb.ClientMessage(proof=pb.Proof(reason=opened.transport_reason)))
            return
        self._socket = self.call.socket = socket
        socket.connect(self.call)
        self._requests.say(pb.ClientMessage(proof=pb.Proof(socket=True)))

    def _must_wait(self) -> bool:
        """Is the next message the header of a bundle whose body has not come over the socket yet?"""
        message, socket = self.call.under_way[0], self.call.socket
        if socket is None or frames.is_frame(message):
            return False
        bundle = pb.ServerMessage.FromString(message).bundle
        return bool(bundle.socket) and not socket.has_come(bundle.body_bytes)

    def _take_all(self) -> None:
        while self.call.under_way:
            if self._must_wait():
                assert self.call.socket is not None
                if self.call.socket.over or self.call.lost is not None:
                    self._put(ServerUnavailable("the payload connection ended within a bundle"))
                return
            self._heard = self._network.loop.time()
            try:
                if not self._take(self.call.take()):
                    return
            except (PenstockError, frames.BadFrame) as error:  # what their reading thread does with one
                self._put(error if isinstance(error, PenstockError) else ServerUnavailable(str(error)))
                return
        if self.call.lost is not None:
            self._put(ServerUnavailable(self.call.lost))

    def waiting(self) -> bool:
        self._take_all()
        return super().waiting()


class _NoChannel:
    def stream_stream(self, *_: Any, **__: Any) -> None:
        return None


class MemoryLink(Link):
    """A link over `network`; time is the loop's."""

    def __init__(self, network: Network, uniform: Callable[[float, float], float]) -> None:
        super().__init__("memory")
        self.network = network
        self.now = network.loop.time
        self.sleep = network.loop.run_for
        self.uniform = uniform

    def open(self, message: pb.Open, where: Where, memory: Memory | None = None) -> Receiver:
        receiver = MemoryReceiver(self.network, message, where, memory)
        receiver.start()
        return receiver
