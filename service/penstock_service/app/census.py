"""Who holds how much memory: what every stage says of itself, against what the kernel says."""

import os

from penstock_service.admin.memory import held_by, held_bytes
from penstock_service.app.mixers import Mixers
from penstock_service.chunks.chunks import Chunks
from penstock_service.core.holding import Holding, ProcessMemory
from penstock_service.deliver.data import DataService


class Census:
    """A look costs little. Belongs to the event loop; made before anything is served."""

    def __init__(self, chunks: Chunks, mixers: Mixers, data: DataService) -> None:
        self._chunks, self._mixers, self._data = chunks, mixers, data
        self.interpreter = sum(held_bytes().values())

    def processes(self) -> tuple[ProcessMemory, ...]:
        """The server, then its workers."""
        found = [ProcessMemory(os.getpid(), "server", **held_bytes())]
        return (*found, *(ProcessMemory(pid, "worker", **held_by(pid)) for pid in self._chunks.processes()))

    def reserved(self, processes: tuple[ProcessMemory, ...]) -> list[Holding]:
        """What stages say they hold, or may be about to."""
        stages = [*self._mixers.holdings(), *self._chunks.holdings(), *self._data.holdings()]
        workers = [Holding("workers", p.anonymous, process=p.pid) for p in processes if p.what == "worker"]
        return [Holding("interpreter", self.interpreter), *workers, *(h for h in stages if h.bytes)]


def measured(processes: tuple[ProcessMemory, ...], reserved: list[Holding]) -> int:
    """What counts against the limit. Shared memory exists whether it is mapped or not, and counts once."""
    shared = sum(h.bytes for h in reserved if h.stage in ("slots", "chunk memory"))
    return sum(p.anonymous for p in processes) + max(shared, sum(p.shared for p in processes))
