"""Workers and look-ahead, tuned once a second from what was measured, unless they are pinned. `core.tuning` decides."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import psutil

from penstock_service.chunks.chunks import Chunks
from penstock_service.chunks.numbers import ChunkNumbers
from penstock_service.config import MOST_WORKERS, GiB, MiB, Settings
from penstock_service.config.machine import container_cpus, usable_cpus
from penstock_service.core.errors import ServiceError
from penstock_service.core.status import WorkerDecision, WorkersStatus
from penstock_service.core.tuning import Decision, Limits, Measured, Tuning

_EVERY: Final = 1.0  # seconds
_KEPT: Final = 100  # decisions
_FIRST_READ_AHEAD: Final = 512 * MiB
_LEAST_READ_AHEAD: Final = 64 * MiB
_MOST_FOR_A_CPU: Final = 4  # workers, where reads wait for a network

_log = logging.getLogger(__name__)


class Tuner:
    """start, stop; `status` may be asked at any time between. Belongs to the event loop."""

    def __init__(self, tuning: Tuning, chunks: Chunks, kind: str, memory: Callable[[], float]) -> None:
        """`memory`: which share of what the server may hold it does hold."""
        self._tuning = tuning
        self._chunks = chunks
        self._kind = kind
        self._memory = memory
        self._decisions: deque[WorkerDecision] = deque(maxlen=_KEPT)
        self.decided = {"workers": 0, "read-ahead": 0}
        self._seen: tuple[float, ChunkNumbers] | None = None
        self._measured: Measured | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def status(self) -> WorkersStatus:
        numbers, limits, measured = self._chunks.numbers(), self._tuning.limits, self._measured
        return WorkersStatus(
            workers=numbers.workers,
            kind=self._kind,
            workers_pinned=limits.workers_pinned,
            least_workers=min(limits.least_workers, self._tuning.workers),
            most_workers=limits.most_workers,
            cpus=limits.cpus,
            read_ahead_bytes=numbers.read_ahead.limit,
            read_ahead_pinned=limits.read_ahead_pinned,
            busy=measured.busy if measured else 0.0,
            starved=measured.starved if measured else 0.0,
            free_cpus=measured.free_cpus if measured else 0.0,
            queued=numbers.queued,
            restarted=numbers.workers_restarted,
            begun_again=numbers.begun_again,
            decisions=tuple(self._decisions),
        )

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        _free_cpus()  # counts from here
        while True:
            try:
                await self._look(loop.time())
            except Exception as error:  # noqa: BLE001 - no file or thread is left, say: the next look may do
                _log.warning("waits could not be measured, which is tried again: %r", error)
            await asyncio.sleep(_EVERY)

    async def _look(self, now: float) -> None:
        numbers = self._chunks.numbers()
        if self._seen is not None:
            self._measured = _measured(*self._seen, now, numbers, self._memory())
            for decision in self._tuning.observe(now, self._measured):
                self._tell(decision)
                await self._carry_out(decision)
        self._seen = (now, self._chunks.numbers())

    async def _carry_out(self, decision: Decision) -> None:
        if decision.what == "read-ahead":
            self._chunks.look_ahead(decision.after)
            return
        try:
            await self._chunks.resize(decision.after)
        except ServiceError as error:
            there = self._chunks.numbers().workers
            _log.warning("there are %d workers, not %d: %s", there, decision.after, error)
            self._tuning.refused(asyncio.get_running_loop().time(), there)

    def _tell(self, decision: Decision) -> None:
        what = decision.what
        self.decided[what] += 1
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self._decisions.append(WorkerDecision(when, what, decision.before, decision.after, decision.reason))
        if what == "workers":
            _log.info("workers: %d, were %d: %s", decision.after, decision.before, decision.reason)
        else:
            mib = decision.after // MiB, decision.before // MiB
            _log.info("read-ahead: %d MiB, was %d MiB: %s", *mib, decision.reason)


def tuning_for(settings: Settings) -> Tuning:
    """Where the server begins, and within which limits it decides."""
    cpus = usable_cpus(container_cpus())
    pinned, pinned_ahead = settings.workers, settings.read_ahead_bytes
    limits = Limits(
        cpus=cpus,
        most_workers=min(MOST_WORKERS, max(8, _MOST_FOR_A_CPU * cpus)) if pinned == "auto" else pinned,
        least_read_ahead=_LEAST_READ_AHEAD,
        most_read_ahead=max(_FIRST_READ_AHEAD, min(4 * GiB, settings.store_bytes // 4)),
        workers_pinned=pinned != "auto",
        read_ahead_pinned=pinned_ahead != "auto",
    )
    return Tuning(
        limits,
        cpus if pinned == "auto" else pinned,
        _FIRST_READ_AHEAD if pinned_ahead == "auto" else pinned_ahead,
    )


def _measured(before: float, then: ChunkNumbers, now: float, numbers: ChunkNumbers, memory: float) -> Measured:
    seconds = max(1e-3, now - before)
    return Measured(
        seconds=seconds,
        starved=min(1.0, (numbers.starved_seconds - then.starved_seconds) / seconds),
        busy=(numbers.busy_seconds - then.busy_seconds) / seconds,
        made=numbers.made - then.made,
        forgotten=numbers.hints_forgotten - then.hints_forgotten,
        held_back=min(1.0, (numbers.held_back_seconds - then.held_back_seconds) / seconds),
        free_cpus=_free_cpus(),
        memory=memory,
    )


def _free_cpus() -> float:
    """CPUs of the machine that nobody used since the last call."""
    return sum(100.0 - used for used in psutil.cpu_percent(percpu=True)) / 100.0
