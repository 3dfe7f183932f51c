"""`GET /api/v1/streams`: orders that are read, and how well they are mixed."""

from collections.abc import Iterable
from dataclasses import asdict

from pydantic import BaseModel, Field

from penstock_service.core.status import StreamStatus


class Epoch(BaseModel):
    """How well an epoch was mixed, measured on windows of consecutive rows, whatever batch a trainer takes."""

    epoch: int
    segments: int = Field(description="that were measured: those that somebody wanted")
    of_segments: int
    window: int = Field(description="rows of a window")
    windows: int
    shards: float = Field(description="distinct shards in a window, mean")
    shards_ideal: float = Field(description="the same under a perfect shuffle")
    adjacent: float = Field(description="share of neighbouring rows that are of one shard")
    adjacent_ideal: float
    rank_correlation: float = Field(description="of emitted against stored order; 0: none")


class Stream(BaseModel):
    datasets: list[str] = Field(description="NAME@VERSION")
    seed: int
    shuffle: bool
    pool_rows: int = Field(description="the pool as it is")
    drain: int = Field(description="rows of a segment")
    cycles: int
    rows: int = Field(description="of an epoch, before filters")
    segments: int
    sessions: int
    mixing_bytes: int
    epochs: list[Epoch] = Field(description="the last few, before filters; none where nothing is mixed")

    @classmethod
    def of(cls, status: StreamStatus) -> "Stream":
        values = asdict(status)
        return cls.model_validate(values | {"epochs": values.pop("qualities")})


class Streams(BaseModel):
    streams: list[Stream]

    @classmethod
    def of(cls, found: Iterable[StreamStatus]) -> "Streams":
        return cls(streams=[Stream.of(status) for status in found])
