"""What is to be made, and in which order: demands first come, first served, then hints. Pure: events in, units out.

A unit is what one reading gives; it is queued, running or resting (a retry waits), never twice. A hint is taken only
while there is room for it in the look-ahead, and forgotten otherwise: nobody waits for it, and whoever needs the chunk
in the end will demand it.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Literal

from penstock_service.chunks.keys import Owner, UnitId
from penstock_service.core.channel import Bound


@dataclass(slots=True, eq=False)
class Unit:
    """Chunks of one unit that somebody wants and nobody has made yet, with their estimated bytes."""

    id: UnitId
    demanded: dict[int, int] = field(default_factory=dict)
    hinted: dict[int, int] = field(default_factory=dict)
    state: Literal["queued", "running", "resting"] = "queued"
    attempt: int = 0  # failed ones
    failing_since: float | None = None  # when the first of them failed, or the unit first had to rest
    amount: int = 0  # in the bound
    left: dict[int, int] = field(default_factory=dict)  # of what was dispatched: what the amount stands for
    left_bytes: int = 0


class Agenda:
    """Bookkeeping of the loop's side; whoever runs it calls `next` while workers are free."""

    def __init__(self, bound: Bound, workers: int) -> None:
        self.bound = bound
        self.running = 0
        self.resize(workers)
        self.hints_forgotten = 0
        self._units: dict[UnitId, Unit] = {}
        self._demands: OrderedDict[UnitId, Unit] = OrderedDict()
        self._hints: OrderedDict[UnitId, Unit] = OrderedDict()
        self._hinted_bytes = 0  # of units that are not running
        self._held_since: float | None = None

    def resize(self, workers: int) -> None:
        self.workers = workers
        # A worker that is through finds the next demand waiting, however busy the loop is. Not so the next hint: a
        # demand that comes meanwhile should not have to wait for two.
        self._places = 2 * workers

    @property
    def queued(self) -> int:
        """Units that somebody waits for and that no worker has been given."""
        return len(self._demands)

    def demand(self, unit_id: UnitId, chunk: int, size: int) -> None:
        unit = self._unit(unit_id)
        self._drop_hint(unit, chunk)
        unit.demanded[chunk] = size
        if unit.state == "queued":
            self._hints.pop(unit_id, None)
            self._demands.setdefault(unit_id, unit)

    def hint(self, unit_id: UnitId, chunk: int, size: int) -> bool:
        """Was it taken, or is it on its way already?"""
        unit = self._units.get(unit_id)
        if unit and (chunk in unit.demanded or chunk in unit.hinted):
            return True
        ahead = self._hinted_bytes + self.bound.used
        if ahead and ahead + size > self.bound.limit:
            self.hints_forgotten += 1
            return False
        unit = self._unit(unit_id)
        unit.hinted[chunk] = size
        if unit.state != "running":
            self._hinted_bytes += size
        if unit.state == "queued" and unit_id not in self._demands:
            self._hints.setdefault(unit_id, unit)
        return True

    def withdraw(self, unit_id: UnitId, chunk: int) -> None:
        """Nobody waits for this chunk any more."""
        unit = self._units.get(unit_id)
        if unit and unit.demanded.pop(chunk, None) is not None and unit.state == "queued" and not unit.demanded:
            self._demands.pop(unit_id, None)
            self._queue_or_drop(unit)

    def forget(self, owner: Owner) -> None:
        """Nobody uses this dataset version any more: its hints go."""
        for unit in [u for u in self._units.values() if u.id[0] == owner]:
            for chunk in list(unit.hinted):
                self._drop_hint(unit, chunk)
            if unit.state == "queued" and not unit.demanded:
                self._hints.pop(unit.id, None)
                self._queue_or_drop(unit)

    def next(self, now: float) -> Unit | None:
        """The unit to be dispatched now, or None: nothing is wanted, no worker is free, or the bound holds it back."""
        unit = next(iter(self._demands.values()), None) if self.running < self._places else None
        if unit is None and not self._demands and self.running < self.workers:
            unit = next(iter(self._hints.values()), None)
        if unit is None:
            self._held_since = None
            return None
        sizes = unit.hinted | unit.demanded
        # A worker holds one chunk at a time, or a unit as a whole, which the estimate cannot tell; a unit larger than a
        # worker's share counts as the share, so that one big unit does not idle all the other workers.
        amount = max(*sizes.values(), 0, min(sum(sizes.values()), self.bound.limit // self._places))
        if not self.bound.admits(amount):
            if self._held_since is None and self.running < self.workers:
                self._held_since = now
            return None
        if self._held_since is not None:
            self.bound.wait_seconds += now - self._held_since
            self._held_since = None
        self._demands.pop(unit.id, None)
        self._hints.pop(unit.id, None)
        self._hinted_bytes -= sum(unit.hinted.values())
        self.bound.enter(amount)
        unit.state, unit.amount, unit.left, unit.left_bytes = "running", amount, sizes, sum(sizes.values())
        self.running += 1
        return unit

    def again(self, unit: Unit) -> int | None:
        """A running unit is begun once more, on another worker; None if there is none for it, else what it enters into
        the bound. `again_ended` undoes it."""
        amount = max(unit.left.values(), default=0)
        if self.running >= self._places or not self.bound.admits(amount):
            return None
        self.bound.enter(amount)
        self.running += 1
        return amount

    def again_ended(self, amount: int) -> None:
        self.bound.leave(amount)
        self.running -= 1

    def passed(self, unit: Unit, chunk: int, *, made: bool) -> None:
        """A running unit's worker is through with this chunk: it is there, or was skipped because nobody wanted it."""
        if made:
            unit.demanded.pop(chunk, None)
            unit.attempt, unit.failing_since = 0, None
        unit.hinted.pop(chunk, None)
        unit.left_bytes -= unit.left.pop(chunk, 0)
        self._shrink(unit, min(unit.amount, unit.left_bytes))

    def ended(self, unit: Unit) -> None:
        """Its worker is free again. What is still wanted of it is queued once more; see also `rest` and `fail`."""
        self.running -= 1
        self._shrink(unit, 0)
        unit.state, unit.left = "queued", {}
        self._hinted_bytes += sum(unit.hinted.values())
        self._queue_or_drop(unit)

    def rest(self, unit: Unit, *, failed: bool = True) -> None:
        """It failed (or could not begin), and is tried again after `wake`. Its hints go: only what is waited for is
        worth another try."""
        self._unqueue(unit)
        self._units[unit.id] = unit
        unit.state = "resting"
        unit.attempt += failed

    def wake(self, unit: Unit) -> None:
        unit.state = "queued"
        self._queue_or_drop(unit)

    def fail(self, unit: Unit) -> list[int]:
        """It failed for good. The chunks that were waited for."""
        self._unqueue(unit)
        self._drop(unit)
        return list(unit.demanded)

    def _unit(self, unit_id: UnitId) -> Unit:
        return self._units.setdefault(unit_id, Unit(unit_id))

    def _drop_hint(self, unit: Unit, chunk: int) -> None:
        size = unit.hinted.pop(chunk, 0)
        if unit.state != "running":
            self._hinted_bytes -= size

    def _unqueue(self, unit: Unit) -> None:
        self._demands.pop(unit.id, None)
        self._hints.pop(unit.id, None)
        for chunk in list(unit.hinted):
            self._drop_hint(unit, chunk)

    def _queue_or_drop(self, unit: Unit) -> None:
        if unit.demanded:
            self._units[unit.id] = self._demands[unit.id] = unit
        elif unit.hinted:
            self._units[unit.id] = self._hints[unit.id] = unit
        else:
            self._drop(unit)

    def _drop(self, unit: Unit) -> None:
        if self._units.get(unit.id) is unit:
            del self._units[unit.id]

    def _shrink(self, unit: Unit, amount: int) -> None:
        self.bound.leave(unit.amount - amount)
        unit.amount = amount
