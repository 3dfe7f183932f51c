"""One line of the list of bad rows, as operators see it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BadRow:
    """A stored row that did not become a row, or all rows of a chunk that cannot be had."""

    job: str
    stream: str
    on_error: str
    dataset: str  # NAME@VERSION, NAME@VERSION:SPLIT
    row: int  # its number in the dataset, as stored; of several the first
    rows: int
    where: str  # "file.jsonl, line 17"
    reason: str
    noted_at: str  # ISO 8601, UTC
