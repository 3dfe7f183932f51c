"""One gRPC stream, and what brings bundles beside it: a thread that reads messages and assembles bundles, and a queue
in front of the training loop.

Nothing is started at import or in a constructor; `start` and `close` are a pair, and `close` may be called twice.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final

import grpc
import numpy as np
import numpy.typing as npt

from penstock.errors import Fenced, PenstockError, ServerDraining, ServerError, ServerUnavailable, from_wire
from penstock.offer import take
from penstock.payload import Avoided, PayloadSocket, named
from penstock.slots import Slots
from penstock.unpacking import Assembly
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1 import frames
from penstock_proto.v1.malloc import keep_freed

HEARTBEAT_EVERY: Final = 10.0
SILENCE: Final = 60.0  # seconds without any message after which the stream is taken for dead; the server speaks every 5


@dataclass(frozen=True)
class Received:
    """A bundle as it came: its header and the memory that holds its Arrow message."""

    header: pb.Bundle
    body: npt.NDArray[np.uint8]


Item = pb.Opened | pb.Filling | pb.EpochEnd | Received | PenstockError


Memory = Callable[[int], npt.NDArray[np.uint8]]
Where = Callable[[], tuple[int, int]]  # the epoch and step that the trainer gets next


def _ordinary(size: int) -> npt.NDArray[np.uint8]:
    return np.empty(size, np.uint8)


class _Requests:
    """What the client says, as the iterator that gRPC wants. Ends when told so."""

    def __init__(self, first: pb.ClientMessage, where: Where) -> None:
        self._queue: SimpleQueue[pb.ClientMessage | None] = SimpleQueue()
        self._queue.put(first)
        self._where: Where | None = where

    def say(self, message: pb.ClientMessage) -> None:
        self._queue.put(message)

    def at(self) -> pb.Position | None:
        if self._where is None:
            return None
        epoch, step = self._where()
        return pb.Position(epoch=epoch, step=step)

    def end(self) -> None:
        self._where = None  # it leads back to who holds us
        self._queue.put(None)

    def __iter__(self) -> Iterator[pb.ClientMessage]:
        return self

    def __next__(self) -> pb.ClientMessage:
        try:
            message = self._queue.get(timeout=HEARTBEAT_EVERY)
        except Empty:
            return pb.ClientMessage(heartbeat=pb.Heartbeat(at=self.at()))
        if message is None:
            raise StopIteration
        return message


class Receiver:
    """The receiving half of a session. `get` is called by one thread, the consumer's."""

    def __init__(
        self,
        channel: grpc.Channel,
        open_message: pb.Open,
        target: str,
        metadata: tuple[tuple[str, str], ...],
        where: Where,
        memory: Memory | None = None,
        avoided: Avoided | None = None,
    ):
        """`memory`: where bundles are received into; None: where NumPy puts them. `avoided`: shared by all sessions."""
        self._memory = memory or _ordinary
        self._call_stream = channel.stream_stream(
            "/penstock.v1.Data/Stream",
            request_serializer=pb.ClientMessage.SerializeToString,
            response_deserializer=None,
        )
        self._requests = _Requests(pb.ClientMessage(open=open_message), where)
        self._target = target
        self._metadata = metadata
        self._items: deque[Item] = deque()
        self._header: pb.Bundle | None = None  # of the bundle whose frames are coming
        self._assembly: Assembly | None = None
        self._came = threading.Condition()
        self._call: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._taken = 0  # messages since Opened
        self._slots: Slots | None = None
        self._socket: PayloadSocket | None = None
        self._avoided = avoided or Avoided()
        self._heard = time.monotonic()
        self._pid = os.getpid()
        self.fenced: Fenced | None = None  # what was received before it is not handed out any more
        self.wire_bytes = 0  # of payload that was not in slots, as it came
        self.compression: pb.Compression | None = None  # of what comes, as told last
        self.journal: pb.Journal | None = None  # the latest that was told; holds at once, whatever is queued before it

    def start(self) -> None:
        self._call = self._call_stream(iter(self._requests), metadata=self._metadata)
        self._thread = threading.Thread(target=self._read, name="penstock-receiver", daemon=True)
        self._thread.start()

    def get(self) -> Item:
        """The next item; waits for it. What ends the stream comes as a PenstockError, and then nothing follows."""
        with self._came:
            while not self._items:
                if self._thread is None or not self._thread.is_alive():
                    return ServerUnavailable(f"the stream from {self._target} is not open")
                # Bounded waits, so that Ctrl-C is heard on every platform and a silent server is noticed.
                self._came.wait(timeout=1.0)
                if not self._items and time.monotonic() - self._heard > SILENCE:
                    return self._silent()
            return self._items.popleft()

    def peek(self) -> Item | None:
        """What `get` would return at once, if anything."""
        return self._items[0] if self._items else None

    def waiting(self) -> bool:
        """Would `get` have to wait?"""
        return not self._items

    def credit(self, steps: int, size: int) -> None:
        slots = self._slots.returned() if self._slots is not None else []
        credit = pb.Credit(steps=steps, bytes=size, slots=slots, at=self._requests.at())
        self._requests.say(pb.ClientMessage(credit=credit))

    def started(self, start: str) -> None:
        self._requests.say(pb.ClientMessage(started=pb.Started(start=start)))

    def close(self, join: bool = True) -> None:
        """End the stream and its thread; what was received and not taken is dropped.

        Args:
            join: wait for the thread. Not from a finalizer: it may run on the very thread that gRPC needs for that.
        """
        if self._closed:
            return
        self._closed = True
        if self._call is None or self._pid != os.getpid():
            if self._socket is not None:
                self._socket.close()
            return  # not started, or inherited through a fork: the parent's stream is not ours to touch
        self._requests.say(pb.ClientMessage(close=pb.Close()))
        self._requests.end()
        self._call.cancel()
        if self._socket is not None:
            self._socket.end()
        if join and self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        self._slots = None  # unmapped with the last tensor, not with the next garbage collection
        with self._came:
            self._items.clear()
            self._items.append(ServerUnavailable("the stream was closed"))
            self._came.notify_all()

    # -- the reading thread -------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self._read_messages()
            self._put(ServerUnavailable(f"{self._target} ended the stream"))
        except grpc.RpcError as error:
            self._put(_of_status(error, self._target))
        except PenstockError as error:
            self._put(error)
        except frames.BadFrame as error:  # of another bundle, whose head did not come
            self._put(ServerUnavailable(f"messages from {self._target} were lost: {error}"))
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it and not wait for ever
            self._put(ServerError(f"{self._target} sent what cannot be read: {error!r}"))
        finally:
            if self._socket is not None:
                self._socket.close()

    def _read_messages(self) -> None:
        for message in self._call:
            self._heard = time.monotonic()
            if not self._take(message):
                return

    def _take(self, message: bytes) -> bool:
        """Take one message off the wire; False when nothing follows it."""
        self._taken += 1
        if self._header is not None and self._assembly is not None:
            self._take_frame(self._header, self._assembly, message)
            return True
        if frames.is_frame(message):
            raise ServerUnavailable(f"messages from {self._target} were lost: a bundle came without its head")
        decoded = pb.ServerMessage.FromString(message)
        kind = decoded.WhichOneof("kind")
        if kind != "bundle":
            return self._take_control(kind, decoded)
        if decoded.bundle.HasField("slot"):
            self._put(Received(decoded.bundle, self._in_slot(decoded.bundle)))
            return True
        if decoded.bundle.socket:
            self._put(Received(decoded.bundle, self._off_socket(decoded.bundle)))
            return True
        keep_freed()
        self._header, self._assembly = decoded.bundle, Assembly(self._memory(decoded.bundle.body_bytes))
        return True

    def _take_frame(self, header: pb.Bundle, assembly: Assembly, message: bytes) -> None:
        if not frames.is_frame(message):
            raise ServerUnavailable(f"messages from {self._target} were lost: another one came within a bundle")
        assembly.add(message)
        self.wire_bytes += len(message)
        if assembly.whole:
            self._header, self._assembly = None, None  # its memory is the user's now
            self._put(Received(header, assembly.memory))

    def _take_control(self, kind: str | None, message: pb.ServerMessage) -> bool:
        """Handle anything but a bundle; False when nothing follows it."""
        if kind == "error":
            error = message.error
            self._put(from_wire(error.code, error.message, error.retryable))
            return False
        if kind == "draining":
            reason = message.draining.reason or "no reason given"
            draining = ServerDraining(f"{self._target} ends the stream for now: {reason}")
            draining.retry_after = message.draining.retry_after_ms / 1000
            self._put(draining)
            return False
        if kind == "fenced":
            self.fenced = Fenced(message.fenced.message or f"another process has this rank now: {message.fenced.by}")
            self._put(self.fenced)
            return False
        if kind == "opened":
            self._taken = 0
            self._take_offer(message.opened)
            self.compression = message.opened.compression
            self._put(message.opened)
        elif kind == "filling":
            self._put(message.filling)
        elif kind == "epoch_end":
            self._put(message.epoch_end)
        elif kind == "compression":
            self.compression = message.compression
        elif kind == "journal":
            self.journal = message.journal
        elif kind == "heartbeat" and message.heartbeat.sent >= self._taken:
            lost = message.heartbeat.sent - self._taken + 1
            raise ServerUnavailable(f"{lost} messages from {self._target} were lost")
        return True  # something newer than this client may come: nothing to do

    def _take_offer(self, opened: pb.Opened) -> None:
        self._slots, self._socket, proof = take(opened, self._target, self._avoided, self._note_heard)
        if proof is not None:
            self._requests.say(pb.ClientMessage(proof=proof))
        if self._closed and self._socket is not None:
            self._socket.end()  # who closed us may have looked before it was there

    def _note_heard(self) -> None:
        self._heard = time.monotonic()

    def _silent(self) -> ServerUnavailable:
        """The stream is taken for dead. Is it the payload socket that swallows, it is not used again for a while."""
        if self._socket is None or not self._socket.receiving:
            return ServerUnavailable(f"{self._target} has said nothing for {SILENCE:.0f} s")
        where = named(self._socket.address)
        self._avoided.note(self._socket.address, f"{where} went silent within a bundle")
        return ServerUnavailable(f"{where} has been silent within a bundle for {SILENCE:.0f} s")

    def _off_socket(self, bundle: pb.Bundle) -> npt.NDArray[np.uint8]:
        if self._socket is None:
            raise ServerError(f"{self._target} sent a bundle over a socket that is not connected: a bug in the server")
        memory = self._memory(bundle.body_bytes)
        self.wire_bytes += self._socket.receive(memory)
        return memory

    def _in_slot(self, bundle: pb.Bundle) -> npt.NDArray[np.uint8]:
        if self._slots is None:
            raise ServerError(f"{self._target} sent a bundle in shared memory that is not mapped: a bug in the server")
        return self._slots.body(bundle.slot, bundle.body_bytes)

    def _put(self, item: Item) -> None:
        with self._came:
            self._items.append(item)
            self._came.notify()


def _of_status(error: grpc.RpcError, target: str) -> PenstockError:
    """A gRPC status as one of our errors. Statuses of a data stream come from gRPC itself, not from our server."""
    code, details = error.code(), error.details() or ""
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return ServerError(f"what listens at {target} is no Penstock server: {details}")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return ServerUnavailable(f"no connection to {target}: {details}")
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return from_wire("ResourceExhausted", f"{target}: {details}", retryable=True)
    return ServerUnavailable(f"the stream from {target} broke ({code.name}): {details}")
