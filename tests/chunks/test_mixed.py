"""Threads and processes side by side: which job goes where, and that nobody waits for processes to begin."""

import sys
import threading
from queue import Queue

import psutil
import pytest

from penstock_service.chunks.file import Place
from penstock_service.chunks.hired import Worker, hire
from penstock_service.chunks.mixed import MixedExecutor
from penstock_service.chunks.wire import Start
from penstock_service.chunks.worker import Verdict, Work
from penstock_service.core.chunk import ChunkInfo
from penstock_service.core.errors import Internal, ServiceError, Unavailable
from tests.chunks import makers


class Errand:
    """A job that finds everything there: it says which thread asked it, and how it ended."""

    def __init__(self, runs_python: bool) -> None:
        self.runs_python = runs_python
        self.thread = ""
        self.end: Queue[ServiceError | None] = Queue()

    def prepare(self) -> Work | None:
        self.thread = threading.current_thread().name
        return None

    def place(self, chunk: int, size: int, trouble: str) -> Place | Verdict:
        raise NotImplementedError

    def made(self, chunk: int, place: Place, info: ChunkInfo) -> None:
        raise NotImplementedError

    def abandon(self) -> None: ...

    def ended(self, error: ServiceError | None) -> None:
        self.end.put(error)


def done(executor: MixedExecutor, runs_python: bool) -> ServiceError | None:
    errand = Errand(runs_python)
    executor.submit(errand)
    return errand.end.get(timeout=60)


def children() -> set[psutil.Process]:
    """Other tests of this process may have some."""
    return set(psutil.Process().children())


def test_processes_begin_with_the_first_python_and_the_caller_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    may_begin = threading.Event()

    def hire_later(start: Start, tries: int) -> Worker:
        may_begin.wait()
        return hire(start, tries)

    monkeypatch.setattr("penstock_service.chunks.processes.hire", hire_later)
    before = children()
    executor = MixedExecutor(2)
    executor.start(makers.make)
    try:
        assert done(executor, runs_python=False) is None
        assert children() <= before
        errand = Errand(runs_python=True)
        executor.submit(errand)
        assert errand.end.empty()
        may_begin.set()
        executor.resize(3)
        assert errand.end.get(timeout=60) is None
        executor.resize(1)
        assert (executor.workers, executor.restarted) == (1, 0)
    finally:
        may_begin.set()
        executor.stop()
        executor.stop()
    assert children() <= before
    assert isinstance(done(executor, runs_python=True), Unavailable)


def test_processes_that_cannot_begin_are_told_to_the_jobs_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    executor = MixedExecutor(1)
    executor.start(makers.make)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/bin/false")
            error = done(executor, runs_python=True)
            assert isinstance(error, Internal)
            assert "a worker process cannot begin" in str(error)
        assert done(executor, runs_python=False) is None
        while isinstance(error := done(executor, runs_python=True), Internal):
            assert "cannot begin" in str(error)  # submitted before the first failure was settled
        assert error is None
    finally:
        executor.stop()
    assert children() <= before
