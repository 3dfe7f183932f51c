"""What operators may ask of the running server: implements `admin.operations.Operations`."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args

import pyarrow as pa

from penstock_proto.v1 import PROTOCOL, data_pb2
from penstock_service.admin.operations import ServerInformation
from penstock_service.app.badrows import BadRows
from penstock_service.app.discovery import Discoverer
from penstock_service.app.explaining import Explaining
from penstock_service.app.guard import MemoryGuard
from penstock_service.app.lag import LagProbe
from penstock_service.app.library import Library
from penstock_service.app.mixers import Mixers
from penstock_service.app.runs import Runs
from penstock_service.app.subscriptions import Subscriptions
from penstock_service.app.tuner import Tuner
from penstock_service.app.warming import Warming
from penstock_service.app.watch import RankWatch
from penstock_service.batch.policy import OnError
from penstock_service.chunks.chunks import Chunks
from penstock_service.config import Settings
from penstock_service.core.badrow import BadRow
from penstock_service.core.channel import Counters
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference
from penstock_service.core.discovery import Discovery
from penstock_service.core.holding import MemoryStatus
from penstock_service.core.job import JobStatus
from penstock_service.core.run import Began, RunStatus
from penstock_service.core.status import Numbers, PlaceStatus, SessionStatus, StreamStatus, WorkersStatus
from penstock_service.core.store import AheadStatus, StoreStatus
from penstock_service.deliver.data import DataService


@dataclass
class Addresses:
    """Where the server really listens; filled in when it does."""

    grpc: str
    http: str
    payload: str = ""  # empty: none, or not yet
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


class ServerOperations:
    """Reads the stages' own numbers when asked; keeps none itself."""

    def __init__(
        self,
        settings: Settings,
        addresses: Addresses,
        version: str,
        library: Library,
        discoverer: Discoverer,
        chunks: Chunks,
        data: DataService,
        subscriptions: Subscriptions,
        mixers: Mixers,
        runs: Runs,
        counters: Counters,
        lag: LagProbe,
        bad_rows: BadRows,
        watch: RankWatch,
        guard: MemoryGuard,
        tuner: Tuner,
        warming: Warming,
        checks: Callable[[], dict[str, bool]],
    ) -> None:
        self._settings = settings
        self._addresses = addresses
        self._version = version
        self._library = library
        self._discoverer = discoverer
        self._chunks = chunks
        self._data = data
        self._mixers = mixers
        self._runs = runs
        self._explaining = Explaining(subscriptions)
        self._counters = counters
        self._lag = lag
        self._bad_rows = bad_rows
        self._watch = watch
        self._guard = guard
        self._tuner = tuner
        self._warming = warming
        self._checks = checks

    def checks(self) -> dict[str, bool]:
        return self._checks()

    async def datasets(self, text: str = "", task: str = "", tag: str = "") -> list[DatasetVersion]:
        return await self._library.datasets(text, task, tag)

    async def register(self, name: str, path: str | Sequence[str], said: Declaration) -> DatasetVersion:
        version = await self._library.register(name, path, said)
        self._warming.registered(version)
        return version

    async def dataset(self, name: str) -> DatasetVersion:
        return await self._library.dataset(name)

    async def versions(self, name: str) -> list[DatasetVersion]:
        return await self._library.versions(name)

    async def diff(self, a: str, b: str) -> Difference:
        return await self._library.diff(a, b)

    async def remove(self, name: str, force: bool = False) -> DatasetVersion:
        return await self._library.remove(name, force)

    async def discover(self) -> Discovery:
        found = await self._discoverer.look()
        self._warming.look()
        return found

    def warm(self, name: str, split: str = "") -> AsyncGenerator[AheadStatus, None]:
        return self._warming.warm(name, split)

    def store(self) -> StoreStatus:
        return self._chunks.status()

    async def bad_rows(self, job: str = "", stream: str = "", most: int = 1000) -> list[BadRow]:
        return await asyncio.to_thread(self._bad_rows.list, job, stream, most)

    def places(self) -> list[PlaceStatus]:
        return self._chunks.places()

    async def explain(self, request: data_pb2.Open, step: int, epoch: int | None, all_ranks: bool) -> pa.RecordBatch:
        return await self._explaining.explain(request, step, epoch, all_ranks)

    async def runs(self) -> list[RunStatus]:
        return await self._runs.all()

    async def run(self, run: str) -> RunStatus:
        return await self._runs.one(run)

    async def set_mixture(self, run: str, weights: Mapping[str, float]) -> Began:
        return await self._runs.set_mixture(run, weights)

    async def quarantine(self, run: str, dataset: str, rows: Sequence[int | str], reason: str = "") -> Began:
        return await self._runs.quarantine(run, dataset, rows, reason)

    def sessions(self) -> list[SessionStatus]:
        return self._data.sessions()

    def streams(self) -> list[StreamStatus]:
        return self._mixers.streams()

    def memory(self) -> MemoryStatus:
        return self._guard.status()

    def jobs(self) -> tuple[JobStatus, ...]:
        return self._watch.jobs()

    def workers(self) -> WorkersStatus:
        return self._tuner.status()

    def numbers(self) -> Numbers:
        totals, chunks, values = self._data.totals, self._chunks.numbers(), self._counters.values
        sessions = self._data.sessions()
        ranks = [rank for job in self._watch.jobs() for stream in job.streams for rank in stream.ranks]
        return Numbers(
            rows_sent=dict(totals.rows),
            bytes_sent=dict(totals.bytes),
            steps_sent=totals.steps,
            bundles_sent=totals.bundles,
            sessions=Counter(s.transport for s in sessions),
            sessions_below_target=sum(s.below_target for s in sessions),
            ranks_missing=sum(r.missing for r in ranks),
            ranks_lagging=sum(r.lagging for r in ranks),
            steps_behind_max=max((r.steps_behind or 0 for r in ranks), default=0),
            sessions_total=totals.sessions,
            stage_seconds={
                "read": chunks.making_seconds,
                "mix": values.get("mix_seconds", 0.0),
                "gather": values.get("gather_seconds", 0.0),
                "send": totals.send_seconds,
            },
            wait_seconds=dict(totals.waits),
            errors=dict(totals.errors),
            data_errors=int(values.get("data_errors", 0)),
            bad_rows={p: int(values.get(f"bad_rows_{p}", 0)) for p in get_args(OnError)},
            places_open=sum(place.state != "closed" for place in self._chunks.places()),
            chunks_made=chunks.made,
            chunk_hits=chunks.hits,
            chunk_misses=chunks.misses,
            chunks_made_ahead=chunks.ahead,
            chunk_seconds_missed=chunks.seconds_missed,
            chunk_seconds_saved=chunks.seconds_saved,
            ghost_hit_ratios=chunks.ghost_hit_ratios,
            segments_built=int(values.get("segments_built", 0)),
            bounds=chunks.bounds,
            mixing_bytes=self._mixers.nbytes,
            workers=chunks.workers,
            workers_restarted=chunks.workers_restarted,
            workers_busy_seconds=chunks.busy_seconds,
            starved_seconds=chunks.starved_seconds,
            chunks_begun_again=chunks.begun_again,
            tuned=dict(self._tuner.decided),
            loop_lag_seconds=self._lag.worst,
            mixed=self._mixers.mixed(),
            memory=self._guard.status(),
        )

    def info(self) -> ServerInformation:
        return ServerInformation(
            version=self._version,
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            capabilities=("grpc",),
            grpc=self._addresses.grpc,
            http=self._addresses.http,
            payload=self._addresses.payload or "off",
            state_dir=str(self._settings.state_dir),
            store_dir=str(self._settings.store_dir),
            started_at=self._addresses.started_at,
            pid=os.getpid(),
        )
