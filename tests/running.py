"""A real server process for tests, as a user starts it, on ports of its own."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

START_SECONDS = 60.0

OVER = {
    "shm": (),
    "tcp": ("--shared-memory", "off"),
    "grpc": ("--shared-memory", "off", "--payload", "off"),
}
"""Flags of a server whose clients get a transport: those that turn the better ones off."""


class DidNotStart(AssertionError):
    """The process ended instead; `code` and `stderr` say why."""

    def __init__(self, code: int, stderr: str) -> None:
        super().__init__(f"the server ended with {code}: {stderr}")
        self.code = code
        self.stderr = stderr


@dataclass
class Running:
    """`start`, `stop`, `kill`; may be started again on the same port and folders."""

    paths: tuple[str, ...]
    folder: Path
    flags: tuple[str, ...] = ()
    target: str = "127.0.0.1:0"
    http: str = "127.0.0.1:0"
    process: subprocess.Popen[str] = field(init=False)

    def command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "penstock_service", "serve", *self.paths),
            *("--grpc", self.target, "--http", self.http),
            *("--state-dir", str(self.folder / "state"), "--store-dir", str(self.folder / "store")),
            *("--preload", "lazy", *self.flags),  # tests of sessions see what sessions cause; the last flag counts
        ]

    def start(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK")}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("penstock ready "):
            code = self.process.wait(START_SECONDS)
            self.process.stdout.close()
            raise DidNotStart(code, self.log.read_text())
        words = dict(word.split("=", 1) for word in line.split()[2:])
        self.target, self.http = words["grpc"], words["http"]
        return self

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def stop(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        """Ask it to end; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=10) as answer:
            return str(answer.read().decode())

    @property
    def payload(self) -> str:
        """Where payload sockets connect, or "off"."""
        return str(json.loads(self.get("/api/v1/info"))["payload"])

    def metric(self, name: str, **labels: Any) -> float:
        """The sum of the series of `name` that have `labels`."""
        found = 0.0
        for line in self.get("/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                found += float(value)
        return found

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
