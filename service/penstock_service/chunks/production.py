"""Production: the chunks that are not there are made, once, however many wait for them. Lives on the event loop."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from penstock_service.chunks.agenda import Agenda, Unit
from penstock_service.chunks.ahead import Ahead
from penstock_service.chunks.executor import Executor
from penstock_service.chunks.flights import Flights, Waiter
from penstock_service.chunks.job import Ended, Event, Made, Skipped, UnitJob
from penstock_service.chunks.keys import Owner, UnitId, VersionKeys
from penstock_service.chunks.places import Places, gave_up, resting
from penstock_service.chunks.remembered import Remembered
from penstock_service.chunks.shelf import Entry
from penstock_service.chunks.store import Store
from penstock_service.chunks.stragglers import Pace
from penstock_service.chunks.usage import Usage
from penstock_service.core.breaker import Limits
from penstock_service.core.channel import Bound, Counters, Occupancy
from penstock_service.core.errors import (
    OrderChanged,
    ServiceError,
    SourceChanged,
    SourceGone,
    SourceUnreadable,
    Unavailable,
)
from penstock_service.core.retry import Retry
from penstock_service.core.uri import place_of

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 512  # chunks demanded before the loop gets its turn
_LOOK_SECONDS: Final = 0.25  # between looks for tasks that are late
_FAILURE_SECONDS: Final = 30.0  # how long a failure is remembered that is not retryable


class Production:
    """Between those who wait and the workers: demand, hints, retries, failures."""

    def __init__(
        self,
        store: Store,
        executor: Executor,
        read_ahead: Bound,
        counters: Counters,
        remembered: Remembered,
        usage: Usage,
        versions: Mapping[Owner, VersionKeys],
        retry: Retry,
        draw: Callable[[], float],
        breaker: Limits,
    ) -> None:
        self.agenda: Final = Agenda(read_ahead, executor.workers)
        self.flights: Final = Flights()
        self._store = store
        self._executor = executor
        self._counters = counters
        self._remembered = remembered
        self._usage = usage
        self.ahead: Final = Ahead(store, usage, self._begin_ahead)
        self._retry = retry
        self._draw = draw
        self.places: Final = Places(breaker)
        self._versions = versions
        self._failures: dict[UnitId, tuple[ServiceError, float]] = {}
        self.busy: Final = Occupancy()  # workers
        self.starved: Final = Occupancy()  # chunks that somebody waits for
        self._pace = Pace()
        self._looking: asyncio.TimerHandle | None = None
        self._jobs: set[UnitJob] = set()
        self._resting: dict[UnitId, asyncio.TimerHandle] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()

    def stop(self) -> None:
        """Whoever waits gets `Unavailable`; workers stop at the next chunk. What they still say is heard."""
        self._stopping = True
        for job in self._jobs:
            job.stopping = True
        self.flights.fail_all(Unavailable("the server is stopping"))
        for handle in self._resting.values():
            handle.cancel()
        self._resting.clear()
        if self._looking is not None:
            self._looking.cancel()

    def resize(self, workers: int) -> None:
        """So many are there now."""
        self.agenda.resize(workers)
        self._dispatch()

    def measure(self) -> None:
        """Brings `busy` and `starved` up to now."""
        now = self._running().time()
        self.busy.change(now, min(self.agenda.running, self.agenda.workers))
        self.starved.change(now, len(self.flights))

    async def wait_for(self, version: VersionKeys, chunks: Mapping[str, int], arrived: Callable[[Entry], None]) -> None:
        """Have `chunks` (by key) made; `arrived` gets each, and pins what it keeps. Raises what fails first."""
        waiter = Waiter(chunks, arrived)
        try:
            for n, (key, chunk) in enumerate(chunks.items(), 1):
                self._demand(version, chunk, key, waiter)
                if n % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._dispatch()
            await waiter.done
        except BaseException:
            waiter.cancel()
            for flight in self.flights.leave(waiter):
                self.agenda.withdraw(flight.version.unit(flight.chunk), flight.chunk)
            self.measure()
            raise

    def hint(self, version: VersionKeys, chunks: Sequence[int]) -> None:
        """Their keys are known."""
        for behind, chunk in enumerate(chunks, 1 - len(chunks)):
            if self._store.rack.has(version.known[chunk]) or self._failed(unit := version.unit(chunk)):
                continue
            if not self.agenda.hint(unit, chunk, int(version.bytes[chunk])):
                self.agenda.hints_forgotten -= behind  # there is no room for those behind it either
                break
        self._dispatch()

    def _begin_ahead(self, gone: Owner | None) -> None:
        """There is more to be made ahead; or nothing any more of a dataset version."""
        if gone is not None:
            self.agenda.drop_spares(gone)
        self._dispatch()

    def making(self) -> list[tuple[UnitJob, int]]:
        """What workers were given, and the bytes that are reserved for it."""
        return [(job, job.unit.amount) for job in self._jobs]

    # -- inside --------------------------------------------------------------------------------------------------

    def _demand(self, version: VersionKeys, chunk: int, key: str, waiter: Waiter) -> None:
        unit = version.unit(chunk)
        if self._stopping:
            waiter.failed(Unavailable("the server is stopping"))
        elif error := self._failed(unit):
            waiter.failed(error)
        elif self.flights.join(version, chunk, key, waiter):
            self.agenda.demand(unit, chunk, int(version.bytes[chunk]))

    def _failed(self, unit: UnitId) -> ServiceError | None:
        """How it failed before, where another try would only repeat that. Files are looked at again: it is cheap."""
        error = self._last_failure(unit)
        return None if isinstance(error, SourceChanged) else error

    def _last_failure(self, unit: UnitId) -> ServiceError | None:
        error, until = self._failures.get(unit, (None, 0.0))
        return error if self._running().time() < until else None

    def _dispatch(self) -> None:
        if not self._stopping:
            self._begin_late_ones_again(self._running().time(), self._pace.late_after)
        while not self._stopping and (unit := self._next(now := self._running().time())):
            version = self._versions[unit.id[0]]
            ticket = self.places.breaker(version.dataset.root).admit(now)
            if ticket is None:
                self._hold_back(version, unit, now)
            else:
                self._submit(version, unit, ticket)
        if not self._stopping and self.agenda.running < self.agenda.workers:
            self._begin_late_ones_again(self._running().time(), self._pace.late_when_idle)
        self.measure()
        if self._jobs and self._looking is None and not self._stopping:
            self._looking = self._running().call_later(_LOOK_SECONDS, self._look)

    def _submit(self, version: VersionKeys, unit: Unit, ticket: int) -> UnitJob:
        job = UnitJob(version, unit, self._store, self._tell, lambda: self.agenda.pressed)
        job.ticket = ticket
        self._jobs.add(job)
        self._executor.submit(job)
        return job

    def _look(self) -> None:
        self._looking = None
        self._dispatch()

    def _begin_late_ones_again(self, now: float, late_after: float) -> None:
        """Tasks that somebody waits for and that take much longer than usual: another worker begins them too."""
        for job in [j for j in self._jobs if j.may_have_twin]:
            since = job.silent_since
            if since is None or now - since < late_after:
                continue
            again = self.agenda.again(job.unit)
            if again is None:
                return  # no worker is free
            ticket = self.places.breaker(job.version.dataset.root).admit(now)
            if ticket is None:
                self.agenda.again_ended(again)
                continue
            job.twin = self._submit(job.version, job.unit, ticket)
            job.twin.twin, job.again, job.twin.again = job, again, again
            self._counters.add("begun_again")
            logger.info(
                "%s takes %.1f s: another worker makes it too, the first to end is taken",
                *(job.version.describe(min(job.unit.demanded)), now - since),
            )

    def _next(self, now: float) -> Unit | None:
        unit = self.agenda.next(now)
        if unit is None and self.agenda.idle and (some := self.ahead.next()):
            self.agenda.spare(some.unit, some.sizes, some.want)
            unit = self.agenda.next(now)
        return unit

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise Unavailable("the server has not started yet")
        return self._loop

    def _tell(self, job: UnitJob, event: Event) -> None:
        """Called by workers."""
        with suppress(RuntimeError):  # the loop is closed: a worker that was left behind has nobody left to tell
            self._running().call_soon_threadsafe(self._heard, job, event)

    def _heard(self, job: UnitJob, event: Event) -> None:
        match event:
            case Made():
                self._keep_pace(job, event)
                self._made(job, event)
            case Skipped():
                self.agenda.passed(job.unit, event.chunk, made=False)
                if not self._store.rack.has(job.version.known[event.chunk]):  # else its twin has made it
                    self.ahead.no_room(job.version.owner, event.chunk)
            case Ended():
                self._ended(job, event)
        self._dispatch()

    def _keep_pace(self, job: UnitJob, event: Made) -> None:
        now = self._running().time()
        if not event.found and (since := job.silent_since) is not None:
            self._pace.took(now - since)
        job.heard = now

    def _made(self, job: UnitJob, event: Made) -> None:
        self.agenda.passed(job.unit, event.chunk, made=True)
        self.ahead.made(job.version.owner, event.chunk, event.entry.size, new=not event.found)
        if not event.found:
            self._counters.add("made")
            self._usage.made(job.version, event.chunk, event.entry, event.ahead)
        try:
            self._remembered.learn(event.entry, partial(job.version.describe, event.chunk))
            self.flights.landed(event.entry)
        except OrderChanged as changed:
            self.flights.failed([event.entry.key], changed)
        finally:
            self._store.rack.release([event.entry])

    def _ended(self, job: UnitJob, event: Ended) -> None:
        self._jobs.discard(job)
        self._counters.add("making_seconds", event.seconds)
        now, error, unit = self._running().time(), event.error, job.unit
        alone = self._part(job, failed=error is not None)
        if alone:
            self.agenda.ended(unit)
        else:
            self.agenda.again_ended(job.again)
        if self._stopping:
            return
        if error is not None and alone:
            self.ahead.failed(job.version.owner, list(unit.spared), error)
        for rested in self.places.ended(job.version.dataset.root, job.ticket, now, error, job.reads):
            self._resting[rested.id].cancel()
            self._rested(rested)
        if error is None or not alone:
            return
        unit.failing_since = since = now if unit.failing_since is None else unit.failing_since
        # A file that is not there may be back in a moment: a network file system that lags behind, a slow rename.
        # One that was waited for in vain just now is looked for once.
        lags = isinstance(error, SourceGone) and not isinstance(self._last_failure(unit.id), SourceGone)
        again = error.retryable or lags
        delay = self._retry.delay(unit.attempt, self._draw(), now - since) if again else None
        if delay is None:
            if isinstance(error, SourceUnreadable):
                error = gave_up(error, unit.attempt + 1, now - since)
            self._give_up(job.version, unit, error)
        else:
            logger.warning("tried again in %.1f s: %s", delay, error)
            self._counters.add("retried")
            self.agenda.rest(unit)
            self._resting[unit.id] = self._running().call_later(delay, self._rested, unit)

    def _part(self, job: UnitJob, *, failed: bool) -> bool:
        """Does what this job says count for its unit? Of two, that of the first to succeed does, else of the last."""
        twin = job.twin
        if twin is None:
            return not job.superseded
        job.twin = twin.twin = None
        if failed:
            twin.last = True  # else two that fail by turns go on for ever
        else:
            twin.superseded = twin.stopping = True
        return not failed

    def _hold_back(self, version: VersionKeys, unit: Unit, now: float) -> None:
        """The unit's place is broken: it rests, and burns no retries. One that has waited long enough fails."""
        root = version.dataset.root
        breaker = self.places.breaker(root)
        self.agenda.ended(unit)
        if unit.spared:
            self.ahead.failed(version.owner, list(unit.spared), Unavailable(f"{place_of(root)} does not answer"))
        unit.failing_since = now if unit.failing_since is None else unit.failing_since
        since = min(unit.failing_since, now if breaker.broken_since is None else breaker.broken_since)
        if now - since < self._retry.deadline_seconds:
            self.agenda.rest(unit, failed=False)
            self.places.rests(root, unit)
            wait = min(breaker.wait(now), self._retry.deadline_seconds - (now - since))
            self._resting[unit.id] = self._running().call_later(wait, self._rested, unit)
        else:
            self._give_up(
                version, unit, resting(place_of(root), breaker, now - since, partial(version.describe, unit.id[1]))
            )

    def _rested(self, unit: Unit) -> None:
        del self._resting[unit.id]
        self.places.rested(self._versions[unit.id[0]].dataset.root, unit)
        self.agenda.wake(unit)
        self._dispatch()

    def _give_up(self, version: VersionKeys, unit: Unit, error: ServiceError) -> None:
        self._counters.add("failed")
        now = self._running().time()
        self._failures = {unit: kept for unit, kept in self._failures.items() if kept[1] > now}
        if not error.retryable:
            self._failures[unit.id] = (error, now + _FAILURE_SECONDS)
        keys = version.keys(self.agenda.fail(unit))
        self._remembered.doubt(keys)
        self.flights.failed(keys, error)
