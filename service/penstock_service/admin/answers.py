"""The JSON of the HTTP API."""

from dataclasses import asdict
from typing import Annotated

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from penstock_service.core.dataset import DatasetVersion
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
    tags: list[str]
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
            tags=list(version.tags),
            registered_at=version.registered_at,
        )


def _columns(schema: pa.Schema) -> list[Column]:
    return [Column(name=f.name, type=str(f.type), nullable=f.nullable) for f in schema]


class Datasets(BaseModel):
    datasets: list[Dataset]


class Registration(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Annotated[
        str | list[str],
        Field(
            min_length=1, description="on the server's machine: a file, a folder or a glob, PATH#0-99 too, or several"
        ),
    ]
    name: str = Field(default="", description="empty: made from the path")
    description: str = ""
    tags: list[str] = []
    required: dict[str, list[str]] = Field(default={}, description="by split, columns that each of its files must have")


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
