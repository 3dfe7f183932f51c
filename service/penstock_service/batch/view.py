"""How one rank looks at the global order: steps of `global_batch` units, the r-th contiguous part for rank r.

Pure arithmetic: needs nothing remembered, so that any batch or world size may follow any cursor.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from penstock_proto.v1.skips import Skips, joined, too_many
from penstock_service.core.errors import InvalidRequest

Last = Literal["short", "drop", "pad", "wrap"]
I64 = npt.NDArray[np.int64]


class LastStep(NamedTuple):
    """The step that the units left over at the end of an epoch make.

    `units` counts from the first unit left over; under `wrap` those from `left` on are the epoch's first units again.
    """

    units: I64  # [rows of this rank]
    valid: int | None  # how many of them, from the first on, are data; None: all, and no mask is needed
    padded: int  # over all ranks
    repeated: int


@dataclass(frozen=True)
class View:
    """What of every step goes to one rank."""

    global_batch: int
    rank: int
    world_size: int
    last: Last = "short"
    skip: Skips = ()  # steps that no rank gets

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", joined(self.skip))
        if (why := too_many(self.skip)) is not None:
            raise InvalidRequest(f"skip: {why}")
        if self.global_batch < 1:
            raise InvalidRequest(f"a batch of {self.global_batch} rows: must be at least 1")
        if self.world_size < 1:
            raise InvalidRequest(f"world_size={self.world_size}: must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise InvalidRequest(
                f"rank={self.rank} of world_size={self.world_size}: ranks are 0 to {self.world_size - 1}"
            )
        if self.last not in ("short", "drop", "pad", "wrap"):
            raise InvalidRequest(f"last={self.last!r}: allowed are 'short', 'drop', 'pad' and 'wrap'")
        if self.global_batch % self.world_size:
            below = self.global_batch // self.world_size * self.world_size
            near = [n for n in (below, below + self.world_size) if n]
            raise InvalidRequest(
                f"global_batch_size={self.global_batch} cannot be split evenly over world_size={self.world_size}; "
                f"the nearest sizes that can: {' and '.join(map(str, near))}"
            )

    @property
    def rows(self) -> int:
        """Rows of this rank in a full step."""
        return self.global_batch // self.world_size

    def full_steps(self, taken: int, steps: int) -> I64:
        """Units of this rank in `steps` full steps that begin after `taken` units, [steps * rows]."""
        begin = taken + self.rank * self.rows
        first_of_step = begin + np.arange(steps, dtype=np.int64) * self.global_batch
        return (first_of_step[:, None] + np.arange(self.rows, dtype=np.int64)).ravel()

    def steps_of(self, units: int) -> int:
        """Steps of an epoch of `units` units."""
        return units // self.global_batch if self.last == "drop" else -(-units // self.global_batch)

    def last_step(self, left: int, epoch_units: int) -> LastStep | None:
        """The step made of `left` units (0 < left < global_batch) of an epoch of `epoch_units`; None if dropped."""
        if self.last == "drop":
            return None
        if self.last == "wrap":
            mine = np.arange(self.rank * self.rows, (self.rank + 1) * self.rows, dtype=np.int64)
            again = left + (mine - left) % epoch_units
            return LastStep(np.where(mine < left, mine, again), None, 0, self.global_batch - left)
        start, stop = left * self.rank // self.world_size, left * (self.rank + 1) // self.world_size
        mine = np.arange(start, stop, dtype=np.int64)
        if self.last == "short" and left >= self.world_size:
            return LastStep(mine, None, 0, 0)
        rows = self.rows if self.last == "pad" else 1
        filling = np.arange(rows - len(mine), dtype=np.int64) % left
        padded = rows * self.world_size - left
        return LastStep(np.concatenate([mine, filling]), len(mine), padded, 0)
