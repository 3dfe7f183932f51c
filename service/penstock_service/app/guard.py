"""Keeps the server's memory inside `--memory`: looks at it, and gives things up in the order of `core.budget`."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa

from penstock_proto.v1 import data_pb2 as pb
from penstock_service.admin.tables import readable_bytes
from penstock_service.app import memory_report
from penstock_service.app.census import Census, measured
from penstock_service.app.mixers import Mixers
from penstock_service.chunks.chunks import Chunks
from penstock_service.config import Settings
from penstock_service.config.load import SettingsError
from penstock_service.core.budget import SHARES, SLACK, Ladder, LookAhead, Rung
from penstock_service.core.errors import ResourceExhausted
from penstock_service.core.holding import Holding, MemoryStatus, by_stage
from penstock_service.deliver.data import DataService
from penstock_service.mix.stream import Stream

EXIT_CODE: Final = 4
_SELDOM: Final = 1.0  # seconds between looks
_OFTEN: Final = 0.25  # under pressure
_POOL_ROW_BYTES: Final = 24  # what a row costs that waits in a pool, with its segments
_NAMED: Final = 3  # stages in a message

_log = logging.getLogger(__name__)


async def guarding(
    settings: Settings, most: int, parts: tuple[Chunks, Mixers, DataService], ended: Callable[[str], object]
) -> "MemoryGuard":
    """The guard of `--memory`. After a stop at the limit it begins with half the look-ahead.

    Args:
        most: bytes that may be made ahead while memory is not short.

    Raises:
        SettingsError: the limit is below what Python and libraries hold.
    """
    left = await asyncio.to_thread(memory_report.read_ahead_after, settings.state_dir)
    if left is not None and left[0] < most:
        _log.warning(
            "the memory limit ended the last run (%s; %s says who held what): this one begins with half the "
            "look-ahead, %s instead of %s, as long as it runs",
            *(left[1], settings.state_dir / memory_report.NAME),
            *(readable_bytes(left[0]), readable_bytes(parts[0].ahead_wanted)),
        )
        most = left[0]
    look_ahead = LookAhead(most, settings.chunk_bytes)
    guard = MemoryGuard(settings.memory, look_ahead, settings.stalled_after, settings.state_dir, parts, ended)
    if guard.interpreter > (saves := settings.memory * SHARES[Rung.LESS_AHEAD]):
        raise SettingsError(
            f"memory = {readable_bytes(settings.memory)} is too little: Python and libraries alone hold "
            f"{readable_bytes(guard.interpreter)}, and from {readable_bytes(saves)} on the server saves; give it "
            "256MiB or more"
        )
    return guard


class MemoryGuard:
    """start, stop. `ended` is called once, with the reason, when the limit ends the server."""

    def __init__(
        self,
        limit: int,
        look_ahead: LookAhead,
        stalled_after: float,
        state_dir: Path,
        parts: tuple[Chunks, Mixers, DataService],
        ended: Callable[[str], object],
    ) -> None:
        self._ladder = Ladder(limit)
        self._look_ahead = look_ahead
        self._stalled_after = stalled_after
        self._state_dir = state_dir
        self._chunks, self._mixers, self._data = parts
        self._ended = ended
        self._census = Census(*parts)
        self._task: asyncio.Task[None] | None = None
        self._allocations = 0  # Arrow's, when it last gave memory back
        self._chunks.cap_look_ahead(look_ahead.bytes)
        self._last = self.status()

    @property
    def interpreter(self) -> int:
        """Bytes that were held before anything was served."""
        return self._census.interpreter

    @property
    def share(self) -> float:
        """Of the limit, that was held at the last look."""
        return self._last.measured / self._last.limit

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def status(self) -> MemoryStatus:
        """Memory as it is now."""
        processes = self._census.processes()
        reserved = self._census.reserved(processes)
        total = measured(processes, reserved)
        unaccounted = Holding("unaccounted", max(0, total - sum(h.bytes for h in reserved)))
        return MemoryStatus(
            limit=self._ladder.limit,
            measured=total,
            rung=self._ladder.rung.words,
            read_ahead=min(self._look_ahead.bytes, self._chunks.ahead_wanted),
            read_ahead_most=min(self._look_ahead.most, self._chunks.ahead_wanted),
            holdings=(*reserved, unaccounted),
            processes=processes,
        )

    # -- who asks for more ----------------------------------------------------------------------------------------

    def room(self, request: pb.Open) -> None:
        """Raises ResourceExhausted where no new session may begin. One that comes back may: its trainer goes on."""
        if self._ladder.rung >= Rung.REFUSE and not request.reopened:
            raise ResourceExhausted(
                f"this server's memory is short, {_words(self._last)}: no new session begins now. End streams that "
                "are not used, use smaller pools (pool_rows) and windows (prefetch_bytes), or raise --memory"
            )

    def room_for(self, stream: Stream) -> None:
        """Raises ResourceExhausted where another order, with a pool of its own, would not fit."""
        size = min(stream.plan.pool_rows, sum(s.manifest.rows for s in stream.sources)) * _POOL_ROW_BYTES
        free = self._ladder.begins(Rung.REFUSE) - self._last.measured
        if stream.shuffle and not self._mixers.reads(stream) and size > free:
            raise ResourceExhausted(
                f"this stream needs a mixing pool of its own, about {readable_bytes(size)}, and "
                f"{readable_bytes(max(0, free))} are free ({_words(self._last)}): take the seed and pool of a stream "
                "that is read already, a smaller pool_rows, or raise --memory"
            )

    # -- looking --------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        while True:
            try:
                await self._give_back()
                if await self.look():
                    return
            except Exception as error:  # noqa: BLE001 - no file or thread is left, say: the limit holds all the same
                _log.warning("memory could not be looked at, which is tried again: %r", error)
            await asyncio.sleep(_SELDOM if self._ladder.rung is Rung.OK else _OFTEN)

    async def _give_back(self) -> None:
        """What was freed is Arrow's until it gives it back: by itself when the thread that freed it allocates again."""
        pool = pa.default_memory_pool()
        if (allocations := pool.num_allocations()) != self._allocations:
            self._allocations = allocations
            await asyncio.to_thread(pool.release_unused)

    async def look(self) -> bool:
        """Look once, and do what the rung asks for; True when it was the last time."""
        before, now = self._ladder.rung, time.monotonic()
        self._last = status = self.status()
        reserved = sum(h.bytes for h in status.holdings if h.stage != "unaccounted")
        rung = self._ladder.look(status.measured, reserved, now)
        self._last = status = replace(status, rung=rung.words)
        if rung is not before:
            _log.log(logging.INFO if rung < before else logging.WARNING, "memory, %s: %s", _words(status), rung.words)
        self._chunks.cap_look_ahead(self._look_ahead.look(rung, now))
        self._data.save(rung >= Rung.LESS_AHEAD)
        self._mixers.save(rung >= Rung.NO_SEGMENTS_AHEAD)
        if rung >= Rung.NO_SEGMENTS_AHEAD:
            kept = self._ladder.begins(Rung.NO_SEGMENTS_AHEAD) - SLACK * self._ladder.limit
            self._chunks.shed(int(max(status.measured, reserved) - kept))
        if rung >= Rung.REFUSE:
            self._put_off_stalled()
        if rung is Rung.STOP:
            await self._stop(status)
        return rung is Rung.STOP

    def _put_off_stalled(self) -> None:
        reason = (
            f"the server's memory is short, and this trainer took nothing for {self._stalled_after:g} s "
            "(--stalled-after): the stream goes on when the trainer does"
        )
        if ended := self._data.put_off_stalled(self._stalled_after, reason):
            _log.warning("memory is short: %d stalled sessions are put off: %s", len(ended), ", ".join(ended))

    async def _stop(self, status: MemoryStatus) -> None:
        reason = f"the server's memory is at its limit (--memory), {_words(status)}: it ends, to be started again"
        next_read_ahead = max(self._look_ahead.least, status.read_ahead_most // 2)
        _log.error("%s", reason)
        for holding in sorted(status.holdings, key=lambda h: -h.bytes)[:20]:
            whose = " ".join(filter(None, (holding.dataset, holding.session, f"{holding.process or ''}")))
            _log.error("held by %s: %s %s", holding.stage, readable_bytes(holding.bytes), whose)
        try:
            path = await asyncio.to_thread(
                partial(memory_report.write, self._state_dir, status, reason, next_read_ahead)
            )
            _log.error("all of it is in %s", path)
        except OSError as error:
            _log.error("no memory report could be written: %s", error)
        self._ended(reason)


def _words(status: MemoryStatus) -> str:
    most = sorted(by_stage(status.holdings).items(), key=lambda found: -found[1])[:_NAMED]
    held = ", ".join(f"{stage} {readable_bytes(size)}" for stage, size in most if size)
    return f"{readable_bytes(status.measured)} of {readable_bytes(status.limit)} held, most of it {held}"
