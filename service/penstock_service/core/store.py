"""What operators are told of the chunk store: snapshots."""

from dataclasses import dataclass, field
from typing import Literal

Policy = Literal["lru", "lfu", "fifo", "adaptive"]
"""Which dataset version gives way first when room is needed, of those that nobody reads. Adaptive: whichever of the
others the ghost list says would have hit most."""

PreloadMode = Literal["auto", "eager", "lazy"]


@dataclass(frozen=True)
class GhostStatus:
    """What a store of another size, or with another policy, would have hit lately."""

    policy: str
    factor: float  # times the cap
    bytes: int
    hit_ratio: float


@dataclass(frozen=True)
class StoredVersion:
    """A dataset version in the store."""

    dataset: str  # NAME@VERSION, with what marks its row transforms; empty: found at start, and nobody's yet
    held: bool  # somebody reads it now
    chunks: int  # of it
    stored_chunks: int
    stored_bytes: int
    needs_bytes: int  # for all its chunks, as far as is known; 0: not known
    hits: int = 0
    misses: int = 0
    seconds_saved: float = 0.0


@dataclass(frozen=True)
class AheadStatus:
    """Chunks of a dataset version that are made before anybody reads it."""

    dataset: str
    why: Literal["warm", "preload"]
    state: Literal["waiting", "making", "done", "stopped"]
    chunks: int  # of it
    there: int  # before anything was made
    made: int
    made_bytes: int
    seconds: float
    reason: str = ""  # why it was stopped, or what could not be made

    @property
    def over(self) -> bool:
        return self.state in ("done", "stopped")


@dataclass(frozen=True)
class StoreStatus:
    """Hits, misses and seconds count since start."""

    folder: str
    limit: int
    used: int
    memory_limit: int
    memory_used: int
    chunks: int
    evicted: int
    bad_files: int
    trouble: str  # why chunks are not written to disk now, or empty
    policy: str  # as set
    rule: str  # as it is now
    reason: str  # why, where the policy is adaptive
    hits: int
    misses: int
    ahead: int  # chunks made before anybody asked
    seconds_missed: float
    seconds_saved: float
    working_set: int  # bytes that the versions being read need, as far as is known
    ghosts: tuple[GhostStatus, ...] = ()
    versions: tuple[StoredVersion, ...] = ()
    preloads: tuple[AheadStatus, ...] = field(default=())

    @property
    def hit_ratio(self) -> float | None:
        """None: nothing was used yet."""
        return self.hits / (self.hits + self.misses) if self.hits + self.misses else None

    @property
    def seconds_per_miss(self) -> float | None:
        return self.seconds_missed / self.misses if self.misses else None
