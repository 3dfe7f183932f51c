"""The JSON of the HTTP API."""

from dataclasses import asdict
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from penstock_proto.v1.tasks import TASKS
from penstock_service.core.dataset import DatasetVersion
from penstock_service.core.declaration import Declaration
from penstock_service.core.difference import Difference as Shards
from penstock_service.core.discovery import ChildState
from penstock_service.core.discovery import Discovery as Found
from penstock_service.core.status import SessionState, SessionStatus


class Column(BaseModel):
    name: str
    type: str = Field(description="Arrow type, such as int64 or list<item: float>")
    nullable: bool


class Split(BaseModel):
    name: str
    rows: int
    bytes: int = Field(description="as stored")
    shards: int
    columns: list[Column]


class Dataset(BaseModel):
    """Rows, bytes, shards, chunks, formats and columns are those of the split `train`, or of the first one."""

    name: str
    version: str
    path: str
    rows: int
    bytes: int = Field(description="as stored")
    shards: int
    chunks: int
    formats: list[str]
    columns: list[Column]
    splits: list[Split]
    description: str
    task: str = Field(description=f"one of {', '.join(TASKS)}, or empty: not told")
    tags: list[str]
    metric: str
    target: list[str] = Field(description="columns to be predicted")
    features: int = Field(description="number of top-level columns less those of the target")
    registered_at: str

    @classmethod
    def of(cls, version: DatasetVersion) -> "Dataset":
        manifest = version.manifest
        return cls(
            name=version.name,
            version=version.version,
            path=version.path,
            rows=manifest.rows,
            bytes=manifest.bytes,
            shards=manifest.shards.num_rows,
            chunks=manifest.chunks,
            formats=list(version.formats),
            columns=_columns(version.schema),
            splits=[
                Split(name=s.name, rows=s.rows, bytes=s.bytes, shards=s.shards, columns=_columns(s.schema))
                for s in version.splits
            ],
            description=version.description,
            task=version.task,
            tags=list(version.tags),
            metric=version.metric,
            target=list(version.target),
            features=version.features,
            registered_at=version.registered_at,
        )


def _columns(schema: pa.Schema) -> list[Column]:
    return [Column(name=f.name, type=str(f.type), nullable=f.nullable) for f in schema]


class Datasets(BaseModel):
    datasets: list[Dataset]


class Registration(BaseModel):
    """What is not given stays as it was in the version before."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[
        str | list[str],
        Field(
            min_length=1, description="on the server's machine: a file, a folder, a glob, a spec (.yaml), or several"
        ),
    ]
    name: str = Field(default="", description="empty: the spec's, else made from the path")
    description: str | None = None
    task: str | None = Field(default=None, description=f"one of {', '.join(TASKS)}")
    tags: list[str] | None = None
    metric: str | None = None
    target: list[str] | None = Field(default=None, description="columns to be predicted")
    rows: int | None = Field(default=None, description="refused if others are found")
    features: int | None = Field(default=None, description="refused if others are found")
    required: dict[str, list[str]] = Field(default={}, description="by split, columns that each of its files must have")

    def said(self) -> Declaration:
        return Declaration(
            description=self.description,
            task=self.task,
            tags=None if self.tags is None else tuple(self.tags),
            metric=self.metric,
            target=None if self.target is None else tuple(self.target),
            rows=self.rows,
            features=self.features,
            required={split: tuple(columns) for split, columns in self.required.items()} or None,
        )


class ShardChange(BaseModel):
    """Rows and bytes are 0 where the shard is not there."""

    path: str
    rows_before: int
    rows: int
    bytes_before: int
    bytes: int


class Difference(BaseModel):
    """What leads from `a` to `b`. Lists name at most 10,000 shards; counts count all."""

    a: str
    b: str
    added: list[ShardChange]
    gone: list[ShardChange]
    changed: list[ShardChange]
    counts: dict[str, int] = Field(description="of added, gone, changed and same")

    @classmethod
    def of(cls, found: Shards) -> "Difference":
        listed = {kind: getattr(found, kind) for kind in ("added", "gone", "changed")}
        return cls(
            a=found.a,
            b=found.b,
            counts={kind: len(shards) for kind, shards in listed.items()} | {"same": found.same},
            **{kind: [ShardChange(**asdict(s)) for s in shards[:10_000]] for kind, shards in listed.items()},
        )


class Child(BaseModel):
    name: str = Field(description="of the dataset; empty where none could be made")
    path: str
    state: ChildState
    version: str
    reason: str = Field(description="why it waits or was refused, or what to do where it is gone")


class Discovery(BaseModel):
    folder: str
    children: list[Child]

    @classmethod
    def of(cls, found: Found) -> "Discovery":
        return cls.model_validate(asdict(found))


class Session(BaseModel):
    """One rank's session. Steps, rows and bytes are those of this rank; bytes are Arrow body bytes."""

    session: str
    job: str
    name: str = Field(description="of the stream")
    datasets: list[str] = Field(description="NAME@VERSION")
    rank: int
    world_size: int
    replica: int
    client: str
    transport: str
    state: SessionState
    epoch: int
    step: int = Field(description="the next one to be sent")
    steps_sent: int
    rows_sent: int
    bytes_sent: int
    credit_steps: int = Field(description="left to spend")
    credit_bytes: int
    seconds_waiting_for_credit: float = Field(description="the trainer is slower than the server")
    seconds_waiting_for_rows: float = Field(description="storage or mixing are slower than the trainer")
    seconds_connected: float
    pool_rows: int = Field(description="of the stream's pool as it is")
    target_rows_per_s: float = Field(description="what the rank wants; 0: nothing said")
    below_target: bool = Field(description="it gets less, and the server is why")
    taken_epoch: int = Field(description="where the trainer is, as it last said")
    taken_step: int = Field(description="the one that the trainer gets next")
    seconds_since_moved: float = Field(description="since the trainer last got on")
    transport_reason: str = Field(description="why the transport is that one")
    compression: str = Field(description="of what it gets over gRPC: none, lz4 or zstd")
    wire_bytes_sent: int = Field(description="over gRPC, compressed or not; 0 where all of it is in shared memory")

    @classmethod
    def of(cls, status: SessionStatus) -> "Session":
        return cls.model_validate(asdict(status))


class Sessions(BaseModel):
    sessions: list[Session]


class Information(BaseModel):
    """What the server is, and where."""

    version: str
    protocol_min: int
    protocol_max: int
    capabilities: list[str]
    grpc: str
    http: str
    payload: str = Field(description='where payload sockets connect, or "off"')
    state_dir: str
    store_dir: str
    started_at: str
    pid: int


class Readiness(BaseModel):
    ready: bool
    failing: list[str] = Field(description="names of the checks that fail")
    checks: dict[str, bool] | None = Field(default=None, description="all checks, with ?verbose")


class Live(BaseModel):
    live: bool = True


class Problem(BaseModel):
    """What went wrong. `code` is the same word as over gRPC; `message` may be shown to the user as it is."""

    code: str
    message: str
