"""How the bundles of a session travel: what is offered to a client, and why, and what comes of it."""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

import psutil

from penstock_service.deliver.payload import PayloadPort, PayloadSocket
from penstock_service.deliver.slots import SLACK, NoSlots, Pages, Slots

_LARGER: Final = 4  # times what goes over gRPC: a bundle costs threads that wake each other, its bytes little more
NAMES: Final = {"shm": "shared memory", "tcp": "a TCP socket", "grpc": "gRPC"}


class Transport:
    """Of one session: an offer first; how bundles travel once the client has proven what it can use."""

    def __init__(
        self, reason: str, slots: Slots | None = None, socket: PayloadSocket | None = None, bundle_bytes: int = 0
    ) -> None:
        """With neither, everything goes over gRPC. `bundle_bytes`: what a bundle aims at that goes over the socket."""
        self.reason = reason
        self.bundle_bytes = bundle_bytes
        self.slots = slots
        self.socket = socket
        self.name = "grpc"  # until something else is proven
        self._settled = asyncio.Event()
        if slots is None and socket is None:
            self._settled.set()

    @property
    def offered(self) -> str:
        """The best of what is left of the offer."""
        return "shm" if self.slots is not None else "tcp" if self.socket is not None else "grpc"

    def prove(self, nonce: bytes, reason: str, socket: bool) -> str | None:
        """What the client says: the nonce of the slots, whether it has connected the socket, else why not.

        What is not used is closed. Returns what the client could not use, if anything.
        """
        if self._settled.is_set():
            return None
        slots, line, best = self.slots, self.socket, self.offered
        if slots is not None and slots.prove(nonce):
            self.name = "shm"
        elif line is not None and socket and line.connected:
            self.name = "tcp"
        if self.name != best:
            because = reason or "the proof is wrong"
            self.reason = because if slots is None else f"no shared memory: {because}"
        self._let_go(but=self.name)
        self._settled.set()
        return None if self.name == best else self.reason

    def stop_waiting(self) -> None:
        """The session ends: nothing that the client could prove matters any more."""
        self._settled.set()

    async def settled(self) -> None:
        """Returns when the client has said what it can use."""
        await self._settled.wait()

    def close(self) -> None:
        """May be called twice."""
        self._let_go(but="grpc")

    def _let_go(self, but: str) -> None:
        if but != "shm" and self.slots is not None:
            self.slots.close()
            self.slots = None
        if but != "tcp" and self.socket is not None:
            self.socket.close()
            self.socket = None


class Transports:
    """Decides for each session."""

    def __init__(
        self, shared_memory: bool, bundle_bytes: int, port: PayloadPort | None = None, slots_bytes: int | None = None
    ) -> None:
        """`port`: of payload sockets; None: there are none. `slots_bytes`: most that slots of all sessions take."""
        self._pages = Pages(slots_bytes) if slots_bytes is not None else None
        self._shared_memory = shared_memory
        self._bundle_bytes = bundle_bytes
        self._port = port
        self.saving = False  # memory is short: slots are no larger than they must be
        self._own = {address.address.partition("%")[0] for each in psutil.net_if_addrs().values() for address in each}

    def offer(self, asked: Sequence[str], peer: str, window_bytes: int, step_bytes: float) -> Transport:
        """For a client at `peer` that can do what it `asked` for, and has a window of so many bytes.

        `step_bytes`: about what a step has; a slot holds one at least. A client that may turn out not to map slots is
        offered a socket as well.
        """
        bundle = min(_LARGER * self._bundle_bytes, max(self._bundle_bytes, window_bytes // 4))
        if self.saving:
            bundle = self._bundle_bytes
        slots, why_not = self._slots(asked, peer, window_bytes, int(max(bundle, step_bytes) * SLACK))
        reason = why_not or "client and server are on one host"
        if "tcp" not in asked:
            return Transport(reason, slots)
        if self._port is None or not self._port.listening:
            return Transport(
                reason if slots is not None else f"{reason}; payload sockets are off (--payload off)", slots
            )
        return Transport(reason, slots, self._port.expect(), bundle)

    def _slots(self, asked: Sequence[str], peer: str, window_bytes: int, slot_bytes: int) -> tuple[Slots | None, str]:
        """Or why there are none."""
        if "shm" not in asked:
            return None, "the client asked for TCP" if "tcp" in asked else "the client asked for gRPC"
        if not self._shared_memory:
            return None, "shared memory is off at the server (--shared-memory off)"
        if not self.is_here(peer):
            return None, f"the client is on another host ({peer})"
        try:
            return Slots(window_bytes, slot_bytes, pages=self._pages), ""
        except NoSlots as no:
            return None, f"no shared memory: {no}"

    def is_here(self, peer: str) -> bool:
        """Is it this host? `peer` as gRPC says it: unix:..., ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000."""
        kind, _, rest = unquote(peer).partition(":")
        address = rest.rpartition(":")[0].strip("[]").partition("%")[0]
        return kind == "unix" or address.removeprefix("::ffff:") in self._own
