"""What `profile()` says of the connection and of the memory that was received into."""

from penstock.receiver import Receiver
from penstock.tensor_pool import TensorPool


class Tally:
    """Adds up over the connections of one stream."""

    def __init__(self, pool: TensorPool) -> None:
        self._pool = pool
        self._receiver: Receiver | None = None
        self._before = 0  # bytes of connections that have ended
        self._compression = ("none", "not connected")

    def receiver(self, receiver: Receiver) -> None:
        """Another connection begins."""
        self.ended()
        self._receiver = receiver

    def ended(self) -> None:
        """The connection is no more; what it said is kept. Asks no pool: a finalizer may run within one."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            self._hear(receiver)
            self._before += receiver.wire_bytes

    def numbers(self) -> dict[str, float | int | str]:
        """As of now."""
        receiver, pool = self._receiver, self._pool.counters
        if receiver is not None:
            self._hear(receiver)
        return {
            "wire_bytes": self._before + (receiver.wire_bytes if receiver is not None else 0),
            "compression": self._compression[0],
            "compression_reason": self._compression[1],
            "buffers_reused": pool.reused,
            "buffers_allocated": pool.allocated,
            "buffers_plain": pool.plain,
        }

    def _hear(self, receiver: Receiver) -> None:
        if receiver.compression is not None:
            self._compression = (receiver.compression.codec or "none", receiver.compression.reason)
