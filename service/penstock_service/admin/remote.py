"""The command line's way to a running server: its HTTP API, with nothing but the standard library."""

import http.client
import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from penstock_service.config import Settings
from penstock_service.config.addresses import host_and_port
from penstock_service.config.load import SettingsError

VARIABLE = "PENSTOCK_HTTP"
SECONDS = 30.0


class RemoteError(Exception):
    """The server cannot be asked, or refused. The text may be shown as it is."""


class Server:
    def __init__(self, address: str | None) -> None:
        """`address` as "HOST:PORT" or a URL; else PENSTOCK_HTTP; else where a server listens by default."""
        self.address = address or os.environ.get(VARIABLE) or str(Settings.model_fields["http"].default)
        plain = urlsplit(self.address).netloc if "://" in self.address else self.address
        try:
            self.host, self.port = host_and_port(plain)
        except ValueError as error:
            raise SettingsError(f"--http {self.address!r}: {error}") from None

    def datasets(self, text: str = "", task: str = "", tag: str = "") -> list[dict[str, Any]]:
        query = urlencode({k: v for k, v in (("text", text), ("task", task), ("tag", tag)) if v})
        return list(self._ask("GET", f"/api/v1/datasets?{query}")["datasets"])

    def dataset(self, name: str) -> dict[str, Any]:
        return self._ask("GET", _dataset(name))

    def versions(self, name: str) -> list[dict[str, Any]]:
        return list(self._ask("GET", _dataset(name) + "/versions")["datasets"])

    def diff(self, a: str, b: str) -> dict[str, Any]:
        return self._ask("GET", f"/api/v1/diff?{urlencode({'a': a, 'b': b})}")

    def register(self, name: str, path: str, said: dict[str, Any]) -> dict[str, Any]:
        # The scan takes as long as it takes.
        return self._ask("POST", "/api/v1/datasets", {"name": name, "path": path} | said, seconds=None)

    def remove(self, name: str, force: bool = False) -> dict[str, Any]:
        return self._ask("DELETE", _dataset(name) + ("?force=true" if force else ""))

    def bad_rows(self, job: str, stream: str, most: int) -> list[dict[str, Any]]:
        query = urlencode({"job": job, "stream": stream, "most": most})
        return list(self._ask("GET", f"/api/v1/bad-rows?{query}")["rows"])

    def jobs(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/api/v1/jobs")["jobs"])

    def memory(self) -> dict[str, Any]:
        return self._ask("GET", "/api/v1/memory")

    def workers(self) -> dict[str, Any]:
        return self._ask("GET", "/api/v1/workers")

    def discover(self) -> dict[str, Any]:
        return self._ask("POST", "/api/v1/discover", seconds=None)

    def runs(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/api/v1/runs")["runs"])

    def run(self, run: str) -> dict[str, Any]:
        return self._ask("GET", _run(run))

    def set_mixture(self, run: str, weights: dict[str, float]) -> dict[str, Any]:
        return self._ask("POST", _run(run) + "/mixture", {"weights": weights})

    def quarantine(self, run: str, dataset: str, rows: list[str], reason: str) -> dict[str, Any]:
        return self._ask("POST", _run(run) + "/quarantine", {"dataset": dataset, "rows": rows, "reason": reason})

    def explain(self, asked: dict[str, Any]) -> dict[str, Any]:
        # Segments on the way may have to be read first.
        return self._ask("POST", "/api/v1/explain", asked, seconds=None)

    def streams(self) -> list[dict[str, Any]]:
        return list(self._ask("GET", "/api/v1/streams")["streams"])

    def store(self) -> dict[str, Any]:
        return self._ask("GET", "/api/v1/store")

    def facts(self) -> dict[str, Any]:
        """What `penstock top` shows and `penstock doctor` judges."""
        return {
            "ready": self._ask("GET", "/readyz", accepted=(503,)),
            "load": self._ask("GET", "/api/v1/load"),
            "store": self.store(),
            "sessions": self._ask("GET", "/api/v1/sessions")["sessions"],
            "jobs": self.jobs(),
            "places": self._ask("GET", "/api/v1/places")["places"],
        }

    def warm(self, name: str, split: str) -> Iterator[dict[str, Any]]:
        """How far it is, line by line."""
        path = _dataset(name) + "/warm" + (f"?{urlencode({'split': split})}" if split else "")
        with self._answer("POST", path, None, None) as answer:
            if answer.status >= 400:
                self._read(answer.status, answer.read())
            for line in answer:
                yield self._read(200, line)

    def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        seconds: float | None = SECONDS,
        accepted: Collection[int] = (),
    ) -> dict[str, Any]:
        """`accepted`: statuses that are no error here."""
        try:
            with self._answer(method, path, body, seconds) as answer:
                status, text = answer.status, answer.read()
        except http.client.HTTPException:
            status, text = 0, b""
        return self._read(200 if status in accepted else status, text)

    @contextmanager
    def _answer(
        self, method: str, path: str, body: object, seconds: float | None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            yield connection.getresponse()
        except TimeoutError:
            raise RemoteError(f"the server at {self.address} did not answer within {seconds:.0f} s") from None
        except OSError as error:
            raise RemoteError(
                f"no server answers at {self.address} ({error.strerror or error}). Start one with\n"
                f"    penstock serve PATH\n"
                f"or say where it is with --http HOST:PORT or {VARIABLE}."
            ) from None
        finally:
            connection.close()

    def _read(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (status >= 400 and "message" not in answer):
            raise RemoteError(f"what answers at {self.address} is no Penstock server's HTTP side (status {status})")
        if status >= 400 or answer.keys() == {"code", "message"}:
            raise RemoteError(answer["message"])
        return answer


def _run(run: str) -> str:
    return f"/api/v1/runs/{quote(run, safe='')}"


def _dataset(name: str) -> str:
    return f"/api/v1/datasets/{quote(name, safe='@')}"
