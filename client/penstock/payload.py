"""The payload socket: a connection beside gRPC that brings the bodies of bundles, straight into their memory.

Connected, used and closed by the receiver's thread; any other may only `end` it.
"""

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from penstock.blocks import U8
from penstock.errors import ServerUnavailable
from penstock.unpacking import FromSocket
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.payload import HELLO, WELCOME

CONNECT_WITHIN: Final = 2.0  # seconds
ANSWER_WITHIN: Final = 5.0  # seconds; the server waits 10 for us to prove something
AVOID_FOR: Final = 300.0  # seconds that an address is not tried again which gave no sign of life
_LOOK_UP: Final = 5  # seconds after which a receive returns with what came so far
_WHOLE: Final = getattr(socket, "MSG_WAITALL", 0)


class NoSocket(Exception):
    """A payload socket cannot be had; the text says why."""


class Avoided:
    """Addresses that swallow what is sent to them, and why we think so: each try would cost seconds of waiting."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._why: dict[tuple[str, int], tuple[float, str]] = {}

    def note(self, address: tuple[str, int], why: str) -> None:
        self._why[address] = self._now(), why

    def why(self, address: tuple[str, int]) -> str | None:
        """None: it may be tried."""
        noted, why = self._why.get(address, (0.0, ""))
        if not why or self._now() - noted > AVOID_FOR:
            return None
        return f"{why}, {self._now() - noted:.0f} s ago"


class PayloadSocket:
    """A socket that the server has answered on."""

    def __init__(self, sock: socket.socket, address: tuple[str, int], heard: Callable[[], object]) -> None:
        """`heard` is called whenever something came."""
        self.address = address
        self.receiving = False
        self._socket = sock
        self._end = [sock.dup()]  # who takes it out may use it, whatever the receiving thread closes meanwhile
        self._heard = heard
        self._bodies = FromSocket(self._fill)

    def receive(self, memory: U8) -> int:
        """One body; returns how many bytes came.

        Raises:
            ServerUnavailable: the connection ended in it.
            BadFrame: this is not what a server sends.
        """
        self.receiving = True
        came = self._bodies.receive(memory)
        self.receiving = False
        return came

    def _fill(self, view: memoryview) -> None:
        filled = 0
        while filled < len(view):
            try:
                came = self._socket.recv_into(view[filled:], 0, _WHOLE)
            except BlockingIOError:
                continue  # nothing for a while: whoever waits for us decides when that is too long
            except OSError as error:
                raise ServerUnavailable(f"the payload connection to {named(self.address)} broke: {error}") from error
            if not came:
                raise ServerUnavailable(f"the payload connection to {named(self.address)} ended within a bundle")
            filled += came
            self._heard()

    def end(self) -> None:
        """Nothing comes any more; who waits for it is woken. May be called from any thread, and twice."""
        with contextlib.suppress(IndexError), self._end.pop() as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """May be called twice. In a child of a fork it closes the child's copy and no more."""
        self._socket.close()
        with contextlib.suppress(IndexError):
            self._end.pop().close()


def connect(offer: pb.Payload, target: str, avoided: Avoided, heard: Callable[[], object]) -> PayloadSocket:
    """The socket that a server at the gRPC `target` offers.

    Raises:
        NoSocket: it cannot be had.
    """
    address = offer.host or host_of(target), offer.port
    if (why := avoided.why(address)) is not None:
        raise NoSocket(why)
    try:
        return PayloadSocket(_greeted(address, offer.nonce), address, heard)
    except TimeoutError:
        avoided.note(address, f"{named(address)} did not answer")
        raise NoSocket(f"{named(address)} does not answer") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that is none
        raise NoSocket(f"{named(address)}: {getattr(error, 'strerror', None) or error}") from error


def _greeted(address: tuple[str, int], nonce: bytes) -> socket.socket:
    sock = socket.create_connection(address, timeout=CONNECT_WITHIN)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _greet(sock, nonce)
        # From here on one call of the kernel receives a whole frame, without a look at Python between its parts.
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _LOOK_UP, 0))
    except BaseException:
        sock.close()
        raise
    return sock


def _greet(sock: socket.socket, nonce: bytes) -> None:
    sock.settimeout(ANSWER_WITHIN)
    sock.sendall(HELLO + nonce)
    answer = b""
    while len(answer) < len(WELCOME) and (part := sock.recv(len(WELCOME) - len(answer))):
        answer += part
    if answer != WELCOME:
        raise ConnectionError("what listens there does not know this session")


def host_of(target: str) -> str:
    """The host that a gRPC target names.

    Raises:
        NoSocket: it names none.
    """
    scheme, colon, rest = target.partition(":")
    if colon and scheme in ("dns", "ipv4", "ipv6"):
        target = rest.rpartition("/")[2]
    elif colon and (scheme in ("unix", "unix-abstract", "vsock") or rest.startswith("/")):
        raise NoSocket(f"{target} names no host to connect to")
    first = target.split(",", maxsplit=1)[0]
    if first.startswith("["):
        return first[1:].partition("]")[0]
    host, colon, _ = first.rpartition(":")
    return host if colon and ":" not in host else first


def named(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
