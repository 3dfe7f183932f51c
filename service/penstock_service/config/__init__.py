"""All settings of the server, in one model. `load` (load.py) reads flags, environment and file into it, once, at start;
whoever needs a setting is given it. The description of a field is also the help of its flag.
"""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from penstock_service.config.addresses import DatasetArgument, host_and_port
from penstock_service.config.machine import (
    cache_home,
    container_memory,
    default_memory,
    default_store_bytes,
    state_home,
)
from penstock_service.config.sizes import AutoSize, Size
from penstock_service.core.store import Policy, PreloadMode
from penstock_service.core.uri import secrets_in
from penstock_service.source.stores import SCHEMES, Scheme, check_endpoint

KiB, MiB, GiB = 1024, 1024**2, 1024**3
_RANGE = re.compile(r"\s*\d+\s*(-\s*\d*\s*)?")
MOST_WORKERS = 1024


def _parse_workers(value: object) -> object:
    text = value.strip().lower() if isinstance(value, str) else value
    number = int(text) if isinstance(text, str) and text.isdecimal() else text
    if text == "auto" or (isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= MOST_WORKERS):
        return number
    raise ValueError(f"it must be auto, or a whole number from 1 to {MOST_WORKERS}")


Workers = Annotated[int | Literal["auto"], BeforeValidator(_parse_workers)]


def _parse_payload(value: object) -> object:
    if value is False:  # what YAML makes of off
        return "off"
    text = value.strip().lower() if isinstance(value, str) else value
    number = int(text) if isinstance(text, str) and text.isdecimal() else text
    if text in ("auto", "off") or (isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= 65535):
        return number
    raise ValueError("it must be auto, off, or a port from 1 to 65535")


Payload = Annotated[int | Literal["auto", "off"], BeforeValidator(_parse_payload)]


class Settings(BaseSettings):
    """Made with keywords it reads nothing but the machine (for defaults): no environment, no file."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="PENSTOCK__", env_nested_delimiter="__", env_ignore_empty=True
    )

    datasets: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="what to serve: [NAME=]PATH, PATH#SHARDS or a spec (.yaml); the paths of one name are one dataset",
    )
    discover: Path | None = Field(
        default=None,
        description="folder of which every file, folder or spec (NAME.penstock.yaml) is served as a dataset",
    )
    discover_every: float = Field(
        default=0.0, ge=0, description="seconds between looks into that folder; 0: only at start and when asked to"
    )
    grpc: str = Field(default="127.0.0.1:7400", description="address that trainers connect to; port 0 picks a free one")
    http: str = Field(
        default="127.0.0.1:7401", description="address of metrics, health and the API; port 0 picks a free one"
    )
    state_dir: Path = Field(
        default_factory=lambda: state_home(os.environ),
        description="folder of the registry and the journal; one server at a time holds it",
    )
    store_dir: Path = Field(
        default_factory=lambda: cache_home(os.environ) / "store",
        description="folder of the chunk store; may be deleted when no server runs, and shared by servers",
    )
    store_bytes: Size = Field(
        default_factory=lambda so_far: default_store_bytes(so_far["store_dir"]),
        description="most bytes in the chunk store; default: a quarter of the free disk, at most 64GiB",
    )
    store_memory_bytes: Size = Field(
        default=512 * MiB,
        ge=MiB,
        description="most bytes of chunks that pass through memory where the disk cannot take them",
    )
    store_policy: Policy = Field(
        default="lru",
        description="which dataset version gives way first in the store, of those that nobody reads: "
        "lru (used longest ago), lfu (used least often), fifo (came first), adaptive (what would have hit most)",
    )
    preload: PreloadMode = Field(
        default="auto",
        description="what is decoded before anybody reads it: auto (what fits, in the background), "
        "eager (all, before the server is ready), lazy (nothing)",
    )
    memory: Size = Field(
        default_factory=lambda: default_memory(container_memory()),
        ge=64 * MiB,
        description="memory of server and workers; default: 5GB, or nine tenths of the container's limit if less",
    )
    workers: Workers = Field(
        default="auto", description="prefetch workers: a number, or auto: from one per CPU, by what is measured"
    )
    worker_kind: Literal["auto", "threads", "processes"] = Field(
        default="auto",
        description="what workers are: auto (processes only where Python code runs on rows), threads, processes",
    )
    python_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Python modules (and all below them) whose functions streams may run on rows; default: none",
    )
    read_ahead_bytes: AutoSize = Field(
        default="auto",
        description="most bytes of chunks made ahead of demand, at least 1MiB; auto: from 512MiB, by what is measured",
    )
    chunk_rows: int = Field(default=1 << 20, ge=1, description="most rows of a chunk")
    chunk_bytes: Size = Field(default=16 * MiB, ge=64 * KiB, le=GiB, description="about how many bytes a chunk has")
    schemes: Annotated[tuple[Scheme, ...], NoDecode] = Field(
        default=SCHEMES, min_length=1, description="where data may be read from, with commas: file, s3, gs, az"
    )
    s3_endpoint: str = Field(
        default_factory=lambda: os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", ""),
        validate_default=True,
        description="URL of an S3 store other than AWS; default: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL",
    )
    s3_region: str = Field(
        default_factory=lambda: os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", ""),
        description="region of S3 buckets; default: AWS_REGION or AWS_DEFAULT_REGION, else AWS is asked",
    )
    azure_account: str = Field(
        default_factory=lambda: os.environ.get("AZURE_STORAGE_ACCOUNT", ""),
        description="storage account of az:// paths; default: AZURE_STORAGE_ACCOUNT",
    )
    object_anonymous: bool = Field(default=False, description="read object stores without credentials: public data")
    object_connect_timeout: float = Field(default=5, gt=0, description="seconds to connect to an object store")
    object_read_timeout: float = Field(default=20, gt=0, description="seconds without a byte from an object store")
    object_retries: int = Field(default=4, ge=0, le=100, description="how often a failed request is tried again")
    object_retry_base: float = Field(default=0.1, gt=0, description="seconds: most to wait before the first retry")
    object_retry_cap: float = Field(default=5, gt=0, description="seconds: most to wait before any retry")
    object_ranges: int = Field(default=8, ge=1, le=256, description="ranges in flight for each object being read")
    object_range_bytes: Size = Field(default=4 * MiB, ge=64 * KiB, le=GiB, description="bytes of one range")
    read_retries: int = Field(
        default=3, ge=0, le=100, description="how often a chunk that cannot be read is tried again"
    )
    read_retry_base: float = Field(default=0.1, gt=0, description="seconds: most to wait before the first retry")
    read_retry_cap: float = Field(default=5, gt=0, description="seconds: most to wait before any retry")
    read_retry_deadline: float = Field(
        default=60, gt=0, description="seconds after its first failure, or rest, when a chunk is given up"
    )
    breaker_failures: int = Field(
        default=8, ge=1, description="failed reads in a row after which a place (bucket, folder) rests"
    )
    breaker_pause: float = Field(default=5, gt=0, description="seconds that a place rests before it is tried again")
    strict: bool = Field(default=False, description="end the server, with code 3, when a bad row stops a stream")
    bundle_bytes: Size = Field(
        default=4 * MiB,
        ge=KiB,
        le=GiB,
        description="most bytes that are handed over at once; where not over gRPC, four times as many",
    )
    bundle_steps: int = Field(default=512, ge=1, le=1 << 20, description="most steps that are handed over at once")
    frame_bytes: Size = Field(default=MiB, ge=4 * KiB, le=16 * MiB, description="bytes of one message on the wire")
    shared_memory: bool = Field(
        default=True, description="hand batches to clients on this host through shared memory; off: over the network"
    )
    payload: Payload = Field(
        default="auto",
        description="port of the TCP sockets that batches travel by, on the host of --grpc; auto: a free one; "
        "off: they travel over gRPC",
    )
    payload_advertise: str | None = Field(
        default=None,
        description="HOST:PORT where clients reach that port, if not at the host they know the server by: NAT, proxies",
    )
    pool_rows: int = Field(default=2_000_000, ge=1, description="rows in the mixing pool, where a stream does not say")
    pool_bytes: Size = Field(default=GiB, ge=MiB, description="most bytes of the rows that the pool stands for")
    refill_below: float = Field(
        default=0.75, ge=0, le=0.98, description="share of the pool that it is refilled below, to 0.98"
    )
    max_sessions: int = Field(default=256, ge=1, le=65536, description="most sessions at a time; more are refused")
    grace: float = Field(default=20.0, ge=0, description="seconds after SIGTERM within which the server has ended")
    missing_after: float = Field(
        default=30.0, gt=0, description="seconds after which a rank that is not there is said to be missing"
    )
    lagging_after: float = Field(
        default=30.0, gt=0, description="seconds behind the front rank from which a rank is said to lag"
    )
    stalled_after: float = Field(
        default=60.0,
        gt=0,
        description="seconds after which a session whose trainer takes nothing may be put off, if memory is short",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log line shown"
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="log lines as text or JSON; auto: text on a terminal"
    )

    @property
    def dataset_arguments(self) -> tuple[DatasetArgument, ...]:
        return tuple(DatasetArgument.parse(text) for text in self.datasets)

    @field_validator("datasets", "python_modules", mode="before")
    @classmethod
    def _split_list(cls, value: Any) -> Any:
        """One variable holds several as a JSON list, or with commas between them."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            try:
                return json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(f"this begins like a JSON list of [NAME=]PATH but is none: {error}") from None
        parts: list[str] = []
        for part in value.split(","):
            if parts and "#" in parts[-1] and _RANGE.fullmatch(part):  # of PATH#0-9,20-
                parts[-1] += "," + part
            elif part.strip():
                parts.append(part.strip())
        return parts

    @field_validator("schemes", mode="before")
    @classmethod
    def _split_schemes(cls, value: Any) -> Any:
        return [part.strip() for part in value.lower().split(",")] if isinstance(value, str) else value

    @field_validator("read_ahead_bytes")
    @classmethod
    def _check_read_ahead(cls, value: int | Literal["auto"]) -> int | Literal["auto"]:
        if value != "auto" and value < MiB:
            raise ValueError("it must be auto, or at least 1MiB")
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        if value:
            check_endpoint(value)
        return value

    @field_validator("datasets")
    @classmethod
    def _check_datasets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        parsed = [DatasetArgument.parse(text) for text in value]
        if found := [what for d in parsed if (what := secrets_in(d.path))]:
            raise ValueError(f"a URI must not hold {found[0]}; they come from the environment, settings or the role")
        return value

    @field_validator("grpc", "http")
    @classmethod
    def _check_address(cls, value: str) -> str:
        host_and_port(value)
        return value

    @field_validator("payload_advertise")
    @classmethod
    def _check_advertised(cls, value: str | None) -> str | None:
        if value is not None and host_and_port(value)[1] == 0:
            raise ValueError("clients cannot connect to port 0")
        return value

    @field_validator("state_dir", "store_dir", "discover")
    @classmethod
    def _expand(cls, value: Path | None) -> Path | None:
        return value and value.expanduser().absolute()

    @field_validator("log_level", "log_format", "worker_kind", "store_policy", "preload", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.grpc == self.http and host_and_port(self.grpc)[1] != 0:
            raise ValueError(f"grpc and http are both {self.grpc}; they need two ports")
        if self.payload == host_and_port(self.grpc)[1]:
            raise ValueError(f"payload and grpc are both port {self.payload}; they need two ports")
        if self.payload_advertise is not None and self.payload == "off":
            raise ValueError(f"payload_advertise is {self.payload_advertise}, but payload is off")
        if self.object_retry_base > self.object_retry_cap:
            raise ValueError(
                f"object_retry_base is {self.object_retry_base:g} and object_retry_cap {self.object_retry_cap:g}; "
                "base may not be more than cap"
            )
        if self.read_retry_base > self.read_retry_cap:
            raise ValueError(
                f"read_retry_base is {self.read_retry_base:g} and read_retry_cap {self.read_retry_cap:g}; "
                "base may not be more than cap"
            )
        for name, own in (("state_dir", self.state_dir), ("store_dir", self.store_dir)):
            if self.discover is not None and self.discover in (own, *own.parents):
                raise ValueError(f"{name} {own} is in the folder of datasets {self.discover}, of which all is served")
        if self.discover_every and self.discover is None:
            raise ValueError(
                f"discover_every is {self.discover_every:g} but there is no folder to look into: --discover DIR"
            )
        if self.state_dir == self.store_dir:
            raise ValueError(f"state_dir and store_dir are both {self.state_dir}; the store may be deleted, state not")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what the constructor is given: `load` merges the rest, so that it knows where each value came from."""
        return (init_settings,)
