"""What the admin side may ask of the running server. `app.py` implements it; the tests have one of their own."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from penstock_proto.v1 import data_pb2
from penstock_service.core.badrow import BadRow
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference
from penstock_service.core.discovery import Discovery
from penstock_service.core.holding import MemoryStatus
from penstock_service.core.job import JobStatus
from penstock_service.core.run import Began, RunStatus
from penstock_service.core.status import Numbers, PlaceStatus, SessionStatus, StreamStatus, WorkersStatus
from penstock_service.core.store import AheadStatus, StoreStatus


@dataclass(frozen=True)
class ServerInformation:
    """What the server is: as in GetServerInfo, and where it is."""

    version: str
    protocol_min: int
    protocol_max: int
    capabilities: tuple[str, ...]
    grpc: str  # the addresses it really listens on: never port 0
    http: str
    payload: str  # of TCP sockets for payload, or "off"
    state_dir: str
    store_dir: str
    started_at: str  # ISO 8601, UTC
    pid: int


class Operations(Protocol):
    """Called on the event loop. What takes long (a scan, SQLite) is async; the rest answers at once from memory.
    Errors are `ServiceError`s.
    """

    def checks(self) -> dict[str, bool]:
        """What must be true before trainers should be sent here, by name, such as "registry", "workers", "grpc".
        While draining at least one is false."""

    async def datasets(self, text: str = "", task: str = "", tag: str = "") -> list[DatasetVersion]:
        """All datasets, or those that hold `text`, are of the task type `task` and carry `tag`."""

    async def register(self, name: str, path: str | Sequence[str], said: Declaration) -> DatasetVersion:
        """Scans `path` (on this machine), or what the spec there describes. An empty name: the spec's, or made from
        the path."""

    async def dataset(self, name: str) -> DatasetVersion:
        """`name` is NAME or NAME@VERSION."""

    async def versions(self, name: str) -> list[DatasetVersion]:
        """All versions of a dataset, the newest first."""

    async def diff(self, a: str, b: str) -> Difference:
        """The shards that differ between two datasets or versions."""

    async def remove(self, name: str, force: bool = False) -> DatasetVersion:
        """Forgets the dataset; its files stay. Refused while streams read it, unless `force`: they run on."""

    async def discover(self) -> Discovery:
        """Looks into the folder of datasets now."""

    async def bad_rows(self, job: str = "", stream: str = "", most: int = 1000) -> list[BadRow]:
        """Rows that streams met and that are errors, the latest first."""

    def places(self) -> list[PlaceStatus]:
        """Where data was read from, and whether its circuit breaker is open."""

    async def explain(self, request: data_pb2.Open, step: int, epoch: int | None, all_ranks: bool) -> pa.RecordBatch:
        """Where each row of a step comes from."""

    async def runs(self) -> list[RunStatus]:
        """Runs that are being read here, and those with entries in the journal."""

    async def run(self, run: str) -> RunStatus:
        """By its id, or its first letters."""

    async def set_mixture(self, run: str, weights: Mapping[str, float]) -> Began:
        """Changes the mixture of a run while it is read; answers when that is written down."""

    async def quarantine(self, run: str, dataset: str, rows: Sequence[int | str], reason: str = "") -> Began:
        """Leaves rows, by their stored numbers, out of what the run has still to read."""

    def store(self) -> StoreStatus:
        """The chunk store: what is in it, what it saves."""

    def warm(self, name: str, split: str = "") -> AsyncGenerator[AheadStatus, None]:
        """Makes all chunks of a dataset; says how far it is, at last that it is over. Stops when it is closed."""

    def sessions(self) -> list[SessionStatus]: ...

    def streams(self) -> list[StreamStatus]:
        """Orders that trainers read or have read lately, and how well they were mixed."""

    def jobs(self) -> tuple[JobStatus, ...]:
        """Jobs that have a session, and their ranks, those that are not there too."""

    def memory(self) -> MemoryStatus:
        """Who holds how much, against the limit."""

    def workers(self) -> WorkersStatus:
        """Workers and look-ahead as they are, and why."""

    def numbers(self) -> Numbers: ...

    def info(self) -> ServerInformation: ...
