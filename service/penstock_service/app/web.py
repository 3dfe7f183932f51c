"""The HTTP server in our event loop."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from penstock_service.config.addresses import host_and_port
from penstock_service.core.errors import Unavailable


class _Uvicorn(uvicorn.Server):
    """Signals are the server's as a whole, not uvicorn's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """bind, start, stop; `stop` may be called twice, or without `start`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._socket: socket.socket | None = None
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None

    def bind(self) -> int:
        """Take the port; returns it. Raises Unavailable where it is taken."""
        host, port = host_and_port(self._address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((host, port))
        except OSError as error:
            found.close()
            raise Unavailable(
                f"cannot listen on {self._address} for HTTP: {error.strerror}; is another server there? "
                "Stop it, or choose another --http address (port 0 takes a free one)"
            ) from error
        self._socket = found
        return int(found.getsockname()[1])

    async def start(self, app: FastAPI) -> None:
        assert self._socket is not None  # noqa: S101 - bind comes first
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
        self._server = _Uvicorn(config)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]))

    async def stop(self) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)
        self._server = self._task = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
