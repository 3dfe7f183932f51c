"""How well one epoch of a stream was mixed, as numbers to be shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Quality:
    """Measured on windows of consecutive rows, the same whatever batch a trainer takes, before filters."""

    epoch: int
    segments: int  # that were measured: those that somebody wanted
    of_segments: int  # that the epoch has
    window: int  # rows of a window
    windows: int
    shards: float  # distinct ones in a window, mean
    shards_ideal: float  # the same under a perfect shuffle
    adjacent: float  # share of neighbouring rows that are of one shard
    adjacent_ideal: float
    rank_correlation: float  # of emitted against stored order, -1 to 1; 0: none

    @property
    def complete(self) -> bool:
        return self.segments == self.of_segments

    def __str__(self) -> str:
        return (
            f"{self.shards:.1f} distinct shards in {self.window} rows (a perfect shuffle has {self.shards_ideal:.1f}), "
            f"{self.adjacent:.2%} of neighbouring rows from one shard ({self.adjacent_ideal:.2%}), "
            f"rank correlation with the stored order {self.rank_correlation:+.3f} (0)"
        )
