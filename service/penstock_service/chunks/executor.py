"""Who makes chunks. One interface; here with threads, in `processes.py` with processes.

Threads suit readers that release the GIL (Arrow does); Python code that runs per row belongs into processes, where it
cannot slow the event loop.
"""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, Protocol

from penstock_service.chunks.file import Place
from penstock_service.chunks.worker import Make, Verdict, Work, make_chunks, unforeseen
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import ServiceError, Unavailable

logger = logging.getLogger(__name__)

STOP_SECONDS: Final = 10.0  # how long `stop` waits for a chunk in the making


class Job(Protocol):
    """One unit to be made. All methods are called from one thread, which is not the event loop's, and may block."""

    @property
    def runs_python(self) -> bool:
        """Does making it run Python code on rows?"""

    def prepare(self) -> Work | None:
        """What is to be done, or None if all of it is there already."""

    def place(self, chunk: int, size: int, trouble: str) -> Place | Verdict: ...

    def made(self, chunk: int, place: Place, info: ChunkInfo) -> None: ...

    def abandon(self) -> None:
        """The worker died: what was being written will not be."""

    def ended(self, error: ServiceError | None) -> None:
        """Called once, last."""


class Executor(Protocol):
    """`start` and `stop` block; `stop` may be called twice, or without `start`, and leaves nothing running."""

    @property
    def workers(self) -> int: ...

    @property
    def restarted(self) -> int:
        """Workers that died and were replaced."""

    def processes(self) -> list[int]:
        """Ids of worker processes that run now; none where workers are threads."""

    def start(self, make: Make) -> None: ...

    def submit(self, job: Job) -> None:
        """Jobs are begun in the order they come."""

    def stop(self) -> None: ...


class ThreadExecutor:
    """Workers are threads of this process."""

    def __init__(self, workers: int) -> None:
        if workers < 1:
            raise ValueError(f"workers is {workers}; it must be 1 or more")
        self.workers: Final = workers
        self.restarted: Final = 0
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def processes(self) -> list[int]:
        return []

    def start(self, make: Make) -> None:
        for n in range(self.workers):
            # Daemons: a reader that hangs in the kernel must not keep the process from ending.
            thread = threading.Thread(target=self._run, args=(make,), name=f"chunk worker {n}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        for _ in self._threads:
            self._jobs.put(None)
        join(self._threads)
        self._threads.clear()
        refuse_all(self._jobs)

    def _run(self, make: Make) -> None:
        def work(job: Job, todo: Work) -> None:
            make_chunks(make, todo, job.place, job.made)

        while job := self._jobs.get():
            attend(job, work)


def attend(job: Job, work: Callable[[Job, Work], None]) -> None:
    """Do a job with `work`, and say how it ended, whatever happens."""
    error: ServiceError | None = None
    try:
        todo = job.prepare()
        if todo is not None:
            work(job, todo)
    except ServiceError as raised:
        error = raised
    except BaseException as raised:
        logger.exception("making a chunk failed")
        error = unforeseen(raised)
    if error is not None:
        job.abandon()
    job.ended(error)


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(STOP_SECONDS)
        if thread.is_alive():
            logger.warning("%s is still busy after %.0f s and is left behind", thread.name, STOP_SECONDS)


def refuse_all(jobs: "SimpleQueue[Job | None]") -> None:
    """Jobs that were not begun."""
    while not jobs.empty():
        if job := jobs.get():
            job.ended(Unavailable("the server is stopping"))
