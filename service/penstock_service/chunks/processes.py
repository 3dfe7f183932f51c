"""Workers as processes, for readers that run Python: each with a thread here that hands it jobs and hears what it says.

Nothing forks the server: a worker is a fresh interpreter (`child.py`), so that one may be replaced at any time, with
gRPC running. It writes chunk files itself and sends back only where they lie.
"""

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, Final

from penstock_service.chunks.executor import Job, attend, join, refuse_all
from penstock_service.chunks.wire import Answer, Ask, Done, Over, Ready, Start
from penstock_service.chunks.worker import Make, Verdict, Work
from penstock_service.core.errors import Internal, ServiceError, Unavailable, WorkerKilled

logger = logging.getLogger(__name__)

_START_SECONDS: Final = 60.0  # an interpreter that imports Arrow and the reader
_END_SECONDS: Final = 2.0


class ProcessExecutor:
    """Workers are processes. One that dies is replaced, and what it was making is made again, `max_deaths` times."""

    def __init__(self, workers: int, *, max_deaths: int = 3) -> None:
        if workers < 1 or max_deaths < 1:
            raise ValueError(f"workers is {workers} and max_deaths {max_deaths}; each must be 1 or more")
        self.workers: Final = workers
        self._max_deaths = max_deaths
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._seats: list[_Seat] = []
        self._buried = 0

    @property
    def restarted(self) -> int:
        return self._buried + sum(seat.deaths for seat in self._seats)

    def start(self, make: Make) -> None:
        """Raises Internal if a worker cannot start; nothing is left running then."""
        start = Start(os.getpid(), list(sys.path), pickle.dumps(make))
        self._seats = [_Seat(n, start, self._jobs, self._max_deaths) for n in range(self.workers)]
        try:
            for seat in self._seats:
                seat.ready.result()
        except ServiceError:
            self.stop()
            raise

    def submit(self, job: Job) -> None:
        self._jobs.put(job)

    def stop(self) -> None:
        for seat in self._seats:
            seat.stop()
        for _ in self._seats:
            self._jobs.put(None)
        join([seat.thread for seat in self._seats])
        self._buried = self.restarted
        self._seats = []
        refuse_all(self._jobs)

    def processes(self) -> list[int]:
        """Ids of the workers that run now."""
        return [seat.worker.process.pid for seat in self._seats if seat.worker]


class _Lost(Exception):
    """The worker does not answer: it has died."""


def _hire(start: Start, tries: int) -> "_Worker":
    """A worker that is ready. One that dies before it is (killed, memory is short) is replaced like any other."""
    for _ in range(tries - 1):
        try:
            return _Worker(start)
        except _Lost as end:
            logger.warning("a worker process %s before it could begin; another takes its place", end)
    try:
        return _Worker(start)
    except _Lost as end:
        raise Internal(f"a worker process cannot begin: it {end}, {tries} times in a row") from None


class _Worker:
    """One process and the connection to it. Raises _Lost if it dies before it is ready."""

    def __init__(self, start: Start) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process: Final = subprocess.Popen(
                # -P: no module in the working folder takes the place of ours
                [sys.executable, "-P", "-m", "penstock_service.chunks.child", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )
        self._connection: Connection[Any, Any] = Connection(ours.detach())
        try:
            self.say(start)
            ready = self.hear() if self._connection.poll(_START_SECONDS) else Ready("it has not started in time")
        except _Lost:
            end = self.epitaph()
            self.end()
            raise _Lost(end) from None
        if ready.error:
            self.end()
            raise Internal(f"a worker process cannot begin: {ready.error}")

    def say(self, what: Start | Work | Answer) -> None:
        try:
            self._connection.send(what)
        except OSError as error:
            raise _Lost from error

    def hear(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise _Lost from error

    def end(self) -> None:
        """It ends by itself when it is idle, and is killed when it is not."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        self.process.kill()
        self.process.wait()

    def epitaph(self) -> str:
        code = self.process.wait()
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return f"was killed by signal {-code}"


class _Seat:
    """One thread and the worker it talks with. The thread starts the process, which ends with it."""

    def __init__(self, number: int, start: Start, jobs: "SimpleQueue[Job | None]", max_deaths: int) -> None:
        self.worker: _Worker | None = None
        self.deaths = 0
        self.ready: Future[None] = Future()
        self._start = start
        self._jobs = jobs
        self._max_deaths = max_deaths
        self._busy = False
        self._stopping = False
        self.thread: Final = threading.Thread(target=self._run, name=f"chunk worker {number}", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self._stopping = True
        if self._busy and (worker := self.worker):
            worker.process.kill()  # it holds nothing: what it was writing is removed by our side

    def _run(self) -> None:
        try:
            self.worker = _hire(self._start, self._max_deaths)
        except ServiceError as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        while job := self._jobs.get():
            self._busy = True
            attend(job, self._work)
            self._busy = False
        self._dismiss()

    def _work(self, job: Job, todo: Work) -> None:
        deaths = 0
        while todo.task.chunks:
            worker = self._manned()
            if self._stopping:
                raise Unavailable("the server is stopping")
            passed: set[int] = set()
            try:
                error = self._converse(worker, job, todo, passed)
            except _Lost:
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

    def _converse(self, worker: _Worker, job: Job, todo: Work, passed: set[int]) -> ServiceError | None:
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

    def _manned(self) -> _Worker:
        """A worker that is alive; a new one in place of one that died while it had nothing to do."""
        if self.worker and self.worker.process.poll() is not None:
            self._bury(self.worker)
        if self.worker is None:
            self.worker = _hire(self._start, self._max_deaths)
        return self.worker

    def _bury(self, worker: _Worker) -> str:
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
