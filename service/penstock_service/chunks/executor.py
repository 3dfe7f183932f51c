"""Who makes chunks. One interface; here with threads, in `processes.py` with processes.

Threads suit readers that release the GIL (Arrow does); Python code that runs per row belongs into processes, where it
cannot slow the event loop.
"""

import itertools
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
    """`start`, `resize` and `stop` block; `stop` may be called twice, or without `start`, and leaves nothing running.

    All workers take from one queue: a slow one takes only what it can do, and no job waits behind it.
    """

    @property
    def workers(self) -> int:
        """How many there are, or will be in a moment."""

    @property
    def restarted(self) -> int:
        """Workers that died and were replaced."""

    def processes(self) -> list[int]:
        """Ids of worker processes that run now; none where workers are threads."""

    def start(self, make: Make) -> None: ...

    def submit(self, job: Job) -> None:
        """Jobs are begun in the order they come."""

    def resize(self, workers: int) -> None:
        """More workers begin at once; fewer: those that are free next end, none leaves a job undone. Before `start` it
        only says how many there will be."""

    def stop(self) -> None: ...


class ThreadExecutor:
    """Workers are threads of this process."""

    def __init__(self, workers: int) -> None:
        check(workers)
        self.restarted: Final = 0
        self._workers = workers
        self._make: Make | None = None
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # None: whoever takes it ends
        self._threads: list[threading.Thread] = []
        self._names = itertools.count()
        self._changing = threading.Lock()

    @property
    def workers(self) -> int:
        return self._workers

    def processes(self) -> list[int]:
        return []

    def start(self, make: Make) -> None:
        with self._changing:
            self._make = make
            self._hire(make, self._workers)

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def resize(self, workers: int) -> None:
        check(workers)
        with self._changing:
            more, self._workers = workers - self._workers, workers
            if self._make is not None:
                self._hire(self._make, more)
                for _ in range(-more):
                    self._jobs.put(None)

    def stop(self) -> None:
        with self._changing:
            self._make = None
            threads, self._threads = self._threads, []
        for _ in threads:
            self._jobs.put(None)
        join(threads)
        refuse_all(self._jobs)

    def _hire(self, make: Make, workers: int) -> None:
        for _ in range(workers):
            # Daemons: a reader that hangs in the kernel must not keep the process from ending.
            name = f"chunk worker {next(self._names)}"
            thread = threading.Thread(target=self._run, args=(make,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, make: Make) -> None:
        def work(job: Job, todo: Work) -> None:
            make_chunks(make, todo, job.place, job.made)

        while job := self._jobs.get():
            attend(job, work)
        with self._changing:
            if (own := threading.current_thread()) in self._threads:
                self._threads.remove(own)


def check(workers: int) -> None:
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")


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


def refuse_all(jobs: "SimpleQueue[Job | None]", error: ServiceError | None = None) -> None:
    """Jobs that were not begun."""
    while not jobs.empty():
        if job := jobs.get():
            job.ended(error or Unavailable("the server is stopping"))
