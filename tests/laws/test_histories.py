"""Histories of one server, some trainers and a network that breaks, in memory and on a virtual clock.

Everything from `Stream` down to the mixing pool is the real code; the wire, the clock and the chunks are not. Whatever
happens, in any order: every rank gets exactly the steps that the one order says, and nothing is left when all are gone.
HISTORIES says how many histories are tried (`make chaos` asks for more); a failing one is printed as a program, with a
blob that shows it again.
"""

import asyncio
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.subscription import Delivery, Order, Share
from penstock.world import World
from penstock_service.app.badrows import BadRows
from penstock_service.app.journal import Journals
from penstock_service.app.seeds import Seeds
from penstock_service.core.channel import Counters
from penstock_service.deliver.session import Limits
from tests.laws.served import Given, Golden, MemoryChunks, Server, tasks_of
from tests.laws.sockets import MemoryPort
from tests.laws.test_feeds import dataset
from tests.laws.trainer import START, Saved, Trainer
from tests.laws.virtual import VirtualLoop
from tests.laws.wire import KEEPALIVE, Call, MemoryLink, Network

HISTORIES = int(os.environ.get("HISTORIES", "150"))
STEPS = int(os.environ.get("HISTORY_STEPS", "30"))
RECONNECT = 20.0  # seconds

_STATE: list[tuple[Seeds, Journals, BadRows]] = []
_JOBS = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What every server finds in its state folder, also after a restart."""
    folder = tmp_path_factory.mktemp("state")
    _STATE.append((Seeds(folder), Journals(folder), BadRows(folder, Counters())))
    yield
    for part in _STATE.pop():
        part.close()


shards = st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=2), min_size=1, max_size=3)
ranks = st.integers(0, 3)
soon = st.integers(0, 12)
sizes = st.integers(1, 5)


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[list[list[int]]], Order]:
    sources = draw(st.lists(shards, min_size=1, max_size=3))
    rows = sum(sum(map(sum, source)) for source in sources)
    names = [str(i) for i in range(len(sources))]
    kind = draw(st.sampled_from(["one reading", "one reading", "weights", "stored order"]))
    weights = draw(st.lists(st.integers(1, 4), min_size=len(names), max_size=len(names)))
    pool = max(1, rows // draw(st.sampled_from([1, 2, 3, 5, 9])))
    order = Order(
        datasets=dict(zip(names, map(float, weights), strict=True)) if kind == "weights" else names,
        seed=draw(st.integers(0, 3)),
        shuffle=kind != "stored order",
        pool_rows=pool,
        refill_below=draw(st.sampled_from([0.0, 0.5, 0.75, 0.9])),
        start=draw(st.sampled_from(["ramp", "full"])),
        until=draw(st.sampled_from(["all", "first", "repeat"])) if kind == "weights" else "all",
        reshuffle=draw(st.booleans()),
        rows=draw(st.sampled_from(["", "", '[{"filter": "id - 3 * (id / 3) != 0"}]', '[{"filter": "id > 7"}]'])),
    )
    return sources, order


class Histories(RuleBasedStateMachine):
    @initialize(
        drawn=orders(),
        chance=st.integers(0, 2**32 - 1),
        last=st.sampled_from(["short", "drop", "pad", "wrap"]),
        limits=st.builds(
            Limits, st.sampled_from([64, 1000, 4 << 20]), st.sampled_from([1, 3, 512]), st.sampled_from([40, 1 << 20])
        ),
        window=st.tuples(st.sampled_from([1, 2, 8, 2048]), st.sampled_from([1, 200, 64 << 20])),
        room=st.integers(1, 8),
        slow=st.sampled_from([0.0, 0.0, 0.01, 3.0]),
        row_ids=st.booleans(),
        compression=st.sampled_from(["none", "lz4", "zstd", "auto"]),
        transport=st.sampled_from(["tcp", "tcp", "grpc"]),
        ahead=st.booleans(),
        world=st.integers(1, 3),
        rows=sizes,
    )
    def begin(
        self,
        drawn: tuple[list[list[list[int]]], Order],
        chance: int,
        last: Any,
        limits: Limits,
        window: tuple[int, int],
        room: int,
        slow: float,
        row_ids: bool,
        compression: Any,
        transport: Any,
        ahead: bool,
        world: int,
        rows: int,
    ) -> None:
        sources, order = drawn
        dice = random.Random(chance)
        self.loop = VirtualLoop(lambda: dice.choice((0.0, slow * dice.random())))
        asyncio.set_event_loop(self.loop)
        self.given = Given(tuple(dataset(i, s) for i, s in enumerate(sources)), order, *_STATE[0], limits)
        self.golden = self.order_of(self.given)
        if not self.shortest():  # an epoch of which filters leave nothing is refused
            self.given = replace(self.given, order=replace(order, rows=""), chunks=MemoryChunks())
            self.golden = self.order_of(self.given)
        self.network = Network(self.loop, room)
        self.link = MemoryLink(self.network, dice.uniform)
        output, device = ("torch", "cpu") if ahead else ("numpy", None)
        self.delivery = Delivery(
            *(output, *window),
            device=device,
            reconnect_timeout=RECONNECT,
            compression=compression,
            transport=transport,
        )
        self.last, self.row_ids = last, row_ids
        self.jobs = -1
        self.saved = [START]
        self.got: dict[tuple[Any, int, int], dict[int, list[int]]] = {}
        self.trainers: list[Trainer] = []
        self.server: Server | None = None
        self.start_server()
        self.open_all(world, rows, START)

    # -- trainers -----------------------------------------------------------------------------------------------

    @rule(rank=ranks, steps=st.integers(1, 12))
    def take(self, rank: int, steps: int) -> None:
        began = self.loop.time()
        done = self.of(rank).take(steps)
        # Silence is noticed later than a client tries to come back: one that came back into it gives up.
        excused = self.server is None or self.interrupted() or self.network.silent_until > began
        assert done or excused, "the server lives, but a step was not to be had"

    @rule(rank=ranks)
    def read_to_the_end(self, rank: int) -> None:
        self.take(rank, 10_000)

    @rule(rank=ranks)
    def get_batch(self, rank: int) -> None:
        self.of(rank).get_batch(None)

    @precondition(lambda self: self.all_began())
    @rule(rank=ranks)
    def begin_again(self, rank: int) -> None:
        self.of(rank).begin_again()

    @rule(rank=ranks)
    def save(self, rank: int) -> None:
        self.saved = [*self.saved[-5:], self.of(rank).save()]

    @precondition(lambda self: self.all_began())
    @rule(rank=ranks, which=st.integers(0, 5))
    def load(self, rank: int, which: int) -> None:
        self.of(rank).load(self.saved[which % len(self.saved)])

    @precondition(lambda self: self.all_began())
    @rule(rank=ranks, epoch=st.integers(0, 3))
    def set_epoch(self, rank: int, epoch: int) -> None:
        self.of(rank).set_epoch(epoch)

    @rule(rank=ranks, politely=st.booleans())
    def end_and_come_back(self, rank: int, politely: bool) -> None:
        """A trainer closes its stream, or just forgets it; a new one goes on from the state it saved."""
        old = self.of(rank)
        saved = old.save()
        self.note(old)
        if politely:
            old.stream.close()
            old.stream.close()
        number = self.trainers.index(old)
        self.trainers[number] = self.open(old.share, saved)
        self.trainers[number].began = old.began
        del old

    @rule(world=st.integers(1, 4), rows=sizes, which=st.integers(0, 5), politely=st.booleans())
    def change_the_world(self, world: int, rows: int, which: int, politely: bool) -> None:
        """All ranks end; as many as there are now go on from one state, with steps of another size."""
        for trainer in self.trainers:
            self.note(trainer)
            if politely:
                trainer.stream.close()
        self.trainers.clear()
        self.open_all(world, rows, self.saved[which % len(self.saved)])

    @rule(after=st.integers(0, 3))
    def press_ctrl_c(self, after: int) -> None:
        """A KeyboardInterrupt in somebody's `next`, when something has come and is not yet kept."""
        self.network.interrupt_after = after

    # -- faults -------------------------------------------------------------------------------------------------

    @rule(after=soon, which=ranks, lose=st.integers(0, 8))
    def cut(self, after: int, which: int, lose: int) -> None:
        self.at_call(after, which, lambda call: call.cut(lose))

    @rule(after=soon, which=ranks, message=st.integers(0, 8))
    def lose_a_message(self, after: int, which: int, message: int) -> None:
        def lose(call: Call) -> None:
            self.loop.run_for(0.01)  # the server goes on, nobody reads
            call.swallow(message)

        self.at_call(after, which, lose)

    @rule(after=soon, which=ranks, lose=st.integers(0, 100))
    def break_the_socket(self, after: int, which: int, lose: int) -> None:
        """The payload socket alone; the gRPC stream beside it lives."""
        self.at_call(after, which, lambda call: call.break_socket(lose))

    @rule(wall=st.booleans())
    def a_wall_before_the_payload_port(self, wall: bool) -> None:
        """Or none any more: sessions that begin from now on meet it."""
        self.network.wall = wall

    @rule(after=soon, which=ranks, lose=st.integers(0, 3))
    def half_open(self, after: int, which: int, lose: int) -> None:
        self.at_call(after, which, lambda call: call.half_open(lose))

    @rule(after=soon, down=st.sampled_from([0.0, 1.0, RECONNECT - 5, 3 * RECONNECT]), lose=st.integers(0, 8))
    def kill_the_server(self, after: int, down: float, lose: int) -> None:
        """Sessions, mixers and claims are lost; it is up again after `down` seconds."""

        def kill() -> None:
            self.stop_server(lose)
            if down:
                self.loop.call_later(down, self.start_server)
            else:
                self.start_server()

        self.later(after, kill)

    @precondition(lambda self: self.server is not None)
    @rule()
    def drain(self) -> None:
        """SIGTERM: clients are told after the bundle in hand; then another server is there."""
        old = self.server
        assert old is not None
        old.data.drain("asked to")
        self.loop.run_for(1.0)
        self.stop_server(0)
        self.start_server()

    @precondition(lambda self: self.server is not None)
    @rule(short=st.booleans(), put_off=st.booleans())
    def memory_is_short(self, short: bool, put_off: bool) -> None:
        """Little is remembered from now on, or much again; sessions that wait for their clients are put off."""
        server = self.server
        assert server is not None
        self.loop.call_soon(server.mixers.save, short)
        if put_off:
            self.loop.call_soon(server.data.put_off_stalled, 0.0, "memory is short")
        self.loop.run_for(1.0)

    @rule(seconds=st.sampled_from([0.001, 0.7, 7.0, KEEPALIVE + 1, 400.0]))
    def time_passes(self, seconds: float) -> None:
        """Nobody reads: a trainer computes, writes a checkpoint, or is stopped."""
        self.loop.run_for(seconds)

    @invariant()
    def no_session_has_more_credit_than_its_window(self) -> None:
        steps, size = self.delivery.prefetch, self.delivery.prefetch_bytes
        for session in self.server.data._sessions.values() if self.server is not None else ():
            ledger = session._ledger
            assert ledger.steps + ledger.outstanding_steps == steps, ledger
            assert ledger.bytes + ledger.outstanding_bytes == size, ledger

    # -- the end ------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            if sys.exc_info()[0] is None:  # else a rule has failed already, and says why
                self._finish()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.loop.run_for(0)
            asyncio.set_event_loop(None)
            self.loop.close()

    def _finish(self) -> None:
        self.network.interrupt_after = None
        self.network.to_come.clear()
        while self.server is None:
            self.loop.run_for(1.0)
        for trainer in self.trainers:
            before = trainer.at.epoch
            while trainer.at.epoch == before:
                assert trainer.take(10_000)
            self.note(trainer)
            trainer.stream.close()
        self.trainers.clear()
        # Half-open calls end when keepalive notices; segments that were being made are.
        self.loop.run_for(2 * KEEPALIVE)
        assert self.server.left_over() == {}, self.server.left_over()
        assert self.given.chunks.held == 0
        self.loop.run_until_complete(self.server.stop())
        assert not tasks_of(self.loop), tasks_of(self.loop)
        assert not self.loop.uncaught, self.loop.uncaught

    # -- what rules are made of ---------------------------------------------------------------------------------

    def of(self, rank: int) -> Trainer:
        return self.trainers[rank % len(self.trainers)]

    def later(self, after: int, fault: Callable[[], None]) -> None:
        """Now, or when so many more items have been asked for."""
        if after:
            self.network.to_come.append((after, fault))
        else:
            fault()

    def at_call(self, after: int, which: int, fault: Callable[[Call], object]) -> None:
        def strike() -> None:
            calls = [c for c in self.network.calls if c.lost is None and not c.silent]
            if calls:
                fault(calls[which % len(calls)])

        self.later(after, strike)

    def all_began(self) -> bool:
        """Did every rank take its first step? A job's ranks must take it at one place; later they may go apart."""
        return len(self.trainers) == 1 or all(trainer.began for trainer in self.trainers)

    def interrupted(self) -> bool:
        return self.network.interrupt_after is None

    def start_server(self) -> None:
        if self.server is None:
            self.network.port = MemoryPort(40 * self.network.room)
            self.server = Server(self.given, self.network.port)
            self.network.handler = self.server.handler

    def stop_server(self, lose: int) -> None:
        old, self.server, self.network.handler = self.server, None, None
        for call in self.network.calls:
            call.cut(lose)
        if old is not None:
            # Sessions end before what they read from, as they do when gRPC is stopped.
            ending = [call.task for call in self.network.calls if call.task is not None]
            self.loop.run_until_complete(asyncio.gather(*ending, return_exceptions=True))
            self.loop.run_until_complete(old.stop())

    def order_of(self, given: Given) -> Golden:
        return Golden(self.loop.run_until_complete(given.stream()))

    def shortest(self) -> int:
        """Rows of the shortest epoch that a history may come to."""
        return min(len(self.golden.epoch(number)) for number in range(8))

    def open_all(self, world: int, rows: int, saved: Saved) -> None:
        if self.last == "drop" and world * rows > self.shortest():
            world = rows = 1  # an epoch without a step is refused
        self.jobs = next(_JOBS)  # a job that ends abruptly may have sessions left: the next one is another
        for rank in range(world):
            share = Share(World(rank, world, "drawn"), world * rows, self.last, row_ids=self.row_ids)
            self.trainers.append(self.open(share, saved))

    def open(self, share: Share, saved: Saved) -> Trainer:
        job = f"job {self.jobs}"  # never twice in this process: it is remembered where a job began
        return Trainer(self.link, self.given.order, share, self.delivery, job, self.golden, saved)

    def note(self, trainer: Trainer) -> None:
        """What ranks got of one step, put together, is the part of the order that the step stands for."""
        world = trainer.share.world
        for at, batch, data in trainer.received:
            parts = self.got.setdefault((at, batch, world.world_size), {})
            assert parts.setdefault(world.rank, data) == data
            if len(parts) == world.world_size and self.last != "wrap":
                order = self.golden.epoch(at.epoch)
                together = [row for rank in sorted(parts) for row in parts[rank]]
                assert together == order[at.taken : at.taken + batch]


@pytest.mark.timeout(900)  # on a machine that others use as well
def test_whatever_happens_every_rank_gets_its_steps_once_and_nothing_is_left() -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            phases=[Phase.reuse, Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def history(
    order: Order, last: str, rows: int, shards: list[list[int]], transport: str = "grpc", steps: int = 1, room: int = 1
) -> Histories:
    """One rank, one dataset, the smallest window if nothing is said: for histories written by hand."""
    made = Histories()
    made.begin(
        ([shards], order), chance=0, last=last, limits=Limits(64, 1, 40), window=(steps, steps), room=room, slow=0.0,
        row_ids=False, compression="zstd", transport=transport, ahead=True, world=1, rows=rows,
    )  # fmt: skip
    return made


def test_an_epoch_whose_end_was_interrupted_does_not_begin_again() -> None:
    """Found by the machine: Ctrl-C while the end was told, then the loop anew: the same epoch came again."""
    made = history(Order(["0"], pool_rows=3, refill_below=0.0), "short", 2, [[3]])
    made.press_ctrl_c(after=3)
    made.read_to_the_end(rank=0)
    made.begin_again(rank=0)
    assert made.of(0).at.epoch == 1
    made.teardown()


def test_the_last_credit_goes_back_before_the_end_is_asked_for() -> None:
    """Found by the machine: with a window of one step, who asked whether the epoch had ended waited for ever."""
    made = history(Order(["0"], pool_rows=1, refill_below=0.0), "short", 1, [[1]])
    made.get_batch(rank=0)
    made.begin_again(rank=0)
    assert made.of(0).at.epoch == 1
    made.teardown()


@pytest.mark.parametrize("transport", ["tcp", "grpc"])
def test_a_server_in_steady_state_allocates_no_memory_for_bundles(transport: str) -> None:
    made = history(Order(["0"], pool_rows=9, refill_below=0.0), "short", 1, [[9, 9], [9, 9]], transport)
    for _ in range(4):
        made.read_to_the_end(rank=0)
    assert made.server is not None
    bodies = made.server.data.bodies
    assert bodies.allocated <= 2  # one on its way, one made ahead
    assert bodies.reused > 100
    made.teardown()


@pytest.mark.parametrize("transport", ["tcp", "grpc"])
@pytest.mark.parametrize("message", [0, 1, 2, 3, -3, -2, -1])
def test_a_message_that_is_lost_on_the_way_is_a_broken_connection(transport: str, message: int) -> None:
    made = history(Order(["0"], pool_rows=9, refill_below=0.0), "short", 1, [[9, 9], [9, 9]], transport, 1000, 20)
    made.take(rank=0, steps=1)
    made.loop.run_for(0.01)
    call = made.network.calls[0]
    before = len(call.under_way)
    assert before > 3
    call.swallow(message)
    assert len(call.under_way) == before - 1
    made.read_to_the_end(rank=0)
    assert made.of(0).at.epoch == 1
    assert made.of(0).stream.profile()["reconnects"] == 1
    made.teardown()
