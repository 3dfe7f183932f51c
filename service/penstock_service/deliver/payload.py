"""A port for payload alone, beside gRPC: sockets that clients connect, and prove with the nonce of their session.

gRPC for Python copies what it receives four times and what it sends twice; here the kernel's copy is the only one.
Everything belongs to the event loop.
"""

import asyncio
import contextlib
import errno
import logging
import secrets
import socket
from collections.abc import Sequence
from typing import Final

from penstock_proto.v1.payload import FINDS, HELLO, NONCE, WELCOME
from penstock_service.core.errors import Unavailable

Part = bytes | memoryview

HELLO_WITHIN: Final = 5.0  # seconds that a comer has to say whose it is
MOST_COMERS: Final = 64  # that have not said it yet; beyond that the one that has waited longest is let go
_BACKLOG: Final = 128
_REST: Final = 1.0  # seconds to wait where the process has no file left for a comer
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # an address of a name that this machine does not have
_TRIES: Final = 16  # of finding a port that is free on all addresses of a host

_log = logging.getLogger(__name__)


class Broken(Exception):
    """The socket of a session is gone; its client knows, or will."""


class PayloadSocket:
    """The socket of one session: expected, then connected, then closed."""

    def __init__(self, port: "PayloadPort") -> None:
        self.nonce = secrets.token_bytes(NONCE)
        self.host, self.port = port.host, port.port
        self._port = port
        self._socket: socket.socket | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._socket is not None

    def connect(self, comer: socket.socket) -> None:
        """The client has come, and this is the only one. Raises Broken where the session has ended meanwhile."""
        self._port.forget(self)
        if self._closed:
            raise Broken("its session has ended")
        self._socket = comer

    async def send(self, parts: Sequence[Part]) -> None:
        """Nobody refers to them when this returns. Others get their turn between two calls.

        Raises:
            Broken: the client is gone.
        """
        left = [memoryview(part) for part in parts]
        waited = False
        while left:
            try:
                if self._socket is None:
                    raise Broken("the payload socket is closed")
                left = _after(left, self._socket.sendmsg(left))
            except (BlockingIOError, InterruptedError):
                await _writable(self._socket)
                waited = True
            except OSError as error:
                raise Broken(f"the payload socket broke: {error}") from error
        if not waited:
            await asyncio.sleep(0)

    def close(self) -> None:
        """May be called twice. Nobody sends any more."""
        self._closed = True
        self._port.forget(self)
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class PayloadPort:
    """start, stop; `stop` may be called twice, or without `start`."""

    def __init__(self, host: str, port: int = 0, advertised: tuple[str, int] | None = None) -> None:
        """`host`: that of gRPC. `port`: 0 takes a free one. `advertised`: where clients are told to connect instead."""
        self.host, self.port = "", 0  # as clients are told; no host: where they reach gRPC
        self.listened = 0  # the port here
        self._where = host, port
        self._advertised = advertised
        self._listeners: list[socket.socket] = []
        self._expected: dict[bytes, PayloadSocket] = {}  # by the part of the nonce that is no secret
        self._comers: dict[asyncio.Task[None], socket.socket] = {}  # the one that came first comes first
        self._accepting: list[asyncio.Task[None]] = []

    @property
    def listening(self) -> bool:
        return bool(self._listeners)

    async def start(self) -> int:
        """Listen; returns the port.

        Raises:
            Unavailable: the port is taken, or the host is not of this machine.
        """
        host, port = self._where
        try:
            self._listeners = await asyncio.to_thread(_listen, host, port)
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {host}, port {port or 'any'}, for payload: {error.strerror or error}; choose "
                "another --payload port (auto takes a free one), or --payload off: all over gRPC"
            ) from error
        self.listened = int(self._listeners[0].getsockname()[1])
        self.host, self.port = self._advertised or ("", self.listened)
        create = asyncio.get_running_loop().create_task
        self._accepting = [create(self._accept(listener)) for listener in self._listeners]
        _log.info("payload sockets on port %d of %s", self.listened, host)
        return self.listened

    async def stop(self) -> None:
        tasks = [*self._accepting, *self._comers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()
        self._accepting, self._listeners = [], []

    def expect(self) -> PayloadSocket:
        """The socket of a session that begins."""
        expected = PayloadSocket(self)
        self._expected[expected.nonce[:FINDS]] = expected
        return expected

    def forget(self, expected: PayloadSocket) -> None:
        """It has come, or is not waited for any more; its nonce is worth nothing now."""
        self._expected.pop(expected.nonce[:FINDS], None)

    @property
    def expected(self) -> int:
        """Sessions that a client may still connect to."""
        return len(self._expected)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                comer, address = await loop.sock_accept(listener)
            except OSError as error:
                _log.warning("a payload socket could not be accepted: %s", error)
                await asyncio.sleep(_REST)
                continue
            if len(self._comers) >= MOST_COMERS:
                _log.info("a comer to the payload port was turned away: %d have not said whose they are", MOST_COMERS)
                next(iter(self._comers)).cancel()
            task = loop.create_task(self._greet(comer, str(address[0])))
            self._comers[task] = comer
            task.add_done_callback(self._greeted)
            await asyncio.sleep(0)  # who has said whose it is gets its turn before the next one is let in

    def _greeted(self, task: asyncio.Task[None]) -> None:
        """Whoever did not become the socket of a session is closed."""
        comer = self._comers.pop(task)
        if task.cancelled() or task.exception() is not None:
            comer.close()

    async def _greet(self, comer: socket.socket, whence: str) -> None:
        """Hand a comer to the session whose nonce it says; raises if it does not."""
        try:
            async with asyncio.timeout(HELLO_WITHIN):
                said = await _exactly(comer, len(HELLO) + NONCE)
                expected = self._meant(said)
                comer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                comer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                expected.connect(comer)
                await asyncio.get_running_loop().sock_sendall(comer, WELCOME)
        except (OSError, TimeoutError, Broken) as error:
            why = "it said nothing in time" if isinstance(error, TimeoutError) else error
            _log.info("a comer from %s to the payload port was turned away: %s", whence, why)
            raise

    def _meant(self, said: bytes) -> PayloadSocket:
        """Whose it is; raises Broken where it is nobody's."""
        nonce = said[len(HELLO) :]
        expected = self._expected.get(nonce[:FINDS])
        if said[: len(HELLO)] != HELLO or expected is None:
            raise Broken("it names no session that waits for one")
        if not secrets.compare_digest(nonce, expected.nonce):
            raise Broken("its nonce is wrong")
        return expected


def _listen(host: str, port: int) -> list[socket.socket]:
    """Listen where gRPC does: a name may have several addresses, and "any" is that of both families."""
    if host in ("0.0.0.0", "::") and socket.has_dualstack_ipv6():  # noqa: S104 - what the user asked for
        with contextlib.suppress(OSError):
            both = socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
            return [_ready(both)]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    hosts = list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
    for _ in range(_TRIES if port == 0 else 0):
        with contextlib.suppress(OSError):  # the port that was free on the first address is taken on another
            return _listen_on(hosts, port)
    return _listen_on(hosts, port)


def _listen_on(hosts: Sequence[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    """One port on all of them; raises OSError, and then none is open."""
    with contextlib.ExitStack() as opened:
        listeners: list[socket.socket] = []
        absent: OSError | None = None
        for family, host in hosts:
            try:
                listener = opened.enter_context(socket.create_server((host, port), family=family, backlog=_BACKLOG))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error  # localhost is ::1 too in many a container that has no IPv6
                continue
            listeners.append(_ready(listener))
            port = int(listener.getsockname()[1])
        if absent is not None and not listeners:
            raise absent
        opened.pop_all()
        return listeners


def _ready(listener: socket.socket) -> socket.socket:
    listener.setblocking(False)
    return listener


async def _exactly(comer: socket.socket, size: int) -> bytes:
    said = b""
    while len(said) < size:
        part = await asyncio.get_running_loop().sock_recv(comer, size - len(said))
        if not part:
            raise Broken("it left before it said whose it is")
        said += part
    return said


async def _writable(sock: socket.socket | None) -> None:
    """Returns when the kernel takes more, or says that the other side is gone."""
    if sock is None:
        return
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _after(parts: list[memoryview], sent: int) -> list[memoryview]:
    """What is left of parts when so many bytes of them were sent."""
    for number, part in enumerate(parts):
        if sent < len(part):
            return [part[sent:], *parts[number + 1 :]]
        sent -= len(part)
    return []
