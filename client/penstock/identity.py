"""Who pulls a stream: which ranks belong together, and which object of which process this is.

The server fences by it: of two processes that claim one rank of a job, the one that came last has it.
"""

import os
import socket
import uuid
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from typing import Final

from penstock.world import FRESH, Job, fresh_job
from penstock_proto.v1.cursor import Cursor

_BEGUN: Final = 4096  # streams whose begin is remembered

_processes: dict[int, str] = {}
_begun: OrderedDict[tuple[int, str, str, int, int], None] = OrderedDict()


@dataclass(frozen=True)
class Identity:
    """One stream object. After a fork the child's copy is another process, and where no launcher or user named a job,
    of another job."""

    found: Job
    name: str
    rank: int
    replica: int
    object: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def job(self) -> str:
        return fresh_job().id if self.found.origin == FRESH else self.found.id

    @property
    def token(self) -> str:
        return f"{_process(os.getpid())}.{self.object}"

    def begin(self, epoch: int, cursor: Cursor | None) -> str:
        """The object takes its first step here. What the server compares among ranks: EPOCH.SEGMENT.TAKEN, or nothing
        where this process took steps of the stream before, with another object: it may be anywhere then."""
        if self._key in _begun:
            return ""
        _begun[self._key] = None
        while len(_begun) > _BEGUN:
            _begun.popitem(last=False)
        return f"{epoch}.0.0" if cursor is None else f"{cursor.epoch}.{cursor.segment}.{cursor.taken}"

    def forget_begin(self) -> None:
        """It was refused: whatever this process tries next is its first step."""
        _begun.pop(self._key, None)

    @property
    def _key(self) -> tuple[int, str, str, int, int]:
        return os.getpid(), self.job, self.name, self.rank, self.replica


def client_name() -> str:
    """Name, version and process, for the server's log and for whom this process fences."""
    return f"penstock {_version()}, pid {os.getpid()} on {socket.gethostname()}"


@cache
def _version() -> str:
    return version("penstock")  # it reads a file


def _process(pid: int) -> str:
    """Keyed by process id, so that a forked child has one of its own. Threads that ask at once get the same."""
    return _processes.setdefault(pid, uuid.uuid4().hex)
