"""A small `Operations`, made of the real words."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pytest

from penstock_proto.v1 import data_pb2
from penstock_service.admin.operations import ServerInformation
from penstock_service.core.badrow import BadRow
from penstock_service.core.channel import Bound
from penstock_service.core.dataset import SHARDS_SCHEMA, SLICES_SCHEMA, DatasetVersion, Manifest
from penstock_service.core.declaration import Declaration, check_task
from penstock_service.core.difference import Difference, ShardChange
from penstock_service.core.discovery import Child, Discovery
from penstock_service.core.errors import InvalidRequest, NotFound, ResourceExhausted
from penstock_service.core.holding import Holding, MemoryStatus, ProcessMemory
from penstock_service.core.job import JobStatus, JobStreamStatus, RankStatus
from penstock_service.core.quality import Quality
from penstock_service.core.run import Began, RunStatus, row_ranges
from penstock_service.core.status import (
    Numbers,
    PlaceStatus,
    SessionStatus,
    StreamStatus,
    WorkerDecision,
    WorkersStatus,
)
from penstock_service.core.store import AheadStatus, GhostStatus, StoredVersion, StoreStatus


def a_version(name: str, path: str, description: str = "", tags: tuple[str, ...] = ()) -> DatasetVersion:
    shard = {"format": "csv", "size": 700, "mtime_ns": 1, "rows": 10}
    shards = [shard | {"path": f"{i}.csv", "fingerprint": f"f{i}"} for i in range(2)]
    cut = {"unit": 0, "unit_row": 0, "rows": 10, "offset": 0, "length": 700, "bytes": 800}
    slices = [cut | {"shard": i, "chunk": i} for i in range(2)]
    return DatasetVersion(
        name=name,
        version="v1",
        root="/data",
        schema=pa.schema([pa.field("age", pa.float64()), pa.field("id", pa.int64(), nullable=False)]),
        manifest=Manifest(
            pa.Table.from_pylist(shards, schema=SHARDS_SCHEMA), pa.Table.from_pylist(slices, schema=SLICES_SCHEMA)
        ),
        path=path,
        description=description,
        tags=tags,
        task="binary",
        metric="auc",
        target=("age",),
        registered_at="2026-11-21T00:00:00+00:00",
    )


A_SESSION = SessionStatus(
    session="s1",
    job="j",
    name="train",
    datasets=("titanic@v1",),
    rank=1,
    world_size=4,
    replica=0,
    client="penstock 0.1.0",
    transport="grpc",
    state="waiting for credit",
    epoch=0,
    step=12,
    steps_sent=12,
    rows_sent=384,
    bytes_sent=4096,
    credit_steps=0,
    credit_bytes=100,
    seconds_waiting_for_credit=1.5,
    seconds_waiting_for_rows=0.25,
    seconds_connected=3.0,
)

A_RUN = RunStatus(
    run="3f2a",
    job="j",
    stream="train",
    datasets=("web@v1", "code@v2"),
    world_size=2,
    ranks=(0, 1),
    epoch=0,
    segment=7,
    head="h1",
    entries=({"kind": "quarantine", "epoch": 0, "segment": 3, "rows": {"web": [[4, 6]]}, "reason": "torn"},),
)

A_QUALITY = Quality(
    epoch=2,
    segments=8,
    of_segments=8,
    window=4096,
    windows=31,
    shards=60.0,
    shards_ideal=80.0,
    adjacent=0.05,
    adjacent_ideal=0.01,
    rank_correlation=0.02,
)

SOME_MEMORY = MemoryStatus(
    limit=1000 << 20,
    measured=850 << 20,
    rung="no segments ahead",
    read_ahead=64 << 20,
    read_ahead_most=512 << 20,
    holdings=(
        Holding("interpreter", 70 << 20),
        Holding("workers", 80 << 20, process=43),
        Holding("pools", 200 << 20, "titanic@v1"),
        Holding("slots", 400 << 20, "titanic@v1", "s1"),
        Holding("slots", 60 << 20, "web@v2", "s2"),
        Holding("unaccounted", 40 << 20),
    ),
    processes=(ProcessMemory(42, "server", 310 << 20, 460 << 20), ProcessMemory(43, "worker", 80 << 20, 0)),
)

SOME_NUMBERS = Numbers(
    rows_sent={"titanic": 384},
    bytes_sent={"grpc": 4096},
    steps_sent=12,
    bundles_sent=3,
    sessions={"grpc": 1},
    sessions_total=2,
    ranks_missing=3,
    ranks_lagging=2,
    steps_behind_max=40,
    stage_seconds={"read": 0.5},
    wait_seconds={"credit": 1.5},
    errors={"NotFound": 2},
    data_errors=1,
    bad_rows={"skip": 3},
    places_open=1,
    chunks_made=7,
    chunk_hits=9,
    chunk_misses=7,
    chunks_made_ahead=2,
    chunk_seconds_missed=0.75,
    chunk_seconds_saved=1.25,
    ghost_hit_ratios={"0.5": 0.25, "1": 0.5, "2": 0.75},
    segments_built=4,
    bounds=(Bound("read ahead", 512, used=128, wait_seconds=0.75),),
    workers=2,
    workers_restarted=1,
    workers_busy_seconds=3.5,
    starved_seconds=1.25,
    chunks_begun_again=6,
    tuned={"workers": 2},
    loop_lag_seconds=0.002,
    mixed={"titanic": A_QUALITY},
    memory=SOME_MEMORY,
)

A_STORE = StoreStatus(
    folder="/store",
    limit=1000,
    used=900,
    memory_limit=500,
    memory_used=0,
    chunks=9,
    evicted=2,
    bad_files=0,
    trouble="",
    policy="adaptive",
    rule="lfu",
    reason="of the latest uses would have been hits: lru 40.0%, lfu 50.0%",
    hits=30,
    misses=10,
    ahead=4,
    seconds_missed=5.0,
    seconds_saved=15.0,
    working_set=800,
    ghosts=(
        GhostStatus("lfu", 0.5, 500, 0.25),
        GhostStatus("lfu", 1.0, 1000, 0.5),
        GhostStatus("lfu", 2.0, 2000, 0.55),
        GhostStatus("lru", 1.0, 1000, 0.4),
    ),
    versions=(StoredVersion("titanic@v1", True, 10, 9, 900, 1000, 30, 10, 15.0), StoredVersion("", False, 0, 1, 9, 0)),
    preloads=(AheadStatus("titanic@v1", "preload", "making", 10, 5, 4, 400, 0.25),),
)

THE_WORKERS = WorkersStatus(
    workers=6,
    kind="auto",
    workers_pinned=False,
    least_workers=1,
    most_workers=16,
    cpus=4,
    read_ahead_bytes=1 << 29,
    read_ahead_pinned=True,
    busy=5.5,
    starved=0.25,
    free_cpus=1.5,
    queued=3,
    restarted=1,
    begun_again=2,
    decisions=(WorkerDecision("2026-11-21T00:00:00+00:00", "workers", 4, 6, "sessions waited for chunks"),),
)

A_STREAM = StreamStatus(
    datasets=("titanic@v1",),
    seed=7,
    shuffle=True,
    pool_rows=2000,
    drain=500,
    cycles=16,
    rows=8000,
    segments=8,
    sessions=1,
    mixing_bytes=512,
    qualities=(A_QUALITY,),
)

A_RANK = RankStatus(
    rank=0,
    replica=0,
    connected=True,
    missing=False,
    state="waiting for credit",
    seconds=61.4,
    client="penstock 0.1.0, pid 7 on gpu1",
    epoch=1,
    step=1200,
    rows_per_s=5120.0,
    steps_behind=0,
    seconds_behind=0.0,
    lagging=False,
    stalled=False,
)
SOME_JOBS = (
    JobStatus(
        "run-17",
        (
            JobStreamStatus(
                name="train",
                datasets=("titanic@v1",),
                world_size=3,
                epoch=1,
                step=1200,
                rows_per_s=5120.0,
                missing=(2,),
                lagging=(1,),
                ranks=(
                    A_RANK,
                    replace(
                        A_RANK, rank=1, step=1160, steps_behind=40, seconds_behind=35.2, lagging=True, stalled=True
                    ),
                    replace(
                        A_RANK, rank=2, connected=False, missing=True, state="missing", steps_behind=None, client=""
                    ),
                ),
            ),
        ),
    ),
)

SOME_INFORMATION = ServerInformation(
    version="0.1.0",
    protocol_min=1,
    protocol_max=1,
    capabilities=("grpc",),
    grpc="127.0.0.1:7400",
    http="127.0.0.1:7401",
    payload="127.0.0.1:7402",
    state_dir="/state",
    store_dir="/store",
    started_at="2026-11-21T00:00:00+00:00",
    pid=42,
)

SOME_DISCOVERY = Discovery(
    "/data",
    (
        Child("titanic", "/data/titanic", "unchanged", "v1"),
        Child("", "/data/x.png", "refused", reason="it cannot be read as data"),
    ),
)


NOON = "2026-11-21T12:00:00+00:00"
SOME_BAD_ROWS = [
    BadRow("job", "train", "skip", "titanic@v1", 204, 1, "0000.jsonl, line 205", "it is no JSON", NOON),
    BadRow("job", "val", "quarantine", "titanic@v1", 1000, 500, "0002.csv, from row 0 on", "it is gone", NOON),
]


@dataclass
class SmallOperations:
    held: dict[str, DatasetVersion] = field(default_factory=dict)
    passing: dict[str, bool] = field(default_factory=lambda: {"registry": True, "workers": True})
    now: Numbers = SOME_NUMBERS
    kept: StoreStatus = A_STORE
    fault: Exception | None = None  # raised by whatever is asked next
    said: Declaration | None = None  # at the last registration
    in_use: tuple[str, ...] = ()
    asked: tuple[data_pb2.Open, int, int | None, bool] | None = None  # by the last explain

    def checks(self) -> dict[str, bool]:
        return self.passing

    async def datasets(self, text: str = "", task: str = "", tag: str = "") -> list[DatasetVersion]:
        if self.fault is not None:
            raise self.fault
        check_task(task)
        return [
            v
            for v in self.held.values()
            if text in v.name + v.description and task in ("", v.task) and (not tag or tag in v.tags)
        ]

    async def register(self, name: str, path: str | Sequence[str], said: Declaration) -> DatasetVersion:
        path = path if isinstance(path, str) else path[0]
        name = name or path.rsplit("/", 1)[-1]
        self.held[name] = a_version(name, path, said.description or "", said.tags or ())
        self.said = said
        return self.held[name]

    async def dataset(self, name: str) -> DatasetVersion:
        if name not in self.held:
            raise NotFound(f"there is no dataset {name!r}; the nearest are: {', '.join(self.held)}")
        return self.held[name]

    async def versions(self, name: str) -> list[DatasetVersion]:
        return [replace(await self.dataset(name), version="v2"), await self.dataset(name)]

    async def diff(self, a: str, b: str) -> Difference:
        return Difference(a, b, (ShardChange("n.csv", 0, 5, 0, 50),), (), (ShardChange("0.csv", 10, 9, 700, 630),), 1)

    async def remove(self, name: str, force: bool = False) -> DatasetVersion:
        version = await self.dataset(name)
        if name in self.in_use and not force:
            raise InvalidRequest(f"dataset {name!r} is in use")
        del self.held[name]
        return version

    async def discover(self) -> Discovery:
        return SOME_DISCOVERY

    async def bad_rows(self, job: str = "", stream: str = "", most: int = 1000) -> list[BadRow]:
        found = [row for row in SOME_BAD_ROWS if job in ("", row.job) and stream in ("", row.stream)]
        return found[:most]

    def places(self) -> list[PlaceStatus]:
        return [PlaceStatus("s3://bucket", "open", 8, 2.5, "no answer")]

    async def runs(self) -> list[RunStatus]:
        return [A_RUN]

    async def run(self, run: str) -> RunStatus:
        if not A_RUN.run.startswith(run):
            raise NotFound(f"there is no run {run!r}")
        return A_RUN

    async def set_mixture(self, run: str, weights: Mapping[str, float]) -> Began:
        await self.run(run)
        if weights.keys() != {"web", "code"}:
            raise InvalidRequest("weights must name every dataset of the mixture, which are web, code")
        return Began(A_RUN.run, 2, "h2", 0, 7, 40, True, 0, 22, 115, "{}")

    async def quarantine(self, run: str, dataset: str, rows: Sequence[int | str], reason: str = "") -> Began:
        await self.run(run)
        row_ranges(rows, 100, dataset)
        return Began(A_RUN.run, 2, "h2", 1, 0, 0, True, 1, 0, 0, "{}")

    async def explain(self, request: data_pb2.Open, step: int, epoch: int | None, all_ranks: bool) -> pa.RecordBatch:
        if self.fault is not None:
            raise self.fault
        self.asked = (request, step, epoch, all_ranks)
        row = {"rank": 0, "place": 0, "valid": True, "source": 0, "dataset": "titanic", "version": "v1"}
        row |= {"split": "train", "shard": "0.csv", "shard_row": 3, "row": 3, "segment": 0, "unit": 1, "bad": None}
        return pa.RecordBatch.from_pylist([row])

    def store(self) -> StoreStatus:
        return self.kept

    async def warm(self, name: str, split: str = "") -> AsyncGenerator[AheadStatus, None]:
        await self.dataset(name)
        if split == "huge":
            raise ResourceExhausted(f"{name} needs about 9 more bytes in the chunk store")
        for state, made in (("making", 1), ("stopped" if split == "torn" else "done", 2)):
            reason = "not all could be made" if state == "stopped" else ""
            yield AheadStatus(f"{name}@v1", "warm", state, 3, 1, made, made * 100, 0.5 * made, reason)  # type: ignore[arg-type]

    def sessions(self) -> list[SessionStatus]:
        return [A_SESSION]

    def streams(self) -> list[StreamStatus]:
        return [A_STREAM, replace(A_STREAM, shuffle=False, qualities=())]

    def memory(self) -> MemoryStatus:
        return SOME_MEMORY

    def workers(self) -> WorkersStatus:
        return THE_WORKERS

    def jobs(self) -> tuple[JobStatus, ...]:
        return SOME_JOBS

    def numbers(self) -> Numbers:
        return self.now

    def info(self) -> ServerInformation:
        return SOME_INFORMATION


@pytest.fixture
def operations() -> SmallOperations:
    held = SmallOperations()
    held.held["titanic"] = a_version("titanic", "data/titanic", "who survived", ("binary",))
    return held


@pytest.fixture
def untouched(operations: SmallOperations) -> SmallOperations:
    """A server to which nothing has happened yet."""
    return replace(operations, now=Numbers())
