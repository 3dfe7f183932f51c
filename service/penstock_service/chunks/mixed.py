"""Threads for what releases the GIL, processes for what runs Python code on rows: these begin when first needed."""

import threading

from penstock_service.chunks.executor import STOP_SECONDS, Job, ThreadExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.worker import Make
from penstock_service.core.errors import ServiceError, Unavailable


class MixedExecutor:
    """Implements `Executor`: so many threads, and as many processes. These are fresh interpreters: nothing forks this
    one, and whoever submits does not wait for them to begin."""

    def __init__(self, workers: int) -> None:
        self._threads = ThreadExecutor(workers)
        self._processes = ProcessExecutor(workers)
        self._make: Make | None = None
        self._starter: threading.Thread | None = None
        self._changing = threading.Lock()

    @property
    def workers(self) -> int:
        return self._threads.workers

    @property
    def restarted(self) -> int:
        return self._processes.restarted

    def processes(self) -> list[int]:
        return self._processes.processes()

    def start(self, make: Make) -> None:
        self._make = make
        self._threads.start(make)

    def submit(self, job: Job) -> None:
        if not job.runs_python:
            self._threads.submit(job)
            return
        with self._changing:
            if self._make is not None:
                self._processes.submit(job)
                self._begin(self._make)
                return
        job.ended(Unavailable("the server is stopping"))

    def resize(self, workers: int) -> None:
        self._threads.resize(workers)
        self._processes.resize(workers)

    def stop(self) -> None:
        with self._changing:
            self._make = None
            starter = self._starter
        self._threads.stop()
        if starter is not None:
            starter.join(STOP_SECONDS)
        self._processes.stop()

    def _begin(self, make: Make) -> None:
        if self._starter is None:
            self._starter = threading.Thread(
                target=self._start_processes, args=(make,), name="chunk processes", daemon=True
            )
            self._starter.start()

    def _start_processes(self, make: Make) -> None:
        try:
            self._processes.start(make)
        except ServiceError as error:  # told to the jobs that waited; the next one tries again
            with self._changing:
                self._starter = None
                self._processes.refuse(error)
