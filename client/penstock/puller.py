"""Pulls the steps of one rank in order, from any position, whatever happens to the connection.

The position is that of what the caller received. When a stream breaks, what was received whole is handed out first,
then another stream is opened at the position: nothing is lost and nothing comes twice.
"""

import logging
import os
import sys
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa

from penstock.cutting import Cutter, Cutting, Step
from penstock.errors import InvalidRequest, PenstockError, ServerError, ServerUnavailable
from penstock.link import Link, nobody_there
from penstock.profile import Clock
from penstock.receiver import Item, Received, Receiver
from penstock.retry import Backoff
from penstock.subscription import Delivery, Order, Share
from penstock.tensors.copies import page_aligned
from penstock_proto.v1 import PROTOCOL
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.credit import Window
from penstock_proto.v1.cursor import Cursor

CONNECT_TIMEOUT: Final = 10.0
_TELL_EVERY: Final = 5.0  # seconds between log lines while waiting for rows

_log = logging.getLogger("penstock")


@dataclass(frozen=True)
class Identity:
    """Who pulls: which ranks belong together, which stream of theirs, and which object of which process."""

    job: str
    name: str
    token: str
    client: str


class Puller:
    """One rank's steps. Used by one thread at a time; `close` may be called twice, and from a finalizer."""

    def __init__(self, link: Link, order: Order, share: Share, delivery: Delivery, who: Identity, clock: Clock) -> None:
        self.clock = clock
        self.filling: pb.Filling | None = None
        self.opened: pb.Opened | None = None
        self._link = link
        self._order, self._share, self._delivery, self._who = order, share, delivery, who
        self._cursor: Cursor | None = None  # of the last thing received, or to go on from
        self._epoch = 0  # where there is no cursor
        self._last: Cursor | None = None  # after the last step of an epoch
        self._receiver: Receiver | None = None
        self._pid = os.getpid()
        self._cutter: Cutter | None = None
        self._bundle: Cutting | None = None
        self._window = Window(delivery.prefetch, delivery.prefetch_bytes)
        self._owed: tuple[int, int] | None = None  # credits of the step that the user still works on
        self._backoff: Backoff | None = None
        self._connected_once = False
        self._told = 0.0  # when the log last said what we wait for
        self.closed = False
        self._due = 0.0  # when the next step may be handed out, where that is paced
        clock.target_rows_per_s = share.target_rows_per_s

    # -- position -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._cursor.epoch if self._cursor is not None else self._epoch

    @property
    def step(self) -> int:
        """The next step of the epoch."""
        if self._bundle is not None:
            return int(self._bundle.header.first_step) + self._bundle.done
        return self._cursor.step if self._cursor is not None else 0

    def cursor(self) -> Cursor | None:
        """After what was received; None before the server was ever asked."""
        return self._bundle.cursor() if self._bundle is not None and self._bundle.done else self._cursor

    def seek(self, epoch: int, cursor: Cursor | None) -> None:
        """Go on at `cursor`, else at the start of `epoch`. Where we are there already, what is under way is kept."""
        here = self.cursor()
        if cursor is None and here is not None:
            cursor = replace(here, epoch=epoch, segment=0, taken=0, step=0, digest=0)
        if cursor is not None and here == cursor and self._pid == os.getpid():
            return
        self._leave()
        self._cursor, self._epoch = cursor, epoch

    def resize(self, global_batch: int) -> None:
        """Steps of another size from here on."""
        if global_batch != self._share.global_batch:
            self._leave()
            self._last = None  # what was too little for a step may be enough for a smaller one
            self._share = replace(self._share, global_batch=global_batch)

    # -- pulling ------------------------------------------------------------------------------------------------

    def ensure_open(self) -> pb.Opened:
        """Connect, if we never did: what the server says of the stream."""
        while self.opened is None:
            self._advance(self._link.now())
        return self.opened

    @property
    def schema(self) -> pa.Schema:
        self.ensure_open()
        assert self._cutter is not None  # noqa: S101 - made with `opened`
        return self._cutter.schema

    def next(self) -> Step | pb.EpochEnd:
        """The next step, or the end of the epoch (told once; the next call begins the following epoch).

        Whatever is raised, here or by an interrupt, the position stays that of what was returned.
        """
        started = self._link.now()
        self._done_with_step()
        while (bundle := self._in_hand()) is None:
            end = self._advance(started)
            if end is not None:
                return end
        step = bundle.next()
        self._owed = bundle.credit()
        self.clock.step(self._link.now() - started, bundle.last_rows)
        self.clock.copied = bundle.cutter.copies.bytes
        if self._delivery.max_rows_per_s is not None:
            self._pace(bundle.last_rows / self._delivery.max_rows_per_s)
        return step

    @property
    def at_end(self) -> bool:
        """Was the last step of an epoch handed out, and its end not told yet?"""
        if self._bundle is not None:
            return self._bundle.exhausted and self._bundle.header.ends_epoch
        return self._cursor is not None and self._cursor == self._last

    def past_end(self) -> bool:
        """Go on to the next epoch, if all steps of this one were handed out; False, and nothing changed, if not.

        Where what was received does not say whether a step follows (rows too few for one may come yet, to be dropped),
        the server is asked: its answer is kept.
        """
        opened = self.opened
        all_steps = opened is not None and opened.HasField("steps") and self.step == opened.steps
        if not all_steps and not self.at_end:
            return False
        self._done_with_step()
        while self._in_hand() is None:
            if self._advance(self._link.now()) is not None:
                return True
        return False

    def close(self, join: bool = True) -> None:
        """For good; may be called twice. `join=False` from a finalizer."""
        self.closed = True
        self._drop_receiver(join=join)

    def _in_hand(self) -> Cutting | None:
        """The bundle being cut, if it has a step left."""
        if self._bundle is not None and self._bundle.exhausted:
            self._put_down()
        return self._bundle

    def _put_down(self) -> None:
        """Let go of the bundle in hand; the position stays, also that it is the end of an epoch."""
        last = self.at_end
        self._cursor, self._bundle = self.cursor(), None
        if last:
            self._last = self._cursor

    def _advance(self, since: float) -> pb.EpochEnd | None:
        """Take what comes next. The end of an epoch is returned; a bundle is then in hand; else nothing changed yet.

        If that fails half-way, the stream is ahead of the position: it is dropped, and opened anew where we are.
        """
        try:
            item = self._receive()
            if isinstance(item, Received):
                self._open_bundle(item, self._link.now() - since)
            elif isinstance(item, pb.EpochEnd):
                return self._end_epoch(item)
            elif isinstance(item, pb.Opened):
                self._take_opened(item)
            elif isinstance(item, pb.Filling):
                self._tell_filling(item)
            else:
                self._failed(item)
        except BaseException:
            self._drop_receiver()
            raise
        return None

    def _pace(self, seconds: float) -> None:
        """Hold a step back until the steps before it have had their time."""
        now = self._link.now()
        due = max(now, self._due)
        self._due = due + seconds
        if due > now:
            self.clock.paced += due - now
            self._link.sleep(due - now)

    def _receive(self) -> Item:
        if self._receiver is None or self._pid != os.getpid():
            self._drop_receiver()
            self._connect()
        assert self._receiver is not None  # noqa: S101 - just connected
        if self._receiver.waiting():
            self._give_back(self._window.flush())
        return self._receiver.get()

    def _connect(self) -> None:
        if self.closed:
            raise InvalidRequest("this stream is closed; open another one with client.stream(...)")
        cursor = self._cursor
        message = pb.Open(
            protocol=PROTOCOL,
            stream=self._order.message(),
            view=self._share.message(),
            cursor=cursor.to_json() if cursor is not None else "",
            epoch=self._epoch,
            job=self._who.job,
            name=self._who.name,
            token=self._who.token,
            transports=["grpc"],
            window=pb.Credit(steps=self._delivery.prefetch, bytes=self._delivery.prefetch_bytes),
            client=self._who.client,
        )
        self._window = Window(self._delivery.prefetch, self._delivery.prefetch_bytes)
        self._owed = None
        self._pid = os.getpid()
        # What Metal adopts must be whole pages; elsewhere they would only cost page faults.
        memory = page_aligned if self._delivery.output == "mlx" and sys.platform == "darwin" else None
        self._receiver = self._link.open(message, memory)

    def _take_opened(self, opened: pb.Opened) -> None:
        schema = pa.ipc.read_schema(pa.py_buffer(opened.schema))
        if self._cutter is None:
            self._cutter = Cutter(schema, self._share, self._delivery)
        elif not schema.equals(self._cutter.schema):
            raise ServerError(
                f"the stream came back with other columns: {schema.to_string()} instead of "
                f"{self._cutter.schema.to_string()}; the dataset was registered anew under the same name; "
                "begin a new stream"
            )
        self.opened = opened
        self._cursor = Cursor.from_json(opened.cursor)
        self.clock.transport = opened.transport
        if not self._connected_once:
            for note in opened.notes:
                _log.warning("%s", note)
            _log.info("connected to %s (%s): plan %s", self._link.target, opened.server, opened.plan)
        self._connected_once = True

    def _tell_filling(self, filling: pb.Filling) -> None:
        if filling.rows > (self.filling.rows if self.filling is not None else 0):
            self._backoff = None  # the server is getting on
        self.filling = filling
        now = self._link.now()
        if now - self._told > _TELL_EVERY:
            self._told = now
            _log.info("waiting for the server: %s (%d of %d rows ready)", filling.stage, filling.rows, filling.of)

    def _failed(self, error: PenstockError) -> None:
        """The stream broke. Permanent errors are raised; else wait a little, then the next receive reconnects."""
        self._drop_receiver()
        if not error.retryable:
            raise error
        if self._backoff is None:
            limit = self._delivery.reconnect_timeout
            if not self._connected_once:
                limit = min(limit, CONNECT_TIMEOUT)
            link = self._link
            self._backoff = Backoff(limit, now=link.now, sleep=link.sleep, uniform=link.uniform)
            if self._connected_once:
                self.clock.reconnects += 1
                _log.warning("lost the stream, reconnecting: %s", error)
        if not self._backoff.pause():
            backoff, self._backoff = self._backoff, None
            if not self._connected_once and isinstance(error, ServerUnavailable):
                raise nobody_there(self._link.target, str(error))
            raise type(error)(f"{error}; gave up after {backoff.attempts} attempts in {backoff.seconds:.0f} s")

    # -- bundles ------------------------------------------------------------------------------------------------

    def _open_bundle(self, item: Received, waited: float) -> None:
        if self._cursor is None or self._cutter is None:
            raise ServerError(f"{self._link.target} sent a bundle before Opened: a bug in the server")
        self._bundle = self._cutter.open(item, self._cursor)
        self._backoff = self.filling = None
        header = item.header
        self.clock.bundle(waited, header.rows_wait_us / 1e6, header.gather_us / 1e6, header.body_bytes)

    def _end_epoch(self, end: pb.EpochEnd) -> pb.EpochEnd:
        cursor = self._cursor
        if cursor is None or (end.epoch, end.steps) != (cursor.epoch, cursor.step):
            raise ServerError(
                f"the server ended epoch {end.epoch} after {end.steps} steps, but this side is at "
                f"{'no step yet' if cursor is None else f'step {cursor.step} of epoch {cursor.epoch}'}: a bug"
            )
        self._backoff = None
        self._cursor = cursor.next_epoch()
        self.clock.epoch(end)
        self._give_back(self._window.flush())  # the next epoch's steps may be short of credit
        return end

    def _done_with_step(self) -> None:
        """The user asks for more: the credit of the last step goes back."""
        if self._owed is not None:
            owed, self._owed = self._owed, None
            self._give_back(self._window.done(*owed))

    def _give_back(self, credits_due: tuple[int, int] | None) -> None:
        if credits_due is not None and self._receiver is not None:
            self._receiver.credit(*credits_due)

    def _drop_receiver(self, join: bool = True) -> None:
        """End the stream. A bundle in hand is whole and may still be cut."""
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close(join)

    def _leave(self) -> None:
        """Drop what is under way and in hand; the position stays."""
        self._drop_receiver()
        self._put_down()
