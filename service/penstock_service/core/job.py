"""Jobs as operators see them: which ranks are there, how far they are, who holds the others up. Snapshots."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RankStatus:
    """One rank of a stream, or one replica of it. Where it is not connected, numbers are those it left with."""

    rank: int
    replica: int
    connected: bool
    missing: bool  # it should have come, or come back, long ago
    state: str  # of its session: what it waits for; else "expected" or "missing"
    seconds: float  # connected, or away, for so long
    client: str
    epoch: int  # where the trainer is, as it last said: the step that it gets next
    step: int
    rows_per_s: float  # sent to it lately
    steps_behind: int | None  # the rank that is in front; None where epochs have no known length
    seconds_behind: float  # the front rank was where this one is so long ago
    lagging: bool  # far behind
    stalled: bool  # far behind, and does not get on at all


@dataclass(frozen=True)
class JobStreamStatus:
    """A stream of a job. `epoch` and `step` are those of the rank in front."""

    name: str
    datasets: tuple[str, ...]  # NAME@VERSION
    world_size: int
    epoch: int
    step: int
    rows_per_s: float  # of all ranks
    missing: tuple[int, ...]  # numbers of ranks
    lagging: tuple[int, ...]
    ranks: tuple[RankStatus, ...]


@dataclass(frozen=True)
class JobStatus:
    job: str
    streams: tuple[JobStreamStatus, ...]
