"""The HTTP API about runs, and its JSON."""

from dataclasses import asdict
from typing import Any, Self

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from penstock_service.admin.answers import Problem
from penstock_service.admin.operations import Operations
from penstock_service.core.run import Began, RunStatus

PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": {"model": Problem}, "5XX": {"model": Problem}}


class Run(BaseModel):
    """One job's reading of one stream, over all resumes: it is being read here, or its journal has entries."""

    run: str
    job: str
    stream: str = Field(description="its name within the job")
    datasets: list[str] = Field(description="NAME@VERSION; empty while no session is open")
    world_size: int = Field(description="0 while no session is open")
    ranks: list[int] = Field(description="those with a session here")
    epoch: int | None = Field(description="the first place of which no rank holds a row")
    segment: int | None
    head: str = Field(description="of the chain of entries")
    entries: list[dict[str, Any]] = Field(description="as in a cursor: kind, epoch, segment, and weights or rows")

    @classmethod
    def of(cls, status: RunStatus) -> Self:
        return cls.model_validate(asdict(status))


class Runs(BaseModel):
    runs: list[Run]


class Mixture(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weights: dict[str, float] = Field(description="of every dataset of the mixture, by name")


class Rows(BaseModel):
    model_config = ConfigDict(extra="forbid")

    dataset: str
    rows: list[int | str] = Field(description='stored row numbers, or ranges such as "40-49"')
    reason: str = ""


class Change(BaseModel):
    """An entry of the journal that was written, and from where on it holds."""

    run: str
    n: int = Field(description="entries of the journal now")
    head: str
    epoch: int
    segment: int
    step: int = Field(description="of that epoch: the first that may hold a row of that segment")
    exact: bool = Field(description="false: `step` is an estimate")
    complete_epoch: int = Field(description="from here on no row is left that entered the pool before")
    complete_segment: int
    complete_step: int = Field(description="about")

    @classmethod
    def of(cls, began: Began) -> Self:
        return cls.model_validate({k: v for k, v in asdict(began).items() if k != "carried"})


def add_runs(http: FastAPI, operations: Operations) -> None:
    @http.get("/api/v1/runs", tags=["runs"], responses=PROBLEMS)
    async def list_runs() -> Runs:
        """Runs that are being read here, and those with entries in the journal."""
        return Runs(runs=[Run.of(status) for status in await operations.runs()])

    @http.get("/api/v1/runs/{run}", tags=["runs"], responses=PROBLEMS)
    async def get_run(run: str) -> Run:
        """`run` is its id, or as many of its first letters as tell it from others."""
        return Run.of(await operations.run(run))

    @http.post("/api/v1/runs/{run}/mixture", tags=["runs"], responses=PROBLEMS)
    async def set_mixture(run: str, wanted: Mixture) -> Change:
        """Changes the mixture from the first chunk set on of which no rank holds a row, for this epoch and all later
        ones. Answers when it is written down, before it takes effect."""
        return Change.of(await operations.set_mixture(run, wanted.weights))

    @http.post("/api/v1/runs/{run}/quarantine", tags=["runs"], responses=PROBLEMS)
    async def quarantine_rows(run: str, wanted: Rows) -> Change:
        """Leaves rows out from the first segment on that no rank holds. No other row moves."""
        return Change.of(await operations.quarantine(run, wanted.dataset, wanted.rows, wanted.reason))
