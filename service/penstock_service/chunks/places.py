"""The places that chunks are read from: a circuit breaker for each, and the units that rest because of it."""

from collections.abc import Callable

from penstock_service.chunks.agenda import Unit
from penstock_service.core.breaker import Breaker, Limits
from penstock_service.core.errors import DataError, ServiceError, SourceChanged, SourceUnreadable
from penstock_service.core.status import PlaceStatus
from penstock_service.core.uri import place_of


class Places:
    """Lives on the event loop; time is passed in."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._breakers: dict[str, Breaker] = {}
        self._resting: dict[str, dict[object, Unit]] = {}

    def breaker(self, root: str) -> Breaker:
        return self._breakers.setdefault(place_of(root), Breaker(self._limits))

    def ended(self, root: str, ticket: int, now: float, error: ServiceError | None, read: bool) -> list[Unit]:
        """An attempt ended; `read`: it went to the place at all. The units that need rest no longer."""
        breaker = self.breaker(root)
        if isinstance(error, SourceUnreadable):
            breaker.failed(ticket, now, str(error))
        elif read and (error is None or isinstance(error, (DataError, SourceChanged))):  # the place has answered
            breaker.succeeded()
            return list(self._resting.pop(place_of(root), {}).values())
        else:
            breaker.unknown(ticket)
        return []

    def rests(self, root: str, unit: Unit) -> None:
        self._resting.setdefault(place_of(root), {})[unit.id] = unit

    def rested(self, root: str, unit: Unit) -> None:
        self._resting.get(place_of(root), {}).pop(unit.id, None)

    def statuses(self, now: float) -> list[PlaceStatus]:
        return [
            PlaceStatus(
                place=place,
                state=(state := breaker.state(now)),
                failures=breaker.failures,
                retry_in_seconds=breaker.wait(now) if state == "open" else 0.0,
                error=breaker.error,
            )
            for place, breaker in sorted(self._breakers.items())
        ]


def gave_up(error: SourceUnreadable, tries: int, seconds: float) -> SourceUnreadable:
    """The error, with how often it was tried."""
    return SourceUnreadable(f"{error} ({tries} tries in {seconds:.1f} s)") if tries > 1 else error


def resting(place: str, breaker: Breaker, seconds: float, describe: Callable[[], str]) -> SourceUnreadable:
    return SourceUnreadable(
        f"{describe()} was not read: {place} has failed {breaker.failures} times in a row and is tried again only now "
        f"and then, for {seconds:.0f} s so far. The last error: {breaker.error}"
    )
