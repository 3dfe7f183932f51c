"""A worker process: `python -m penstock_service.chunks.child FD`. Started by `processes.py`; ends with its server."""

import ctypes
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from penstock_service.chunks.file import Place
from penstock_service.chunks.wire import Ask, Done, Over, Ready, Start
from penstock_service.chunks.worker import Make, Verdict, Work, make_chunks, seed_from, unforeseen
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import Internal, ServiceError

_PR_SET_PDEATHSIG = 1
_IDLE = 1.0  # seconds without work after which memory that is not used goes back to the system
_NICE = 10  # a tenth of the server's share of a CPU that both want: delivering comes before making ahead


class _ServerGone(BaseException):
    """The server has closed its end. No Exception, so that no reader mistakes it for a failure of its own."""


class _Server:
    """The other end of the socket pair."""

    def __init__(self, descriptor: int) -> None:
        self._connection: Connection[Any, Any] = Connection(descriptor)

    def say(self, what: Ready | Ask | Done | Over) -> None:
        try:
            self._connection.send(what)
        except OSError as error:
            raise _ServerGone from error

    def hear(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise _ServerGone from error

    def speaks_within(self, seconds: float) -> bool:
        try:
            return self._connection.poll(seconds)
        except OSError as error:
            raise _ServerGone from error

    # These two are what `make_chunks` calls.

    def ask(self, chunk: int, size: int, trouble: str) -> Place | Verdict:
        self.say(Ask(chunk, size, trouble))
        answer: Place | Verdict | ServiceError = self.hear()
        if isinstance(answer, ServiceError):
            raise answer
        return answer

    def done(self, chunk: int, place: Place, info: ChunkInfo) -> None:
        self.say(Done(chunk, place, info))


def main(descriptor: int) -> None:
    # Ctrl-C goes to the whole group of processes; when to end is the server's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    try:
        _serve(_Server(descriptor))
    except _ServerGone:
        return


def _serve(server: _Server) -> None:
    start: Start = server.hear()
    _end_with(start.server)
    sys.path[:] = start.path
    try:
        make: Make = pickle.loads(start.make)  # noqa: S301 - from our own server
    except Exception as error:  # noqa: BLE001 - whatever importing a user's module raises is the server's to tell
        server.say(Ready(f"{type(error).__name__}: {error}"))
        return
    server.say(Ready(""))
    while True:
        if not server.speaks_within(_IDLE):
            pa.default_memory_pool().release_unused()
        work: Work = server.hear()
        server.say(_do(make, work, server))


def _do(make: Make, work: Work, server: _Server) -> Over:
    try:
        make_chunks(make, work, server.ask, server.done, seed_from)
    except _ServerGone:
        raise
    except ServiceError as error:
        return Over(_sendable(error))
    except BaseException as error:  # noqa: BLE001 - user code may raise anything, SystemExit too; the server tells it
        return Over(unforeseen(error), traceback.format_exc())
    return Over(None)


def _sendable(error: ServiceError) -> ServiceError:
    """The error as it is if it survives the way, else what can be said of it."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception as refused:  # noqa: BLE001 - whatever its class does when pickled
        return Internal(f"{error} (its type {type(error).__name__} cannot be pickled: {refused})")
    return error


def _end_with(server: int) -> None:
    """The kernel kills this process when the server's thread that started it ends, however busy it is. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:  # it was gone before that
        raise _ServerGone


if __name__ == "__main__":
    main(int(sys.argv[1]))
