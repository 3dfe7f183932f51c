"""One entrant at work, seen from outside: started, asked, measured, stopped with all that it started."""

import contextlib
import json
import os
import selectors
import subprocess
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from benchmarks import trees
from benchmarks.entrants import Entrant
from benchmarks.rows import Case

ROOT = Path(__file__).parent.parent
SAMPLE_SECONDS = 0.25  # between two looks at memory
END_SECONDS = 20.0  # for a peer to end by itself
# Nobody asks a network, or draws bars.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "",
}


class Failed(Exception):
    """The entrant said so, ended, or was silent for too long; the text is one line."""


@dataclass(frozen=True)
class Limits:
    """Seconds: `warm` and `seconds` of each lap; `silence` until an entrant that says nothing is stopped."""

    warm: float = 1.0
    seconds: float = 3.0
    silence: float = 120.0


@dataclass
class Lap:
    """A process of `entrant`; ask it with `answer`, within `with`."""

    entrant: Entrant
    python: Path
    log: Path
    job: dict[str, Any]
    process: subprocess.Popen[bytes] = field(init=False)
    peak: trees.Held = field(default_factory=lambda: trees.Held(0, 0))

    def __enter__(self) -> Self:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK")}
        command = [str(self.python), "-m", "benchmarks.peers", json.dumps(self.job)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=environment | ENVIRONMENT,
                start_new_session=True,
            )
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, name="memory", daemon=True)
        self._sampler.start()
        return self

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next line it says."""
        out, line, deadline = self.process.stdout, b"", time.monotonic() + seconds
        assert out is not None
        with selectors.DefaultSelector() as selector:
            selector.register(out, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise Failed(f"stopped: it said nothing for {seconds:.0f} s")
                part = os.read(out.fileno(), 1 << 16)
                if not part:
                    raise Failed(f"it ended with {self.process.wait(10)}: {self._last_words()}")
                line += part
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Failed(found["error"])
        return found

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "no word on stderr"

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            now = trees.held(self.process.pid)
            self.peak = trees.Held(max(self.peak.rss, now.rss), max(self.peak.own, now.own))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for it and all that it started; what is left then, or at once after an error, is killed."""
        self._ended.set()
        self._sampler.join()
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            below = []
        with contextlib.suppress(OSError):
            self.process.stdin.close()  # type: ignore[union-attr]
        if kind is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(END_SECONDS)
            psutil.wait_procs(below, 2)
        if self.process.poll() is None:
            self.process.kill()
        for one in below:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]


@dataclass(frozen=True)
class Track:
    """Where an entrant runs: its interpreter, its data, its case."""

    entrant: Entrant
    python: Path
    folder: Path
    case: Case
    limits: Limits

    def _lap(self, action: str) -> Lap:
        job = {
            "action": action,
            "module": self.entrant.module,
            "folder": str(self.folder / "data"),
            "case": asdict(self.case),
            "workers": self.entrant.workers,
            "warm": self.limits.warm,
            "seconds": self.limits.seconds,
            "packages": self.entrant.packages,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        return Lap(self.entrant, self.python, self.folder / f"{self.entrant.name}-{action}.log", job)

    def prepare(self, seconds: float) -> dict[str, Any]:
        """Writes the data; the versions of what is pinned."""
        with self._lap("prepare") as lap:
            found: dict[str, Any] = lap.answer(seconds)["versions"]
        return found

    def check(self) -> dict[str, Any]:
        """One whole epoch, its rows counted."""
        with self._lap("check") as lap:
            return lap.answer(self.limits.silence)

    def race(self) -> dict[str, Any]:
        """One timed lap."""
        with self._lap("race") as lap:
            start = lap.answer(self.limits.silence)
            before = trees.cpu_seconds(lap.process.pid)
            lap.go()
            found = lap.answer(self.limits.seconds + self.limits.silence)
            cpu = trees.cpu_seconds(lap.process.pid) - before
            shared = trees.pss(lap.process.pid)
            lap.go()
        gigabytes = found["rows"] * self.case.row_bytes / 1e9
        return {
            "rows_per_s": found["rows"] / found["seconds"],
            "epochs": found["rows"] / self.case.rows,
            "cpu_s_per_gb": cpu / gigabytes,
            "cpu_us_per_row": cpu / found["rows"] * 1e6,
            "cores": cpu / found["seconds"],
            "open_s": start["open_s"],
            "first_batch_s": start["first_batch_s"],
            "mixed": start["mixed"],
            "twice": start["twice"],
            "peak_rss": lap.peak.rss,
            "peak_own": lap.peak.own,
            "pss_at_end": shared,
            "batch": start["batch"],
        }
