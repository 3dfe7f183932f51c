"""What a worker process and the server say to one another, over a socket pair that only they have.

The server: `Start` once, then `Work`, and an answer to each `Ask`. The process: `Ready`, then for each work any number
of `Ask` and `Done`, and one `Over`. Pickled, which is safe here: both ends are ours, and nobody else can write to it.
"""

from typing import NamedTuple

from penstock_service.chunks.file import Place
from penstock_service.chunks.worker import Verdict
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import ServiceError


class Start(NamedTuple):
    server: int  # its process id: a worker ends with its server
    path: list[str]  # where modules are imported from
    make: bytes  # pickled; loaded when the path is set


class Ready(NamedTuple):
    error: str  # empty, or why this process cannot work


class Ask(NamedTuple):
    chunk: int
    size: int
    trouble: str


class Done(NamedTuple):
    chunk: int
    place: Place
    info: ChunkInfo


class Over(NamedTuple):
    error: ServiceError | None
    traceback: str = ""  # for the log, if nobody foresaw the error


Answer = Place | Verdict | ServiceError
