"""What the server tells operators about itself: snapshots, made at scrape time, never kept up to date in between."""

from dataclasses import dataclass, field
from typing import Literal

from penstock_service.core.channel import Bound
from penstock_service.core.holding import MemoryStatus
from penstock_service.core.quality import Quality

SessionState = Literal["filling", "sending", "waiting for credit", "waiting for rows", "ending"]


@dataclass(frozen=True)
class SessionStatus:
    """One session as it stands. Steps, rows and bytes are those of this rank; bytes are Arrow body bytes."""

    session: str
    job: str
    name: str  # of the stream
    datasets: tuple[str, ...]  # NAME@VERSION
    rank: int
    world_size: int
    replica: int
    client: str
    transport: str
    state: SessionState
    epoch: int
    step: int  # the next one to be sent
    steps_sent: int
    rows_sent: int
    bytes_sent: int
    credit_steps: int  # left to spend
    credit_bytes: int
    seconds_waiting_for_credit: float  # the trainer is slower than the server
    seconds_waiting_for_rows: float  # storage, transforms or mixing are slower than the trainer
    seconds_connected: float
    pool_rows: int = 0  # of the stream's pool as it is
    target_rows_per_s: float = 0.0  # what the rank wants; 0: nothing said
    below_target: bool = False  # and the server is why
    taken_epoch: int = 0  # where the trainer is, as it last said: the step that it gets next
    taken_step: int = 0
    seconds_since_moved: float = 0.0  # since it last got on
    epoch_steps: int | None = None  # of a whole epoch, where that is known
    transport_reason: str = ""  # why it is that one
    compression: str = "none"  # of what travels over gRPC
    wire_bytes_sent: int = 0  # over gRPC, compressed or not


@dataclass(frozen=True)
class StreamStatus:
    """One order that trainers read or have read lately."""

    datasets: tuple[str, ...]  # NAME@VERSION
    seed: int
    shuffle: bool
    pool_rows: int  # the pool as it is
    drain: int
    cycles: int
    rows: int  # of an epoch, before filters
    segments: int
    sessions: int
    mixing_bytes: int
    qualities: tuple[Quality, ...]  # of the last few epochs; none where nothing is mixed


@dataclass(frozen=True)
class PlaceStatus:
    """A place that data is read from: a bucket, or a folder."""

    place: str
    state: Literal["closed", "open", "half-open"]
    failures: int  # in a row
    retry_in_seconds: float  # until it is tried again; 0 while it is not open
    error: str  # the last one; empty while nothing has failed


@dataclass(frozen=True)
class WorkerDecision:
    """A number that the server changed by itself."""

    at: str  # ISO 8601, UTC
    what: Literal["workers", "read-ahead"]
    before: int
    after: int
    reason: str


@dataclass(frozen=True)
class WorkersStatus:
    """The workers as they are, what was measured in the last second, and what was decided."""

    workers: int
    kind: str
    workers_pinned: bool
    least_workers: int
    most_workers: int
    cpus: int
    read_ahead_bytes: int
    read_ahead_pinned: bool
    busy: float  # workers, mean
    starved: float  # share of the time that somebody waited for a chunk
    free_cpus: float
    queued: int  # tasks that somebody waits for and no worker has been given
    restarted: int
    begun_again: int
    decisions: tuple[WorkerDecision, ...]  # the last ones, the latest last


@dataclass(frozen=True)
class Numbers:
    """Totals since start, for the metrics. Dictionaries are keyed by what the label says."""

    rows_sent: dict[str, int] = field(default_factory=dict)  # by dataset
    bytes_sent: dict[str, int] = field(default_factory=dict)  # by transport
    steps_sent: int = 0
    bundles_sent: int = 0
    sessions: dict[str, int] = field(default_factory=dict)  # by transport
    sessions_total: int = 0
    sessions_below_target: int = 0
    ranks_missing: int = 0
    ranks_lagging: int = 0
    steps_behind_max: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)  # by stage: read, mix, gather, send
    wait_seconds: dict[str, float] = field(default_factory=dict)  # by what for: credit, rows
    errors: dict[str, int] = field(default_factory=dict)  # sent to clients, by code
    data_errors: int = 0  # stored rows that did not become rows
    bad_rows: dict[str, int] = field(default_factory=dict)  # met by streams, by policy
    places_open: int = 0  # whose circuit breaker is not closed
    chunks_made: int = 0
    chunk_hits: int = 0
    chunk_misses: int = 0
    chunks_made_ahead: int = 0
    chunk_seconds_missed: float = 0.0
    chunk_seconds_saved: float = 0.0
    ghost_hit_ratios: dict[str, float] = field(default_factory=dict)  # by size, in caps
    segments_built: int = 0
    mixing_bytes: int = 0  # of indices, and of rows that wait in pools
    bounds: tuple[Bound, ...] = ()
    workers: int = 0
    workers_restarted: int = 0
    workers_busy_seconds: float = 0.0
    starved_seconds: float = 0.0  # while somebody waited for a chunk
    chunks_begun_again: int = 0
    tuned: dict[str, int] = field(default_factory=dict)  # decisions, by what
    loop_lag_seconds: float = 0.0  # worst of the last ten seconds
    mixed: dict[str, Quality] = field(default_factory=dict)  # by stream: of its last finished epoch
    memory: MemoryStatus = field(default_factory=MemoryStatus)
