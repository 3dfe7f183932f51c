"""What went wrong with data, and with the places it is read from, in the HTTP API."""

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import FastAPI, Query
from pydantic import BaseModel, Field

from penstock_service.admin.operations import Operations


class BadRow(BaseModel):
    job: str
    stream: str
    on_error: str = Field(description="what the stream does about it")
    dataset: str = Field(description="NAME@VERSION")
    row: int = Field(description="its number in the dataset, as stored; of several the first")
    rows: int = Field(description="more than 1: a chunk of which no row can be had")
    where: str = Field(description="file and line, or file and row")
    reason: str
    noted_at: str


class BadRows(BaseModel):
    """The latest first. Of each stream the first 10,000 are kept; all are counted in the metrics."""

    rows: list[BadRow]


class Place(BaseModel):
    place: str
    state: Literal["closed", "open", "half-open"] = Field(description="of its circuit breaker; open: it rests")
    failures: int = Field(description="in a row")
    retry_in_seconds: float
    error: str


class Places(BaseModel):
    places: list[Place]


def add_failures(http: FastAPI, operations: Operations) -> None:
    @http.get("/api/v1/bad-rows", tags=["status"])
    async def list_bad_rows(
        job: str = "", stream: str = "", most: Annotated[int, Query(ge=1, le=100_000)] = 1000
    ) -> BadRows:
        """Rows that streams met and that are errors, with file, line and reason."""
        found = await operations.bad_rows(job, stream, most)
        return BadRows(rows=[BadRow.model_validate(asdict(row)) for row in found])

    @http.get("/api/v1/places", tags=["status"])
    async def list_places() -> Places:
        """Buckets and folders that data was read from, and their circuit breakers."""
        return Places(places=[Place.model_validate(asdict(place)) for place in operations.places()])
