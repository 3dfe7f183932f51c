"""The HTTP API about the chunk store, and its JSON."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Self

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from penstock_service.admin.memory import held_bytes
from penstock_service.admin.operations import Operations
from penstock_service.admin.runs import PROBLEMS
from penstock_service.core.errors import ServiceError
from penstock_service.core.store import AheadStatus, StoreStatus


class Ghost(BaseModel):
    """What another store would have hit lately, by a simulation of it."""

    policy: str
    factor: float = Field(description="times the cap")
    bytes: int
    hit_ratio: float


class Stored(BaseModel):
    dataset: str = Field(description="NAME@VERSION, marked where rows are transformed; empty: found at start")
    held: bool = Field(description="somebody reads it now: it does not give way")
    chunks: int
    stored_chunks: int
    stored_bytes: int
    needs_bytes: int = Field(description="for all its chunks, as far as is known")
    hits: int
    misses: int
    seconds_saved: float


class Warmed(BaseModel):
    """Chunks of a dataset version that are made before anybody reads it."""

    dataset: str
    why: str = Field(description="warm: an operator asked; preload: there was room")
    state: str = Field(description="waiting, making, done or stopped")
    chunks: int
    there: int = Field(description="before anything was made")
    made: int
    made_bytes: int
    seconds: float
    reason: str = Field(description="why it was stopped, or what could not be made")

    @classmethod
    def of(cls, status: AheadStatus) -> Self:
        return cls.model_validate(asdict(status))


class Store(BaseModel):
    """The chunk store. Counts are since the server's start."""

    folder: str = Field(description="empty: there is none")
    limit: int = Field(description="bytes")
    used: int
    memory_limit: int = Field(description="of chunks that are handed over through memory")
    memory_used: int
    chunks: int
    evicted: int
    bad_files: int
    trouble: str = Field(description="why chunks are not written to disk now; empty: they are")
    policy: str = Field(description="as set")
    rule: str = Field(description="the policy as it is now")
    reason: str = Field(description="why, where the policy is adaptive")
    hits: int = Field(description="uses of chunks by segments, or pages of rows by index, that found them there")
    misses: int
    hit_ratio: float | None
    ahead: int = Field(description="chunks made before anybody read them")
    seconds_missed: float = Field(description="of workers, for the misses")
    seconds_per_miss: float | None
    seconds_saved: float = Field(description="of workers, by the hits")
    working_set: int = Field(description="bytes that the versions being read need, as far as is known")
    ghosts: list[Ghost]
    versions: list[Stored]
    preloads: list[Warmed]

    @classmethod
    def of(cls, status: StoreStatus) -> Self:
        rates = {"hit_ratio": status.hit_ratio, "seconds_per_miss": status.seconds_per_miss}
        return cls.model_validate(asdict(status) | rates)


class Load(BaseModel):
    """What the server does, in a few numbers. Counts are since its start."""

    workers: int
    workers_restarted: int
    memory: dict[str, int] = Field(description="bytes that the process holds, by kind")
    loop_lag_seconds: float = Field(description="of the event loop, worst of the last ten seconds")
    sessions: int
    rows_sent: int
    bytes_sent: int
    steps_sent: int
    chunks_made: int
    wait_seconds: dict[str, float] = Field(description="of sessions, by what for: credit, rows")


def add_store(http: FastAPI, operations: Operations) -> None:
    @http.get("/api/v1/store", tags=["status"])
    async def get_store() -> Store:
        """The chunk store: what is in it, what it saves, and what another size or policy would do."""
        return Store.of(operations.store())

    @http.get("/api/v1/load", tags=["status"])
    async def get_load() -> Load:
        numbers = operations.numbers()
        return Load(
            workers=numbers.workers,
            workers_restarted=numbers.workers_restarted,
            memory=held_bytes(),
            loop_lag_seconds=numbers.loop_lag_seconds,
            sessions=sum(numbers.sessions.values()),
            rows_sent=sum(numbers.rows_sent.values()),
            bytes_sent=sum(numbers.bytes_sent.values()),
            steps_sent=numbers.steps_sent,
            chunks_made=numbers.chunks_made,
            wait_seconds=dict.fromkeys(("credit", "rows"), 0.0) | numbers.wait_seconds,
        )

    @http.post("/api/v1/datasets/{name}/warm", tags=["datasets"], responses=PROBLEMS)
    async def warm_dataset(name: str, split: str = "") -> StreamingResponse:
        """Makes all chunks of a dataset that are not in the store. Answers with lines of JSON (`Warmed`) as it goes
        on; the last has the state `done` or `stopped`. It stops when the connection is closed."""
        going = operations.warm(name, split)
        first = await anext(going)  # what is refused, is refused with its status
        return StreamingResponse(_lines(first, going), media_type="application/x-ndjson")


async def _lines(first: AheadStatus, going: AsyncGenerator[AheadStatus, None]) -> AsyncIterator[str]:
    try:
        async with aclosing(going) as rest:
            yield Warmed.of(first).model_dump_json() + "\n"
            async for status in rest:
                yield Warmed.of(status).model_dump_json() + "\n"
    except ServiceError as error:  # the status line is gone
        yield json.dumps({"code": error.code, "message": str(error)}) + "\n"
