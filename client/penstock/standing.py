"""How one rank stands with the server: where it began, if it was let in, who fenced it, how long it is tried again."""

import logging
import os
from typing import Final

from penstock.errors import Fenced, PenstockError, RanksDisagree, ServerDraining, ServerUnavailable
from penstock.identity import Identity
from penstock.link import Link, nobody_there
from penstock.profile import Clock
from penstock.retry import Backoff
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor

CONNECT_TIMEOUT: Final = 10.0

_log = logging.getLogger("penstock")


class Standing:
    """Outlives the connections of a stream."""

    def __init__(self, link: Link, who: Identity, clock: Clock, reconnect_timeout: float) -> None:
        self.connected = False  # some time, perhaps not now
        self.start: str | None = None  # where the first step was taken, for the server to compare; None: none yet
        self._link, self._who, self._clock = link, who, clock
        self._timeout = reconnect_timeout
        self._backoff: Backoff | None = None
        self._there_since: float | None = None  # the server, in this connection
        self._agreed = False  # a session was opened from `start`
        self._let_in = -1  # the process in which a session was opened
        self._fenced: Fenced | None = None

    @property
    def let_in(self) -> bool:
        """Was a session opened in this process before?"""
        return self._let_in == os.getpid()

    def check(self) -> None:
        """Raises Fenced once another process has taken the rank over."""
        if self._fenced is not None:
            raise Fenced(str(self._fenced))

    def fence(self, fenced: Fenced) -> None:
        self._fenced = fenced

    def begin(self, epoch: int, cursor: Cursor | None) -> str:
        """The first step is taken here: what is to be told of it."""
        self.start = self._who.begin(epoch, cursor)
        return self.start

    def opened(self, opened: pb.Opened, tell: bool) -> None:
        """A session was opened. What the user should know of it is logged the first time, and where we shall `tell`."""
        if tell or not self.connected:
            for note in opened.notes:
                _log.warning("%s", note)
            _log.info(
                "connected to %s (%s) over %s (%s): plan %s",
                *(self._link.target, opened.server, opened.transport, opened.transport_reason, opened.plan),
            )
        self._there_since = self._link.now()
        self._let_in = os.getpid()
        self._agreed = self.start is not None
        self.connected = self._link.answered = True

    def getting_on(self) -> None:
        """The user is closer to the next step than before: a failure that comes now is a new one."""
        self._backoff = None

    def failed(self, error: PenstockError) -> None:
        """The stream broke. Permanent errors are raised, also those that stay; else waits a little: connect again."""
        if isinstance(error, Fenced):
            self.fence(error)
        if not error.retryable:
            raise error
        disagree = isinstance(error, RanksDisagree)
        if disagree:
            self._let_in = -1  # judged anew
        since, self._there_since = self._there_since, None
        if self._backoff is None:
            self._backoff = self._first_failure(error, disagree)
        elif since is not None:  # reached, and lost again before a step came
            self._backoff.leave_out(self._link.now() - since)
        if not self._backoff.pause(error.retry_after if isinstance(error, ServerDraining) else 0.0):
            raise self._given_up(self._backoff, error, disagree)

    def _first_failure(self, error: PenstockError, disagree: bool) -> Backoff:
        brief = disagree or not self._link.answered
        limit, link = min(CONNECT_TIMEOUT if brief else self._timeout, self._timeout), self._link
        backoff = Backoff(limit, now=link.now, sleep=link.sleep, uniform=link.uniform)
        if disagree:
            _log.warning("%s; trying again for %.0f s", error, backoff.deadline)
        elif self.connected:
            self._clock.reconnects += 1
            _log.warning("lost the stream, reconnecting: %s", error)
        return backoff

    def _given_up(self, backoff: Backoff, error: PenstockError, disagree: bool) -> PenstockError:
        self._backoff = None
        if disagree and not self._agreed:
            self.start = None  # another state may be loaded now
            self._who.forget_begin()
        if not self._link.answered and isinstance(error, ServerUnavailable):
            return nobody_there(self._link.target, str(error))
        return type(error)(f"{error}; gave up after {backoff.attempts} attempts in {backoff.seconds:.0f} s")
