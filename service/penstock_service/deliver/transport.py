"""How the bundles of a session travel: what is offered to a client, and why."""

from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

import psutil

from penstock_service.deliver.slots import SLACK, NoSlots, Slots

_LARGER: Final = 4  # times what goes over gRPC: a bundle costs threads that wake each other, its bytes nothing more


class Offer(NamedTuple):
    """Slots, to be proven by the client, or None: everything goes over gRPC."""

    slots: Slots | None
    reason: str


class Transports:
    """Decides for each session."""

    def __init__(self, shared_memory: bool, bundle_bytes: int) -> None:
        self._shared_memory = shared_memory
        self._bundle_bytes = bundle_bytes
        self.saving = False  # memory is short: slots are no larger than they must be
        self._own = {address.address.partition("%")[0] for each in psutil.net_if_addrs().values() for address in each}

    def offer(self, asked: Sequence[str], peer: str, window_bytes: int, step_bytes: float) -> Offer:
        """For a client at `peer` that can do what it `asked` for, and has a window of so many bytes.

        `step_bytes`: about what a step has; a slot holds one at least.
        """
        if not self._shared_memory:
            return Offer(None, "shared memory is off at the server (--shared-memory off)")
        if "shm" not in asked:
            return Offer(None, "the client asked for gRPC")
        if not self.is_here(peer):
            return Offer(None, f"the client is on another host ({peer})")
        bundle = min(_LARGER * self._bundle_bytes, max(self._bundle_bytes, window_bytes // 4))
        if self.saving:
            bundle = self._bundle_bytes
        try:
            slots = Slots(window_bytes, int(max(bundle, step_bytes) * SLACK))
        except NoSlots as no:
            return Offer(None, f"no shared memory: {no}")
        return Offer(slots, "client and server are on one host")

    def is_here(self, peer: str) -> bool:
        """Is it this host? `peer` as gRPC says it: unix:..., ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000."""
        kind, _, rest = unquote(peer).partition(":")
        address = rest.rpartition(":")[0].strip("[]").partition("%")[0]
        return kind == "unix" or address.removeprefix("::ffff:") in self._own
