"""The port of payload sockets: who is let in, and what is left when it has stopped."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from penstock_proto.v1.payload import HELLO, NONCE, WELCOME
from penstock_service.core.errors import Unavailable
from penstock_service.deliver import payload
from penstock_service.deliver.payload import Broken, PayloadPort, PayloadSocket

Scene = Callable[[PayloadPort], Awaitable[None]]


@asynccontextmanager
async def started() -> AsyncIterator[PayloadPort]:
    port = PayloadPort("127.0.0.1")
    await port.start()
    try:
        yield port
    finally:
        await port.stop()


def play(scene: Scene) -> None:
    async def run() -> None:
        async with started() as port:
            await scene(port)

    before = psutil.Process().num_fds()
    asyncio.run(asyncio.wait_for(run(), 30))
    assert psutil.Process().num_fds() <= before


async def come(port: PayloadPort, said: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port.listened)
    writer.write(said)
    return reader, writer


async def left(reader: asyncio.StreamReader) -> bytes:
    """What the server says until it closes; a reset is an end too."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def other(nonce: bytes, byte: int) -> bytes:
    """The nonce with one byte changed."""
    return nonce[:byte] + bytes([nonce[byte] ^ 1]) + nonce[byte + 1 :]


def test_who_knows_the_nonce_is_let_in_once_and_gets_what_is_sent() -> None:
    async def scene(port: PayloadPort) -> None:
        expected = port.expect()
        reader, writer = await come(port, HELLO + expected.nonce)
        assert await reader.readexactly(len(WELCOME)) == WELCOME
        assert expected.connected
        assert port.expected == 0
        body = bytes(range(256)) * 40_000  # more than the kernel takes at once
        sending = asyncio.create_task(expected.send((b"head", memoryview(body))))
        assert await reader.readexactly(4 + len(body)) == b"head" + body
        await sending
        again, second = await come(port, HELLO + expected.nonce)
        assert await left(again) == b""
        expected.close()
        assert await left(reader) == b""
        for w in (writer, second):
            w.close()
            await w.wait_closed()

    play(scene)


@pytest.mark.parametrize("byte", [0, 7, 8, NONCE - 1])
def test_a_wrong_nonce_is_turned_away_and_the_right_one_still_counts(
    byte: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def scene(port: PayloadPort) -> None:
        expected = port.expect()
        reader, writer = await come(port, HELLO + other(expected.nonce, byte))
        assert await left(reader) == b""
        assert not expected.connected
        writer.close()
        reader, writer = await come(port, HELLO + expected.nonce)
        assert await reader.readexactly(len(WELCOME)) == WELCOME
        writer.close()
        expected.close()
        assert expected.nonce.hex() not in caplog.text

    play(scene)
    assert "turned away" in caplog.text


@pytest.mark.parametrize(
    "said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(NONCE), HELLO, HELLO[:-1] + b"X" + bytes(NONCE)]
)
def test_whoever_says_something_else_or_nothing_is_let_go(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "HELLO_WITHIN", 0.1)

    async def scene(port: PayloadPort) -> None:
        reader, writer = await come(port, said)
        assert await left(reader) == b""
        writer.close()
        reader, writer = await come(port, said)
        writer.close()  # it leaves by itself
        await writer.wait_closed()

    play(scene)


def test_silent_comers_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "MOST_COMERS", 3)

    async def scene(port: PayloadPort) -> None:
        silent = [await come(port, b"") for _ in range(5)]
        for reader, _ in silent[:2]:
            assert await left(reader) == b"", "those that came first are let go first"
        expected = port.expect()
        reader, writer = await come(port, HELLO + expected.nonce)
        assert await reader.readexactly(len(WELCOME)) == WELCOME
        assert len(port._comers) <= 3
        expected.close()
        for _, w in [*silent, (reader, writer)]:
            w.close()

    play(scene)


def test_a_session_that_ends_is_not_waited_for() -> None:
    async def scene(port: PayloadPort) -> None:
        expected = port.expect()
        expected.close()
        expected.close()
        assert port.expected == 0
        reader, writer = await come(port, HELLO + expected.nonce)
        assert await left(reader) == b""
        writer.close()
        with pytest.raises(Broken, match="its session has ended"), socket.socket() as comer:
            expected.connect(comer)

    play(scene)


def test_a_client_that_leaves_breaks_a_send_that_waits_and_a_cancelled_one_leaves_nothing() -> None:
    async def scene(port: PayloadPort) -> None:
        async def pair() -> tuple[PayloadSocket, asyncio.StreamReader, asyncio.StreamWriter]:
            expected = port.expect()
            reader, writer = await come(port, HELLO + expected.nonce)
            await reader.readexactly(len(WELCOME))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            return expected, reader, writer

        endless = memoryview(bytes(64 << 20))
        expected, _, writer = await pair()
        sending = asyncio.create_task(expected.send((endless,)))
        await asyncio.sleep(0)
        writer.transport.abort()
        with pytest.raises(Broken, match="the payload socket broke"):
            await sending
        expected.close()
        with pytest.raises(Broken, match="closed"):
            await expected.send((b"more",))

        expected, reader, writer = await pair()
        sending = asyncio.create_task(expected.send((endless,)))
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        expected.close()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await left(reader)) < len(endless)
        writer.close()

    play(scene)


def test_a_port_that_is_taken_is_an_error_that_says_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

        async def start() -> None:
            port = PayloadPort("127.0.0.1", number)
            with pytest.raises(Unavailable, match=rf"127.0.0.1, port {number}, for payload.*--payload port"):
                await port.start()
            await port.stop()

        asyncio.run(start())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])  # noqa: S104 - as servers do
def test_it_listens_on_every_address_of_its_host(host: str) -> None:
    async def run() -> None:
        port = PayloadPort(host, advertised=("elsewhere", 7))
        number = await port.start()
        expected = port.expect()
        assert (expected.host, expected.port) == ("elsewhere", 7)
        _, writer = await asyncio.open_connection("localhost" if host == "localhost" else "127.0.0.1", number)
        writer.close()
        await writer.wait_closed()
        expected.close()
        await port.stop()
        await port.stop()
        with pytest.raises(OSError, match=r"refused|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", number)

    asyncio.run(run())


def test_an_address_of_a_name_that_this_machine_lacks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """localhost is ::1 too in many a container that has no IPv6. 192.0.2.0/24 is for documentation: nobody has it."""
    here, nowhere = "127.0.0.1", "192.0.2.1"

    def resolved(*names: str) -> Callable[..., list[Any]]:
        return lambda *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (name, 0)) for name in names]

    async def check() -> None:
        monkeypatch.setattr(socket, "getaddrinfo", resolved(nowhere, here))
        port = PayloadPort("somewhere", 0)
        await port.start()
        assert port.listening
        await port.stop()
        monkeypatch.setattr(socket, "getaddrinfo", resolved(nowhere))
        with pytest.raises(Unavailable, match="Cannot assign requested address"):
            await PayloadPort("somewhere", 0).start()

    asyncio.run(check())
