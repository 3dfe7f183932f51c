"""One session: credits in, bundles out. Whoever writes bytes to the wire is passed in.

The next bundle is made while the last one is being written, if there is credit for both; credit is spent when a bundle
goes, so what is made ahead is one bundle at most.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from penstock_proto.v1.credit import Ledger
from penstock_service.core.bodies import Bodies
from penstock_service.core.errors import ServiceError
from penstock_service.core.feed import Bundle, EpochEnd, Opening
from penstock_service.core.holding import Holding
from penstock_service.core.status import SessionState, SessionStatus
from penstock_service.deliver import messages
from penstock_service.deliver.carriers import Counting, GrpcMessages, SocketFrames, Write
from penstock_service.deliver.slots import Slot
from penstock_service.deliver.transport import NAMES, Transport
from penstock_service.deliver.wire import Wished, wire_of

PROOF_WITHIN: Final = 10.0  # seconds
FILLING_EVERY: Final = 0.5  # seconds between two words to a client that waits for rows
HEARTBEAT_EVERY: Final = 5.0  # seconds of silence after which the client is told that we live
RETRY_AFTER_MS: Final = 1000  # how long clients of a server that drains should hold
END_WITHIN: Final = 5.0  # seconds that a client has to take the bundle in hand and the reason

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What bounds a bundle."""

    bundle_bytes: int = 4 << 20
    bundle_steps: int = 512
    frame_bytes: int = 1 << 20


@dataclass
class Totals:
    """What all sessions sent since start."""

    rows: dict[str, int] = field(default_factory=dict)  # by dataset
    bytes: dict[str, int] = field(default_factory=dict)  # by transport
    steps: int = 0
    bundles: int = 0
    sessions: int = 0
    send_seconds: float = 0.0
    waits: dict[str, float] = field(default_factory=lambda: {"credit": 0.0, "rows": 0.0})
    errors: dict[str, int] = field(default_factory=dict)  # by code


@dataclass(frozen=True)
class Who:
    """Who opened the session."""

    session: str
    job: str
    name: str
    rank: int
    world_size: int
    replica: int
    client: str


class Session:
    """Sends the steps of one opening under credits until it is cancelled or told to drain."""

    def __init__(
        self,
        who: Who,
        opening: Opening,
        ledger: Ledger,
        limits: Limits,
        totals: Totals,
        write: Write,
        transport: Transport,
        target_rows_per_s: float = 0.0,
        bodies: Bodies | None = None,
        compression: Wished | None = None,
    ) -> None:
        """`transport`: as it is offered to the client; the session closes it.

        `bodies`: memory of bundles that are not in slots; None: some of its own. `compression`: of these; None: none.
        """
        self.who = who
        self._transport = transport
        self._making_into: Slot | None = None
        self._making_bytes = self._made_bytes = 0  # of the bundle in the making and of the one made, not in a slot
        self._target = target_rows_per_s
        self._opening = opening
        self._feed = opening.feed
        self._ledger = ledger
        self._limits = limits
        self._totals = totals
        self._write = Counting(write)
        self._bodies = bodies or Bodies()
        self._wire = wire_of(GrpcMessages(self._write), limits.frame_bytes, compression)
        self._credit_came = asyncio.Event()
        self._last_word: bytes | None = None  # what the client is told after the bundle in hand
        self.must_go = asyncio.Event()  # set when the session ends whether the client listens or not
        self._began = time.monotonic()
        self._state: SessionState = "filling"
        self._waited = {"credit": 0.0, "rows": 0.0}
        self._filling = (0, 0, "waiting for rows")
        self._done_steps = 0  # those whose credit came back
        self._epoch_ends: deque[int] = deque()  # steps sent before each end of an epoch that the user has not reached
        self._epoch, self._step = opening.cursor.epoch, opening.cursor.step
        self._taken = self._epoch, self._step  # where the trainer is, as it last said
        self._moved = self._client_moved = self._began
        self._sent_rows = self._sent_bytes = self._sent_steps = 0

    # -- events -------------------------------------------------------------------------------------------------

    def credit(self, steps: int, size: int, slots: Sequence[int] = ()) -> None:
        if self._transport.slots is not None:
            self._transport.slots.give_back(slots)
        self._ledger.grant(steps, size)
        self._client_moved = time.monotonic()
        self._done_steps += steps
        self._credit_came.set()

    def proof(self, nonce: bytes, reason: str, socket: bool = False) -> None:
        """What the client says of what it was offered: from here on it is known how bundles travel."""
        if (trouble := self._transport.prove(nonce, reason, socket)) is not None:
            _log.info("session %s: over %s: %s", self.who.session, NAMES[self._transport.name], trouble)

    def drain(self, reason: str) -> None:
        """Finish the bundle in hand, then tell the client to come back later."""
        self._end_with(messages.draining(RETRY_AFTER_MS, reason))

    def end(self, problem: ServiceError) -> None:
        """Finish the bundle in hand, then tell the client why nothing follows. One that does not listen (it may be
        stopped, with its network buffers full) learns it when it comes back."""
        self._end_with(messages.error(problem))
        asyncio.get_running_loop().call_later(END_WITHIN, self.must_go.set)

    def put_off(self, reason: str) -> bool:
        """Have the client come again when its trainer goes on; False: the session is ending already."""
        if self._last_word is not None:
            return False
        self.drain(reason)
        asyncio.get_running_loop().call_later(END_WITHIN, self.must_go.set)
        return True

    def stalled_for(self, now: float) -> float:
        """Seconds that the client has taken nothing and given nothing back, though rows are there for it."""
        return now - self._client_moved if self._state in ("waiting for credit", "sending") else 0.0

    def holdings(self) -> list[Holding]:
        named, session = "+".join(self._opening.datasets), self.who.session
        bundles = Holding("bundles", self._making_bytes + self._made_bytes, named, session)
        slots = self._transport.slots
        return [bundles, *([Holding("slots", slots.nbytes, named, session)] if slots is not None else [])]

    def spare(self) -> None:
        """Memory is short: give back what is kept to be used again."""
        if self._transport.slots is not None:
            self._transport.slots.spare()

    def started(self, start: str) -> None:
        """The trainer, which had only looked, takes its first step. Raises a ServiceError if it may not."""
        self._opening.started(start)

    def at(self, epoch: int, step: int) -> None:
        """The trainer gets this step next."""
        if self._taken != (epoch, step):
            self._taken, self._moved = (epoch, step), time.monotonic()

    def _end_with(self, word: bytes) -> None:
        if self._last_word is None:
            self._last_word = word
            self._credit_came.set()
            self._transport.stop_waiting()

    # -- the route ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send until drained or fenced; errors of the feed are the caller's to tell."""
        making: asyncio.Task[Bundle | EpochEnd] | None = None
        self._opening.listen(self._credit_came.set)
        try:
            await self._proven()
            while self._last_word is None:
                if making is None:
                    if not await self._credit_for(self._may_make):
                        break
                    making = self._make()
                made = await self._wait_for(making)
                if made is None:
                    break
                making, slot, self._making_bytes = None, self._take_slot(), 0
                if isinstance(made, EpochEnd):
                    self._epoch_ends.append(self._sent_steps)
                    await self._write(messages.epoch_end(made))
                    continue
                self._made_bytes = 0 if slot is not None else made.body.size
                if not await self._credit_for(partial(self._ledger.allows, made.body.size)):
                    break
                self._ledger.spend(made.steps, made.body.size)
                if self._may_make():
                    making = self._make()
                await self._send(made, slot)
                del made
                self._made_bytes = 0
            await self._tell_news()
            if self._last_word is not None:
                await self._write(self._last_word)
        finally:
            if making is not None:
                making.cancel()
                await asyncio.gather(making, return_exceptions=True)
            self._transport.close()

    async def _proven(self) -> None:
        """No payload before it is known how it travels."""
        try:
            async with asyncio.timeout(PROOF_WITHIN):
                await self._transport.settled()
        except TimeoutError:
            self.proof(b"", f"no proof came within {PROOF_WITHIN:g} s")
        if self._transport.name == "tcp" and self._transport.socket is not None:
            self._wire.carrier = SocketFrames(self._transport.socket)

    def _take_slot(self) -> int | None:
        """The slot that the bundle just made lies in; one that it did not need is free again."""
        slot, self._making_into = self._making_into, None
        if slot is None or self._transport.slots is None:
            return None
        if slot.used:
            return slot.index
        self._transport.slots.give_back([slot.index])
        return None

    def _may_make(self) -> bool:
        """There is credit, and the user is in this epoch or the one before: more look-ahead would mostly be wasted."""
        while self._epoch_ends and self._epoch_ends[0] <= self._done_steps:
            self._epoch_ends.popleft()
        return self._ledger.steps > 0 and len(self._epoch_ends) < 2

    def _make(self) -> "asyncio.Task[Bundle | EpochEnd]":
        steps = min(self._ledger.steps, self._limits.bundle_steps)
        if self._sent_steps == 0 and self._ledger.outstanding_steps == 0:
            steps = min(steps, 8)  # the first steps of a session leave early
        slots = self._transport.slots
        slot = self._making_into = slots.lease() if slots is not None else None
        memory = slot.memory if slot is not None else self._bodies
        most = self._limits.bundle_bytes
        if slot is not None and slots is not None:
            most = slots.bundle_bytes
        elif self._transport.name == "tcp":
            most = self._transport.bundle_bytes
        size = max(1, min(most, self._ledger.bytes))
        self._making_bytes = 0 if slot is not None else size
        return asyncio.get_running_loop().create_task(self._feed.next(steps, size, self._progress, memory))

    def _progress(self, rows: int, of: int, stage: str) -> None:
        self._filling = (rows, of, stage)

    async def _wait_for(self, making: "asyncio.Task[Bundle | EpochEnd]") -> Bundle | EpochEnd | None:
        """The next bundle; tells the client meanwhile what it waits for. None: the session ends first."""
        if not making.done():
            started = time.monotonic()
            self._state = "waiting for rows" if self._sent_steps else "filling"
            while not making.done() and self._last_word is None:
                await asyncio.wait({making}, timeout=FILLING_EVERY)
                await self._tell_news()
                if not making.done():
                    await self._write(messages.filling(*self._filling))
            self._note_wait("rows", time.monotonic() - started)
            if not making.done():
                return None
        self._state = "sending"
        return making.result()

    async def _credit_for(self, enough: Callable[[], bool]) -> bool:
        """Wait until there is credit enough; False: the session ends first."""
        if enough():
            return True
        started = time.monotonic()
        self._state = "waiting for credit"
        while not enough() and self._last_word is None:
            self._credit_came.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_EVERY):
                    await self._credit_came.wait()
            except TimeoutError:
                await self._write(messages.heartbeat(self._write.written))
            await self._tell_news()
        self._note_wait("credit", time.monotonic() - started)
        return enough()

    def _note_wait(self, what: str, seconds: float) -> None:
        self._waited[what] += seconds
        self._totals.waits[what] += seconds

    async def _send(self, bundle: Bundle, slot: int | None) -> None:
        started = time.monotonic()
        await self._tell_news()
        over = "shm" if slot is not None else "tcp" if self._transport.name == "tcp" else "grpc"
        await self._write(messages.bundle(bundle, slot, socket=over == "tcp"))
        if slot is None:
            await self._wire.send(bundle.body)
            self._bodies.give_back(bundle.body)
            if (decision := self._wire.take_decision()) is not None:
                _log.info("session %s: compression %s: %s", self.who.session, *decision)
                await self._write(messages.compression(decision))
        self._count(bundle, over, time.monotonic() - started)

    async def _tell_news(self) -> None:
        """Rows that a change of the journal made different must not reach a client that has not heard of it."""
        if (news := self._opening.news()) is not None:
            await self._write(messages.journal(news))

    def _count(self, bundle: Bundle, over: str, seconds: float) -> None:
        self._epoch, self._step = bundle.epoch, bundle.first_step + bundle.steps
        self._sent_steps += bundle.steps
        self._client_moved = time.monotonic()
        self._sent_rows += bundle.all_rows
        self._sent_bytes += bundle.body.size
        totals = self._totals
        totals.steps += bundle.steps
        totals.bytes[over] = totals.bytes.get(over, 0) + bundle.body.size
        totals.bundles += 1
        totals.send_seconds += seconds
        for dataset, rows in bundle.rows_by_dataset.items():
            totals.rows[dataset] = totals.rows.get(dataset, 0) + rows

    def _below_target(self) -> bool:
        """Is the rank slower than it wants to be, and not by its own doing (it waits for rows, its window is open)?"""
        seconds = time.monotonic() - self._began
        slow = seconds > 1.0 and self._sent_rows < self._target * seconds
        return slow and self._waited["rows"] > self._waited["credit"]

    def status(self) -> SessionStatus:
        now = time.monotonic()
        return SessionStatus(
            session=self.who.session,
            job=self.who.job,
            name=self.who.name,
            datasets=self._opening.datasets,
            rank=self.who.rank,
            world_size=self.who.world_size,
            replica=self.who.replica,
            client=self.who.client,
            transport=self._transport.name,
            state=self._state,
            epoch=self._epoch,
            step=self._step,
            steps_sent=self._sent_steps,
            rows_sent=self._sent_rows,
            bytes_sent=self._sent_bytes,
            credit_steps=self._ledger.steps,
            credit_bytes=self._ledger.bytes,
            seconds_waiting_for_credit=self._waited["credit"],
            seconds_waiting_for_rows=self._waited["rows"],
            seconds_connected=now - self._began,
            pool_rows=int(self._opening.plan["pool_rows"]),
            target_rows_per_s=self._target,
            below_target=self._below_target(),
            taken_epoch=self._taken[0],
            taken_step=self._taken[1],
            seconds_since_moved=now - self._moved,
            epoch_steps=self._opening.steps,
            transport_reason=self._transport.reason,
            compression=self._wire.codec,
            wire_bytes_sent=self._wire.sent_bytes,
        )
