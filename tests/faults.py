"""A TCP proxy between client and server that breaks connections on command. One thread, one event loop.

The faults are those of real networks: a connection ends (FIN), is reset (RST, at any byte), goes silent without ending
(half-open: a machine lost power, a firewall forgot), trickles, or is late.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

T = TypeVar("T")

_BLOCK = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds


@dataclass
class _Pair:
    """One connection through the proxy, and its two ends."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    to_client: int = 0  # bytes passed so far

    def end(self, reset: bool) -> None:
        for task in self.tasks:
            task.cancel()
        for writer in (self.client, self.server):
            sock = writer.get_extra_info("socket")
            if reset and sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """`with Proxy("127.0.0.1:7400") as proxy:` clients connect to `proxy.target`. Methods may be called at any time."""

    def __init__(self, upstream: str = "", source: str = "127.0.0.1") -> None:
        """`upstream` may be set later. `source`: where the server sees its connections come from; 127.0.0.2 is no
        address of this host's."""
        self.target = ""
        self.upstream = upstream
        self._source = source
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: list[_Pair] = []
        self._open: asyncio.Event | None = None  # set: bytes pass
        self._refusing = False
        self._reset_after: int | None = None
        self._rate: float | None = None
        self._delay = 0.0
        self._listener: asyncio.Server | None = None

    # -- faults -------------------------------------------------------------------------------------------------

    def cut(self) -> int:
        """End every connection there is, politely (FIN). Says how many there were."""
        return self._do(lambda: self._end_all(reset=False))

    def reset(self) -> int:
        """Reset every connection there is (RST)."""
        return self._do(lambda: self._end_all(reset=True))

    def strike(self, fault: str, after: int) -> None:
        """ "cut", "reset", or anything else: reset `after` so many bytes."""
        if fault == "cut":
            self.cut()
        elif fault == "reset":
            self.reset()
        else:
            self.reset_after(after)

    def reset_after(self, size: int) -> None:
        """Reset the next connection to pass so many more bytes to its client: most likely within a message."""
        self._do(lambda: setattr(self, "_reset_after", size))

    def half_open(self) -> None:
        """Nothing passes any more, in either direction, and nobody is told; new connections get nowhere either."""
        self._do(lambda: self._gate().clear())

    def heal(self) -> None:
        """New connections work. Those that went silent stay so: their packets are lost."""

        def mend() -> None:
            self._open = asyncio.Event()  # who waits on the old one waits for ever
            self._open.set()
            self._refusing, self._rate, self._delay, self._reset_after = False, None, 0.0, None

        self._do(mend)

    def refuse(self) -> None:
        """End all connections, and every new one at once."""

        def close() -> None:
            self._refusing = True
            self._end_all(reset=True)

        self._do(close)

    def trickle(self, rate: float | None) -> None:
        """At most so many bytes per second to each client; None: as fast as it goes."""
        self._do(lambda: setattr(self, "_rate", rate))

    def delay(self, seconds: float) -> None:
        """Every block is so late, in both directions."""
        self._do(lambda: setattr(self, "_delay", seconds))

    @property
    def connections(self) -> int:
        return self._do(lambda: len(self._pairs))

    @property
    def live(self) -> int:
        """Connections that neither end has closed."""
        return self._do(lambda: sum(1 for p in self._pairs if not (p.client.is_closing() or p.server.is_closing())))

    @property
    def passed(self) -> int:
        """Bytes passed to clients over the connections there are."""
        return self._do(lambda: sum(pair.to_client for pair in self._pairs))

    # -- life ---------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    async def _stop(self) -> None:
        assert self._listener is not None
        self._listener.close()
        self._end_all(reset=True)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _do(self, act: Callable[[], T]) -> T:
        async def on_the_loop() -> T:
            return act()

        return self._run(on_the_loop())

    def _gate(self) -> asyncio.Event:
        assert self._open is not None
        return self._open

    def _end_all(self, reset: bool) -> int:
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.end(reset)
        return len(pairs)

    # -- bytes --------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        host, port = self.upstream.rsplit(":", 1)
        try:
            from_server, to_server = await asyncio.open_connection(host, int(port), local_addr=(self._source, 0))
        except OSError:
            writer.transport.abort()  # as if nobody listened
            return
        pair = _Pair(writer, to_server)
        self._pairs.append(pair)
        create = self._loop.create_task
        pair.tasks += [
            create(self._pump(pair, reader, to_server, self._gate(), to_client=False)),
            create(self._pump(pair, from_server, writer, self._gate(), to_client=True)),
        ]

    async def _pump(
        self,
        pair: _Pair,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        gate: asyncio.Event,
        to_client: bool,
    ) -> None:
        try:
            while data := await source.read(_BLOCK):
                await gate.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if to_client and not await self._to_client(pair, data):
                    return
                sink.write(data)
                await sink.drain()
        except OSError:
            pass  # the other end is gone: so is this one
        await gate.wait()  # an end is not heard either, where nothing passes
        sink.close()

    async def _to_client(self, pair: _Pair, data: bytes) -> bool:
        """What is special about this direction; False: the connection was reset instead."""
        if self._reset_after is not None:
            if len(data) > self._reset_after:
                pair.client.write(data[: self._reset_after])
                await pair.client.drain()
                self._reset_after = None
                self._pairs = [p for p in self._pairs if p is not pair]
                pair.end(reset=True)
                return False
            self._reset_after -= len(data)
        if self._rate is not None:
            await asyncio.sleep(len(data) / self._rate)
        pair.to_client += len(data)
        return True
