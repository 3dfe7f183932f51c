"""How far the making of a dataset's chunks is."""

from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class Warmed:
    """Chunks are what the server keeps of a dataset: decoded rows. `str` says it in a sentence."""

    dataset: str  # NAME@VERSION
    state: str  # "waiting", "making", "done" or "stopped"
    chunks: int  # of the dataset
    there: int  # before anything was made
    made: int
    bytes: int  # that were made
    seconds: float
    reason: str = ""  # why it was stopped, or what could not be made

    @classmethod
    def of(cls, status: Any) -> Self:
        """From the message `Warming`."""
        return cls(
            dataset=status.dataset,
            state=status.state,
            chunks=status.chunks,
            there=status.there,
            made=status.made,
            bytes=status.size,
            seconds=status.seconds,
            reason=status.reason,
        )

    def __str__(self) -> str:
        return (
            f"{self.dataset}: {self.made} chunks made in {self.seconds:.1f} s ({self.bytes:,} bytes), "
            f"{self.there} were there, {self.chunks} in all"
        )
