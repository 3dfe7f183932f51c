"""`GET /api/v1/workers`: how many there are, how far ahead they work, and what the server decided about that."""

from dataclasses import asdict
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field

from penstock_service.admin.operations import Operations
from penstock_service.core.status import WorkersStatus


class WorkerDecision(BaseModel):
    at: str
    what: Literal["workers", "read-ahead"]
    before: int = Field(description="workers, or bytes")
    after: int
    reason: str


class Workers(BaseModel):
    """Prefetch workers. What is measured is that of the last second."""

    workers: int
    kind: str = Field(description="--worker-kind; auto: threads, and as many processes once Python runs on rows")
    workers_pinned: bool = Field(description="--workers is a number")
    least_workers: int
    most_workers: int
    cpus: int = Field(description="that this server may use")
    read_ahead_bytes: int
    read_ahead_pinned: bool = Field(description="--read-ahead-bytes is a size")
    busy: float = Field(description="workers that were making chunks, mean")
    starved: float = Field(description="share of the time that somebody waited for a chunk")
    free_cpus: float
    queued: int = Field(description="tasks that somebody waits for and no worker has been given")
    restarted: int = Field(description="workers that died and were replaced")
    begun_again: int = Field(description="tasks that took so long that a second worker began them too")
    decisions: list[WorkerDecision] = Field(description="the last hundred, the latest last")

    @classmethod
    def of(cls, status: WorkersStatus) -> "Workers":
        return cls.model_validate(asdict(status))


def add_workers(http: FastAPI, operations: Operations) -> None:
    @http.get("/api/v1/workers", tags=["status"])
    async def get_workers() -> Workers:
        """Prefetch workers and look-ahead as they are, and why."""
        return Workers.of(operations.workers())
