"""A real S3 protocol server (moto), and a proxy in front of it that is slow, or fails as it is told."""

import http.client
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from pyarrow import fs

from penstock_service.core.retry import Retry
from penstock_service.source.stores import Stores

QUICK = Retry(max_retries=6, base_seconds=0.01, cap_seconds=0.05)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"  # noqa: S105  AWS's own example
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


@dataclass
class ObjectStore:
    """One bucket of its own per test."""

    endpoint: str
    bucket: str

    @property
    def stores(self) -> Stores:
        return Stores(s3_endpoint=self.endpoint, s3_region="us-east-1", retry=QUICK, read_timeout=5, connect_timeout=2)

    def through(self, proxy: "Proxy", **changes: Any) -> Stores:
        return replace(self.stores, s3_endpoint=proxy.endpoint, **changes)

    def uri(self, path: str = "") -> str:
        return f"s3://{self.bucket}/{path}".rstrip("/")

    @cached_property
    def system(self) -> fs.FileSystem:
        host = self.endpoint.partition("://")[2]
        return fs.S3FileSystem(endpoint_override=host, scheme="http", region="us-east-1", allow_bucket_creation=True)

    def put(self, key: str, data: bytes) -> None:
        with self.system.open_output_stream(f"{self.bucket}/{key}", compression=None) as stream:
            stream.write(data)

    def put_many(self, keys: Iterable[str], data: bytes) -> None:
        """Behind the protocol's back: a thousand requests take ten seconds."""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for key in keys:
            backend.put_object(self.bucket, key, data)

    def delete(self, key: str) -> None:
        self.system.delete_file(f"{self.bucket}/{key}")

    def upload(self, folder: Path, prefix: str = "data") -> str:
        """All files of a folder; gives the URI."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.put(f"{prefix}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return self.uri(prefix)


@contextmanager
def running_store() -> Iterator[str]:
    """The endpoint of a server in this process; credentials are in the environment meanwhile."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in [n for n in os.environ if n.startswith("AWS_") and n not in ENVIRONMENT]:
            patch.delenv(name)
        server.start()
        host, port = server.get_host_and_port()
        try:
            yield f"http://{host}:{port}"
        finally:
            server.stop()


class Request(NamedTuple):
    method: str
    path: str  # with the query
    range: str
    began: float
    ended: float


Trouble = Callable[[Request, int], str]
"""trouble(request, number): "" (none), "500", "503", "403", "reset", "cut" (half of the body), or "silent"."""


@dataclass
class Proxy:
    """Passes requests on, each after `latency` seconds. Keeps what was asked."""

    upstream: str
    latency: float = 0.0
    trouble: Trouble = lambda _request, _number: ""
    requests: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> "Proxy":
        proxy = self

        class Handler(_Handler):
            of = proxy

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, method: str) -> int:
        return sum(r.method == method for r in self.requests)

    def most_at_once(self) -> int:
        edges = sorted([(r.began, 1) for r in self.requests] + [(r.ended, -1) for r in self.requests])
        now = most = 0
        for _, step in edges:
            now += step
            most = max(most, now)
        return most

    def note(self, request: Request) -> int:
        with self._lock:
            self.requests.append(request)
            return len(self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Also on those who keep their connection for the next request."""
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up; that is their right."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    of: ClassVar[Proxy]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  so it is called there
        pass

    def do_GET(self) -> None:
        began = time.monotonic()
        host = self.of.upstream.partition("://")[2]
        upstream = http.client.HTTPConnection(host, timeout=10)
        upstream.request(self.command, self.path, headers={k: v for k, v in self.headers.items() if k != "Host"})
        answer = upstream.getresponse()
        body = answer.read()
        upstream.close()
        time.sleep(self.of.latency)
        request = Request(self.command, self.path, self.headers.get("Range", ""), began, time.monotonic())
        self._answer(self.of.trouble(request, self.of.note(request)), answer, body)

    do_HEAD = do_GET  # noqa: N815  so it is called there

    def _answer(self, trouble: str, answer: http.client.HTTPResponse, body: bytes) -> None:
        if trouble == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
            return
        if trouble == "silent":
            time.sleep(30)
            return
        if trouble.isdigit():
            body = b"<Error><Code>%s</Code><Message>made up</Message></Error>" % (
                b"AccessDenied" if trouble == "403" else b"InternalError"
            )
            self.send_response(int(trouble))
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "server", "date", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length or "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if trouble == "cut" else body)
        if trouble == "cut":
            self.close_connection = True
