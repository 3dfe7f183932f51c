"""Threads for what releases the GIL, processes for what runs Python code on rows: these begin when first needed."""

import threading
from typing import Final

from penstock_service.chunks.executor import Executor, Job, ThreadExecutor
from penstock_service.chunks.processes import ProcessExecutor
from penstock_service.chunks.worker import Make
from penstock_service.core.errors import Unavailable


class MixedExecutor:
    """Implements `Executor`. Worker processes are fresh interpreters: nothing forks this one."""

    def __init__(self, workers: int) -> None:
        self.workers: Final = workers
        self._threads = ThreadExecutor(workers)
        self._processes: Executor = ProcessExecutor(workers)
        self._make: Make | None = None
        self._processes_run = False
        self._changing = threading.Lock()

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
            if self._make is None:
                job.ended(Unavailable("the server is stopping"))
                return
            if not self._processes_run:
                self._processes.start(self._make)
                self._processes_run = True
        self._processes.submit(job)

    def stop(self) -> None:
        with self._changing:
            self._make = None
        self._threads.stop()
        self._processes.stop()
