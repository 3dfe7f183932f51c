"""Workers as processes, for readers that run Python: each with a thread here that hands it jobs and hears what it says.

Nothing forks the server: a worker is a fresh interpreter (`child.py`), so that one may be replaced at any time, with
gRPC running. It writes chunk files itself and sends back only where they lie. Processes run at a lower priority than
the server (`child.py`): where CPUs are short, what is made already is delivered first.
"""

import itertools
import logging
import os
import pickle
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final

from penstock_service.chunks.executor import Job, attend, check, join, refuse_all
from penstock_service.chunks.hired import Lost, Worker, hire
from penstock_service.chunks.wire import Answer, Ask, Done, Over, Start
from penstock_service.chunks.worker import Make, Verdict, Work
from penstock_service.core.errors import ServiceError, Unavailable, WorkerKilled

logger = logging.getLogger(__name__)


class ProcessExecutor:
    """Workers are processes. One that dies is replaced, and what it was making is made again, `max_deaths` times."""

    def __init__(self, workers: int, *, max_deaths: int = 3) -> None:
        check(workers)
        if max_deaths < 1:
            raise ValueError(f"max_deaths is {max_deaths}; it must be 1 or more")
        self._workers = workers
        self._max_deaths = max_deaths
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # None: whoever takes it ends
        self._seats: list[_Seat] = []
        self._names = itertools.count()
        self._buried = 0
        self._start: Start | None = None
        self._changing = threading.Lock()  # never held while a process begins or ends

    @property
    def workers(self) -> int:
        return self._workers

    @property
    def restarted(self) -> int:
        return self._buried + sum(seat.deaths for seat in self._seats)

    def start(self, make: Make) -> None:
        """Raises Internal if a worker cannot start; nothing is left running then."""
        with self._changing:
            self._start = Start(os.getpid(), list(sys.path), pickle.dumps(make))
            seats = self._hire(self._start, self._workers)
        if error := _refusal(seats):
            self._end(error)
            raise error

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def resize(self, workers: int) -> None:
        """See `Executor`. Raises Internal if a new worker cannot start; those that can stay."""
        check(workers)
        with self._changing:
            more, self._workers = workers - self._workers, workers
            if self._start is None:
                return
            seats = self._hire(self._start, more)
            for _ in range(-more):
                self._jobs.put(None)
        if error := _refusal(seats):
            with self._changing:
                self._workers -= sum(seat.ready.exception() is not None for seat in seats)
            raise error

    def refuse(self, error: ServiceError) -> None:
        """Jobs that were not begun end with `error`."""
        refuse_all(self._jobs, error)

    def stop(self) -> None:
        self._end(None)

    def processes(self) -> list[int]:
        """Ids of the workers that run now."""
        return [worker.process.pid for seat in list(self._seats) if (worker := seat.worker)]

    def _hire(self, start: Start, workers: int) -> "list[_Seat]":
        seats = [
            _Seat(next(self._names), start, self._jobs, self._max_deaths, self._left) for _ in range(max(0, workers))
        ]
        self._seats += seats
        for seat in seats:
            seat.thread.start()
        return seats

    def _left(self, seat: "_Seat") -> None:
        with self._changing:
            if seat in self._seats:
                self._seats.remove(seat)
                self._buried += seat.deaths

    def _end(self, why: ServiceError | None) -> None:
        with self._changing:
            self._start = None
            seats = list(self._seats)
        for seat in seats:
            seat.stop()
        for _ in seats:
            self._jobs.put(None)
        join([seat.thread for seat in seats])
        with self._changing:
            self._buried, self._seats = self.restarted, []
        refuse_all(self._jobs, why)


def _refusal(seats: "Sequence[_Seat]") -> ServiceError | None:
    """Waits until each has a worker; why one has none."""
    errors = [error for seat in seats if isinstance(error := seat.ready.exception(), ServiceError)]
    return errors[0] if errors else None


class _Seat:
    """One thread and the worker it talks with. The thread starts the process, which ends with it."""

    def __init__(
        self,
        number: int,
        start: Start,
        jobs: "SimpleQueue[Job | None]",
        max_deaths: int,
        left: "Callable[[_Seat], None]",
    ) -> None:
        self.worker: Worker | None = None
        self.deaths = 0
        self.ready: Future[None] = Future()
        self._start = start
        self._jobs = jobs
        self._max_deaths = max_deaths
        self._left = left
        self._busy = False
        self._stopping = False
        self.thread: Final = threading.Thread(target=self._run, name=f"chunk worker {number}", daemon=True)

    def stop(self) -> None:
        self._stopping = True
        if self._busy and (worker := self.worker):
            worker.process.kill()  # it holds nothing: what it was writing is removed by our side

    def _run(self) -> None:
        try:
            self.worker = hire(self._start, self._max_deaths)
        except ServiceError as error:
            self._left(self)
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while job := self._jobs.get():
            self._busy = True
            attend(job, self._work)
            self._busy = False
        self._dismiss()
        self._left(self)

    def _work(self, job: Job, todo: Work) -> None:
        deaths = 0
        while todo.task.chunks:
            worker = self._manned()
            if self._stopping:
                raise Unavailable("the server is stopping")
            passed: set[int] = set()
            try:
                error = self._converse(worker, job, todo, passed)
            except Lost:
                job.abandon()
                end = self._bury(worker)
                deaths = 1 if passed else deaths + 1
                todo = todo.without(passed)
                if deaths >= self._max_deaths and todo.task.chunks and not self._stopping:
                    raise WorkerKilled(
                        f"{todo.describe(todo.task.chunks[0])}: the worker process that makes it died {deaths} times,"
                        f" last it {end}. Either its bytes crash the reader or a transform, or memory is short"
                        " (the kernel's log says so): use fewer workers then"
                    ) from None
            except BaseException:
                self._dismiss()  # it is in the middle of a sentence
                raise
            else:
                if error:
                    raise error
                return

    def _converse(self, worker: Worker, job: Job, todo: Work, passed: set[int]) -> ServiceError | None:
        """One task from start to end; `passed` collects the chunks that a next worker need not make again."""
        worker.say(todo)
        while True:
            match worker.hear():
                case Ask(chunk, size, trouble):
                    answer = _answer(job, chunk, size, trouble)
                    worker.say(answer)
                    if isinstance(answer, Verdict):
                        passed.add(chunk)
                case Done(chunk, place, info):
                    job.made(chunk, place, info)
                    passed.add(chunk)
                case Over(error, traceback):
                    if traceback:
                        logger.error("making a chunk failed in a worker process:\n%s", traceback)
                    return error

    def _manned(self) -> Worker:
        """A worker that is alive; a new one in place of one that died while it had nothing to do."""
        if self.worker and self.worker.process.poll() is not None:
            self._bury(self.worker)
        if self.worker is None:
            self.worker = hire(self._start, self._max_deaths)
        return self.worker

    def _bury(self, worker: Worker) -> str:
        """Its worker is gone. How it ended."""
        worker.process.kill()  # a no-op, unless it only closed its end
        self.worker = None
        end = worker.epitaph()
        worker.end()
        if not self._stopping:
            self.deaths += 1
            logger.warning("worker process %d %s; another takes its place", worker.process.pid, end)
        return end

    def _dismiss(self) -> None:
        worker, self.worker = self.worker, None
        if worker:
            worker.end()


def _answer(job: Job, chunk: int, size: int, trouble: str) -> Answer:
    try:
        return job.place(chunk, size, trouble)
    except ServiceError as error:
        return error
