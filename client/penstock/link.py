"""The channel to a server: made when first used, made anew after a fork, closed once."""

import os
import random
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import grpc

from penstock.errors import InvalidRequest, PenstockError, ServerUnavailable, from_wire
from penstock.payload import Avoided
from penstock.receiver import Memory, Receiver, Where
from penstock_proto.v1 import channel as settings
from penstock_proto.v1 import data_pb2 as pb


class Link:
    """Where a stream meets the world: the server, time and chance. Picklable: only the target and the token travel."""

    now: Callable[[], float] = staticmethod(time.monotonic)
    sleep: Callable[[float], None] = staticmethod(time.sleep)
    uniform: Callable[[float, float], float] = random.SystemRandom().uniform

    def __init__(self, target: str, token: str | None = None) -> None:
        if token and not (token.isascii() and token.isprintable()):
            raise InvalidRequest(
                "token: only printable ASCII can be sent; one that was read from a file may have the end of its line: "
                "token.strip()"
            )
        self.target = target
        self.answered = False  # by a server, some time: one that is away now is waited for, as one that comes back
        self._token = token
        self._channel: grpc.Channel | None = None
        self._pid = -1
        self._lock = threading.Lock()
        self._avoided = Avoided()

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def channel(self) -> grpc.Channel:
        with self._lock:
            if self._channel is None or self._pid != os.getpid():
                # A channel inherited through fork belongs to the parent: it is neither used nor closed here.
                self._channel = grpc.insecure_channel(self.target, options=settings.CLIENT)
                self._pid = os.getpid()
            return self._channel

    def open(self, message: pb.Open, where: Where, memory: Memory | None = None) -> Receiver:
        """Begin a session; its bundles are received into `memory`. `where`: the step that the trainer gets next."""
        receiver = Receiver(self.channel(), message, self.target, self.metadata, where, memory, self._avoided)
        receiver.start()
        return receiver

    def close(self) -> None:
        with self._lock:
            if self._channel is not None and self._pid == os.getpid():
                self._channel.close()
            self._channel = None

    def call(self, method: Any, request: Any, timeout: float | None) -> Any:
        """One control call; `method` is made of a stub by the caller. Statuses become our errors."""
        try:
            answer = method(request, timeout=timeout, metadata=self.metadata)
        except grpc.RpcError as error:
            raise self.error(error) from None
        self.answered = True
        return answer

    def each(self, method: Any, request: Any) -> Generator[Any, None, None]:
        """The answers of one control call that has several. The call ends where the iteration does."""
        call = method(request, metadata=self.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            raise self.error(error) from None
        finally:
            call.cancel()

    def error(self, error: grpc.RpcError) -> PenstockError:
        """A status as one of our errors, to be raised by the caller."""
        trailers = dict(error.trailing_metadata() or ())
        code = trailers.get("penstock-code")
        details = error.details() or ""
        if isinstance(code, str):
            return from_wire(code, details, retryable=error.code() == grpc.StatusCode.UNAVAILABLE)
        if error.code() == grpc.StatusCode.UNAVAILABLE:
            return nobody_there(self.target, details)
        if error.code() == grpc.StatusCode.UNIMPLEMENTED:
            return from_wire("Internal", f"what listens at {self.target} is no Penstock server: {details}", False)
        return ServerUnavailable(f"{self.target}: {error.code().name}: {details}")

    def __getstate__(self) -> dict[str, Any]:
        return {"target": self.target, "token": self._token}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["target"], state["token"])  # type: ignore[misc]


def nobody_there(target: str, details: str) -> ServerUnavailable:
    """What a user must know who started the trainer before the server."""
    return ServerUnavailable(
        f"no Penstock server answers at {target} ({details}). Start one with: penstock serve PATH --grpc {target}"
    )
