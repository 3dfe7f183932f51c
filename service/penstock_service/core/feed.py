"""What delivery takes from batching: the steps of one rank, bundle by bundle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_proto.v1.cursor import Cursor
from penstock_service.core.segment import Progress

U8 = npt.NDArray[np.uint8]
Memory = Callable[[int], U8]
"""Gives writable bytes for a message of that size. Called from a thread."""


def ordinary(size: int) -> U8:
    """Memory of its own for each message."""
    return np.empty(size, np.uint8)


class Span(NamedTuple):
    """Units that a bundle's steps took from one segment."""

    segment: int
    units: int
    digest: int


@dataclass(frozen=True)
class Bundle:
    """Consecutive steps of one rank: the unit of hand-over. `body` is one Arrow IPC record batch message."""

    epoch: int
    first_step: int
    steps: int
    segment: int  # where the first step begins
    taken: int
    spans: tuple[Span, ...]
    rows: int  # of each step at this rank
    units: int  # taken by each step over all ranks
    body: U8
    rows_by_dataset: dict[str, int]
    ends_epoch: bool = False  # no step of this epoch comes after it
    rows_wait_seconds: float = 0.0  # until the rows were made
    gather_seconds: float = 0.0
    last_rows: int | None = None  # where the last step differs
    last_units: int | None = None
    last_valid: int | None = None
    substituted: tuple[int, ...] = ()  # rows that stand for bad ones, ascending

    @property
    def all_rows(self) -> int:
        last = self.rows if self.last_rows is None else self.last_rows
        return self.rows * (self.steps - 1) + last


@dataclass(frozen=True)
class EpochEnd:
    """Every rank has had every step of the epoch. Rows are counted over all ranks."""

    epoch: int
    steps: int
    dropped: int = 0
    padded: int = 0
    repeated: int = 0
    unread: int = 0
    skipped: int = 0  # bad rows left out, since the session began in this epoch
    substituted: int = 0  # bad rows that another row stood for, likewise


class Feed(Protocol):
    """The steps of one rank, from a position on, epoch after epoch."""

    async def next(
        self, steps: int, size: int, progress: Progress | None = None, memory: Memory = ordinary
    ) -> Bundle | EpochEnd:
        """At most `steps` steps in about `size` bytes, at least one step; or the end of an epoch, told once.

        The bundle's body is made in what `memory` gives; asked for once a bundle at most.
        """
        ...

    async def explain(self, step: int, all_ranks: bool) -> pa.RecordBatch:
        """Where the rows of `step` of this epoch come from (`batch.explain.SCHEMA`); it must not lie behind.

        The feed has moved there then, and is of no use for delivery.

        Raises:
            InvalidRequest: the epoch ends before it, with how many steps it has.
        """
        ...


class News(NamedTuple):
    """The run's journal has grown."""

    run: str  # JSON, as in a cursor's `run`
    rows: int | None  # of a whole epoch from this one on; None: not known, or not the same for all
    steps: int | None = None


@dataclass(frozen=True)
class Opening:
    """A stream opened for one rank: what the client is told, and where its steps come from."""

    feed: Feed
    schema: pa.Schema
    fingerprint: dict[str, str]
    plan: dict[str, int | str]
    cursor: Cursor  # where the feed begins
    rows: int | None  # of one whole epoch over all ranks
    steps: int | None
    seed: int
    datasets: tuple[str, ...]  # NAME@VERSION, NAME@VERSION:SPLIT
    close: Callable[[], None]  # lets go of what the feed holds; may be called twice
    step_bytes: float = 0.0  # about what a step of this rank has
    notes: tuple[str, ...] = ()  # what the user should know
    started: Callable[[str], None] = lambda start: None  # the client, which had only looked, takes its first step
    news: Callable[[], News | None] = lambda: None  # what the client must be told before its next bundle; once
    listen: Callable[[Callable[[], None]], None] = lambda listener: None  # calls it back when there is news
