"""The schedule of each epoch: the same for all of them, until the run's journal changes the mixture."""

from collections.abc import Sequence

from penstock_service.core.journal import Place
from penstock_service.core.plan import PlanConstants, Until
from penstock_service.mix.schedule import Change, Schedule


class Epochs:
    """Schedules by epoch; those that are equal are one. May be asked from several threads.

    Args:
        mixtures: integer weights of all sources and the place from which they hold, ascending. They hold for what is
            left of that epoch and for all later ones.
        others: as for `Schedule`.
    """

    def __init__(
        self,
        rows: Sequence[int],
        weights: Sequence[int],
        plan: PlanConstants,
        until: Until = "all",
        epoch_rows: int | None = None,
        mixtures: Sequence[tuple[Place, tuple[int, ...]]] = (),
    ) -> None:
        self._rows = tuple(rows)
        self._plan, self._until, self._epoch_rows = plan, until, epoch_rows
        self._weights = [tuple(weights), *(w for _, w in mixtures)]
        self._places = [place for place, _ in mixtures]
        self._made: dict[tuple[int, int], Schedule] = {}
        self.of(0)  # a stream without rows is refused when it is made

    def of(self, epoch: int) -> Schedule:
        begins = sum(place <= Place(epoch, 0) for place in self._places)
        ends = sum(place.epoch <= epoch for place in self._places)
        if (begins, ends) not in self._made:
            changes = [Change(self._places[i].segment, self._weights[i + 1]) for i in range(begins, ends)]
            self._made[begins, ends] = Schedule(
                self._rows, self._weights[begins], self._plan, self._until, self._epoch_rows, changes
            )
        return self._made[begins, ends]
