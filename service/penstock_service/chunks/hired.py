"""One worker process, and the connection to it."""

import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final

from penstock_service.chunks.wire import Answer, Ready, Start
from penstock_service.chunks.worker import Work
from penstock_service.core.errors import Internal

logger = logging.getLogger(__name__)

_START_SECONDS: Final = 60.0  # an interpreter that imports Arrow and the reader
_END_SECONDS: Final = 2.0


class Lost(Exception):
    """The worker does not answer: it has died."""


def hire(start: Start, tries: int) -> "Worker":
    """A worker that is ready. One that dies before it is (killed, memory is short) is replaced like any other."""
    for _ in range(tries - 1):
        try:
            return Worker(start)
        except Lost as end:
            logger.warning("a worker process %s before it could begin; another takes its place", end)
    try:
        return Worker(start)
    except Lost as end:
        raise Internal(f"a worker process cannot begin: it {end}, {tries} times in a row") from None


class Worker:
    """One process and the connection to it. Raises Lost if it dies before it is ready."""

    def __init__(self, start: Start) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process: Final = subprocess.Popen(
                # -P: no module in the working folder takes the place of ours
                [sys.executable, "-P", "-m", "penstock_service.chunks.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        try:
            self.say(start)
            ready = self.hear() if self._connection.poll(_START_SECONDS) else Ready("it has not started in time")
        except Lost:
            end = self.epitaph()
            self.end()
            raise Lost(end) from None
        if ready.error:
            self.end()
            raise Internal(f"a worker process cannot begin: {ready.error}")

    def say(self, what: Start | Work | Answer) -> None:
        try:
            self._connection.send(what)
        except OSError as error:
            raise Lost from error

    def hear(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise Lost from error

    def end(self) -> None:
        """It ends by itself when it is idle, and is killed when it is not."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        self.process.kill()
        self.process.wait()

    def epitaph(self) -> str:
        code = self.process.wait()
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"was killed by signal {-code}"
