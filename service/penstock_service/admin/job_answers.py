"""The JSON of `/api/v1/jobs`."""

from collections.abc import Iterable
from dataclasses import asdict

from pydantic import BaseModel, Field

from penstock_service.core.job import JobStatus


class Rank(BaseModel):
    """One rank of a stream, or one replica of it. Where it is not connected, numbers are those it left with."""

    rank: int
    replica: int
    connected: bool
    missing: bool = Field(description="not there for longer than --missing-after")
    state: str = Field(description="what it waits for: the state of its session; else expected or missing")
    seconds: float = Field(description="connected, or away, for so long")
    client: str
    epoch: int = Field(description="where the trainer is, as it last said")
    step: int = Field(description="the one that the trainer gets next")
    rows_per_s: float = Field(description="sent to it in the last 30 seconds")
    steps_behind: int | None = Field(description="the front rank; null where epochs have no known length")
    seconds_behind: float = Field(description="the front rank was where this one is so long ago")
    lagging: bool = Field(description="behind by more than --lagging-after")
    stalled: bool = Field(description="lagging, and it has not moved for as long")


class JobStream(BaseModel):
    """A stream of a job. Epoch and step are those of the rank in front."""

    name: str
    datasets: list[str] = Field(description="NAME@VERSION")
    world_size: int
    epoch: int
    step: int
    rows_per_s: float
    missing: list[int] = Field(description="numbers of ranks")
    lagging: list[int]
    ranks: list[Rank]


class Job(BaseModel):
    job: str
    streams: list[JobStream]


class Jobs(BaseModel):
    jobs: list[Job]

    @classmethod
    def of(cls, found: Iterable[JobStatus]) -> "Jobs":
        return cls.model_validate({"jobs": [asdict(job) for job in found]})
