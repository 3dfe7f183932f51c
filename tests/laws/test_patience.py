"""How long a server that makes rows and fails is tried again: as long as the trainer gets closer to its next step.

The server's end is a script here, and time is a number.
"""

import asyncio
import json
from collections.abc import Callable, Iterator

import pyarrow as pa
import pytest

from penstock.errors import ResourceExhausted, ServerError
from penstock.stream import Stream
from penstock.subscription import Delivery, Order, Share
from penstock.world import Job, World
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from tests.laws.virtual import VirtualLoop
from tests.laws.wire import Call, MemoryLink, Network

RECONNECT = 60.0
START = Cursor(epoch=0, segment=0, taken=0, step=0, global_batch=1, seed=0, digest=0)

Script = Callable[[int], tuple[list[int], str]]  # of the n-th session: rows that are ready, a second apart; its error


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop(lambda: 0.0)
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


def stream(loop: VirtualLoop, script: Script) -> Stream:
    opened = pb.Opened(
        schema=pa.schema({"id": pa.int64()}).serialize().to_pybytes(), plan=json.dumps({}), cursor=START.to_json()
    )
    sessions = 0

    async def handler(call: Call) -> None:
        nonlocal sessions
        sessions += 1
        await call.read()
        await call.write(pb.ServerMessage(opened=opened).SerializeToString())
        ready, code = script(sessions)
        for rows in ready:
            await asyncio.sleep(1.0)
            await call.write(pb.ServerMessage(filling=pb.Filling(rows=rows, of=10_000)).SerializeToString())
        error = pb.Error(code=code, message="no room for a chunk", retryable=code != "Internal")
        await call.write(pb.ServerMessage(error=error).SerializeToString())

    link = MemoryLink(Network(loop, 4, handler), lambda low, high: (low + high) / 2)
    share, delivery = Share(World(0, 1, "test"), 1), Delivery("numpy", reconnect_timeout=RECONNECT)
    return Stream(link, Order("rows"), share, delivery, Job("job", "test"), "s")


def test_a_server_that_fails_at_the_same_place_again_and_again_is_given_up(loop: VirtualLoop) -> None:
    def script(session: int) -> tuple[list[int], str]:
        return [10, 20, 30], "ResourceExhausted" if session < 1000 else "Internal"

    with stream(loop, script) as given, pytest.raises(ResourceExhausted, match="gave up after"):
        given.get_batch()
    assert RECONNECT <= loop.time() < 10 * RECONNECT  # three quarters of it the server was there


def test_a_server_that_was_reached_and_went_silent_is_tried_as_long_again(loop: VirtualLoop) -> None:
    """A cut; then twice a connection on which nothing comes, each noticed after 40 s: 80 of the 60 there are."""

    def script(session: int) -> tuple[list[int], str]:
        if session > 3:
            return [], "Internal"
        call = network.calls[-1]
        loop.call_later(0.5, call.cut if session == 1 else call.half_open, 0)
        return [10, 10, 10], "ResourceExhausted"

    with stream(loop, script) as given:
        network = given._link.network  # type: ignore[attr-defined]
        with pytest.raises(ServerError):
            given.get_batch()
    assert loop.time() > 80


def test_a_server_that_fails_once_in_a_while_and_gets_on_is_not_given_up(loop: VirtualLoop) -> None:
    def script(session: int) -> tuple[list[int], str]:
        # Each time it goes on behind what it had made, for longer than it would be tried for.
        return list(range(session * 200, session * 200 + 200)), "ResourceExhausted" if session < 5 else "Internal"

    with stream(loop, script) as given, pytest.raises(ServerError):
        given.get_batch()
    assert loop.time() > 5 * 200
