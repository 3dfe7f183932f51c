"""Words for memory: who holds how much of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

Stage = Literal[
    "interpreter",  # what the server held before it served anything: Python and libraries
    "workers",  # worker processes, with all that they hold
    "pools",  # rows that wait in mixing pools, and segments that were counted but not made
    "segments",  # indices
    "read-ahead",  # chunks in the making, in the server's own threads; reserved when they are begun
    "chunk memory",  # chunks handed over in memory because no disk took them
    "chunk infos",  # what is remembered of chunks, and their names
    "bundles",  # made or in the making, where they do not lie in a slot
    "slots",  # memory shared with clients
    "unaccounted",  # measured, and in nobody's books
]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)


class Holding(NamedTuple):
    """Bytes that one stage holds for one dataset or session, where it is for one."""

    stage: Stage
    bytes: int
    dataset: str = ""
    session: str = ""
    process: int = 0  # its id, where it is not the server's


class ProcessMemory(NamedTuple):
    """Mapped files are in neither number: they belong to the page cache."""

    pid: int
    what: Literal["server", "worker"]
    anonymous: int
    shared: int


@dataclass(frozen=True)
class MemoryStatus:
    """Memory as it stands. Bytes."""

    limit: int = 0
    measured: int = 0  # what counts against the limit
    rung: str = "ok"  # of the pressure ladder, in words
    read_ahead: int = 0  # the bound as it is now
    read_ahead_most: int = 0
    holdings: tuple[Holding, ...] = ()
    processes: tuple[ProcessMemory, ...] = ()

    def stages(self) -> dict[Stage, int]:
        """Every stage, also those that hold nothing."""
        return by_stage(self.holdings)


def by_stage(holdings: Iterable[Holding]) -> dict[Stage, int]:
    found = dict.fromkeys(STAGES, 0)
    for holding in holdings:
        found[holding.stage] += holding.bytes
    return found
