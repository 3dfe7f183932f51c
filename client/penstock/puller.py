"""Pulls the steps of one rank in order, from any position, whatever happens to the connection.

The position is that of what the caller received. When a stream breaks, what was received whole is handed out first,
then another stream is opened at the position: nothing is lost and nothing comes twice.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from penstock.ahead import Ahead
from penstock.cutting import Cutter, Cutting, Step
from penstock.errors import InvalidRequest, PenstockError, ServerError, ServerUnavailable
from penstock.identity import Identity, client_name
from penstock.link import Link
from penstock.profile import Clock
from penstock.receiver import Item, Received, Receiver
from penstock.standing import Standing
from penstock.subscription import TRANSPORTS, Delivery, Order, Share
from penstock.tally import Tally
from penstock.tensor_pool import TensorPool
from penstock.unpacking import CODECS
from penstock.waiting import Waiting
from penstock_proto.v1 import PROTOCOL
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.credit import Window
from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import Skips, skipped_from


class Puller:
    """One rank's steps. Used by one thread at a time; `close` may be called twice, and from a finalizer."""

    def __init__(self, link: Link, order: Order, share: Share, delivery: Delivery, who: Identity, clock: Clock) -> None:
        self.clock = clock
        self.opened: pb.Opened | None = None
        self._link = link
        self._order, self._share, self._delivery, self._who = order, share, delivery, who
        self._cursor: Cursor | None = None  # of the last thing received, or to go on from
        self._run: Mapping[str, Any] = {}  # the run and its journal as the server told them last
        self._heard: pb.Journal | None = None  # what of it was taken over
        self.branch = False  # the next Open begins a run of its own
        self._epoch = 0  # where there is no cursor
        self._left_at_end = False  # with no bundle in hand: are we between the last step of an epoch and its end?
        self.force = False  # the next Open takes the cursor even if it is of another stream
        self._receiver: Receiver | None = None
        self._pid = os.getpid()
        self._cutter: Cutter | None = None
        self._bundle: Cutting | None = None
        self._ahead = Ahead()
        self._window = Window(delivery.prefetch, delivery.prefetch_bytes)
        self._pool = delivery.tensor_pool or TensorPool()
        self._tally = Tally(self._pool)
        clock.received = self._tally.numbers
        self._owed: tuple[int, int] | None = None  # credits of the step that the user still works on
        self._standing = Standing(link, who, clock, delivery.reconnect_timeout)
        self._waiting = Waiting(link, clock, delivery.max_rows_per_s)
        self.closed = False
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
        here = self._bundle.cursor() if self._bundle is not None and self._bundle.done else self._cursor
        self._hear()
        return here if here is None or not self._run else replace(here, run=self._run)

    @property
    def run(self) -> str:
        """The id of the run; empty before the server was ever asked."""
        return str(self._run.get("id", ""))

    def take_run(self, run: str) -> None:
        """The journal as a change left it (JSON): cursors carry it from now on."""
        self._run = json.loads(run)

    def seek(self, epoch: int, cursor: Cursor | None = None, branch: bool | None = None) -> None:
        """Go on at `cursor`, else at the start of `epoch`. Where we are there already, what is under way is kept.

        Args:
            branch: in a run of its own, that begins with the cursor's entries of the journal. None: as was said last.
        """
        here, branch = self.cursor(), self.branch if branch is None else branch
        if cursor is None and here is not None:
            cursor = here.start_of(epoch)
        if cursor is not None and here == cursor and self._pid == os.getpid() and not (branch or self.branch):
            return
        self._leave()
        if branch or (cursor is not None and here is not None and not cursor.same_order(here)):
            self.opened = None  # what was said of the stream is of another run, seed or plan
        self._run = cursor.run if cursor is not None else {}
        self.branch = branch
        self._cursor, self._epoch, self._left_at_end = cursor, epoch, False

    def load(self, epoch: int, cursor: Cursor | None, skip: Skips, force: bool, branch: bool) -> None:
        """Go on at a saved position, with the steps that were to be skipped there."""
        self.skip(skip)
        self.seek(epoch, cursor, branch)
        self.force = force and self._receiver is None

    @property
    def skipped(self) -> Skips:
        return self._share.skip

    def skip(self, skip: Skips) -> None:
        """The steps to be passed over from here on; what is under way is dropped where they change."""
        if skip != self._share.skip:
            self._leave()
            self._share = replace(self._share, skip=skip)
            if self._cursor is not None:
                self._cursor = replace(self._cursor, skip=skip)

    def resize(self, global_batch: int) -> None:
        """Steps of another size from here on."""
        if global_batch != self._share.global_batch:
            self._leave()
            if self._share.last == "drop":
                self._left_at_end = False  # what was too little for a step may be enough for a smaller one
            self._share = replace(self._share, global_batch=global_batch)

    # -- pulling ------------------------------------------------------------------------------------------------

    def ensure_open(self) -> pb.Opened:
        """Connect, if we never did: what the server says of the stream."""
        while self.opened is None:
            self._advance(self._link.now())
        self._hear()
        return self.opened

    def reopen(self) -> None:
        """Where we are, on another connection: this one may have died without a word."""
        self._leave()
        self.opened = None
        self.ensure_open()

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
        self._begin()
        self._done_with_step()
        started += self._waiting.pace()  # before the position moves: an interrupt may come
        while (bundle := self._in_hand()) is None:
            end = self._advance(started)
            if end is not None:
                return end
        if bundle.cutter.carrier is not None:
            self._ahead.bring(bundle, self._receiver)
        step = bundle.next()
        self._waiting.took(bundle.last_rows)
        self._owed = bundle.credit()
        self.clock.step(self._link.now() - started, bundle.last_rows)
        self.clock.copied = bundle.cutter.copies.bytes
        return step

    @property
    def at_end(self) -> bool:
        """Was the last step of an epoch handed out, and its end not told yet?"""
        if self._bundle is None:
            return self._left_at_end
        return self._bundle.exhausted and bool(self._bundle.header.ends_epoch)

    def past_end(self) -> bool:
        """Go on to the next epoch, if all steps of this one were handed out; False, and nothing changed, if not.

        Where what was received does not say whether a step follows (rows too few for one may come yet, to be dropped),
        the server is asked: its answer is kept.
        """
        opened = self.opened
        all_steps = opened is not None and opened.HasField("steps") and self.step == opened.steps
        if not all_steps and not self.at_end:
            return False
        self._begin()
        self._done_with_step()
        while self._in_hand() is None:
            if self._advance(self._link.now()) is not None:
                return True
        return False

    def close(self, join: bool = True) -> None:
        """For good; may be called twice, the position stays. `join=False` from a finalizer."""
        self.closed = True
        self._drop_receiver(join=join)
        self._put_down()
        if self._cutter is not None and self._cutter.carrier is not None:
            self._cutter.carrier.close()
        if join and self._delivery.tensor_pool is None:  # a finalizer may run within the pool, its lock held
            self._pool.clear()

    def _where(self) -> tuple[int, int]:
        """The epoch and step that come next. Asked by other threads too."""
        bundle, cursor = self._bundle, self._cursor
        if bundle is not None:
            return int(bundle.header.epoch), int(bundle.header.first_step) + bundle.done
        return (cursor.epoch, cursor.step) if cursor is not None else (self._epoch, 0)

    def _begin(self) -> None:
        """What every step needs: that nobody fenced us, and that the server knows where we began."""
        if self._receiver is not None and self._receiver.fenced is not None:
            self._standing.fence(self._receiver.fenced)
            self._drop_receiver()
        self._standing.check()
        if self._pid != os.getpid():
            self._leave()  # the bundle in hand lies in memory that the parent may give back
        if self._standing.start is not None:
            return
        start = self._standing.begin(self._epoch, self.cursor())
        if self._receiver is not None:
            self._receiver.started(start)

    def _in_hand(self) -> Cutting | None:
        """The bundle being cut, if it has a step left."""
        if self._bundle is not None and self._bundle.exhausted:
            self._put_down()
        return self._bundle

    def _put_down(self) -> None:
        """Let go of the bundle in hand; the position stays, also that it is the end of an epoch."""
        self._left_at_end = self.at_end
        self._cursor, self._bundle = self.cursor(), None

    def _advance(self, since: float) -> pb.EpochEnd | None:
        """Take what comes next. The end of an epoch is returned; a bundle is then in hand; else nothing changed yet.

        If that fails half-way, the stream is ahead of the position: it is dropped, and opened anew where we are.
        """
        try:
            item = self._receive()
            if not isinstance(item, PenstockError):
                try:
                    return self._take(item, self._link.now() - since)
                except ServerUnavailable as lost:
                    item = lost.with_traceback(None)  # else it keeps this frame, and the frame keeps it and us
            self._drop_receiver()
            self._standing.failed(item)
        except BaseException:
            self._drop_receiver()
            raise
        return None

    def _take(self, item: Received | pb.Opened | pb.Filling | pb.EpochEnd, waited: float) -> pb.EpochEnd | None:
        """Raises ServerUnavailable for what does not follow what was here before."""
        if isinstance(item, Received):
            self._open_bundle(item, waited)
        elif isinstance(item, pb.EpochEnd):
            return self._end_epoch(item)
        elif isinstance(item, pb.Opened):
            self._take_opened(item)
        elif self._waiting.filling(item):
            self._standing.getting_on()
        return None

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
        self._standing.check()
        message = self.open_message(self.cursor())
        self._window = Window(self._delivery.prefetch, self._delivery.prefetch_bytes)
        self._owed = None
        self._pid = os.getpid()
        self._receiver = self._link.open(message, self._where, self._pool.buffer)
        self._tally.receiver(self._receiver)

    def open_message(self, cursor: Cursor | None) -> pb.Open:
        """What a session that goes on at `cursor` is opened with."""
        return pb.Open(
            protocol=PROTOCOL,
            stream=self._order.message(),
            view=self._share.message(),
            cursor=cursor.to_json() if cursor is not None else "",
            epoch=self._epoch,
            job=self._who.job,
            name=self._who.name,
            token=self._who.token,
            start=self._standing.start or "",
            reopened=self._standing.let_in,
            transports=TRANSPORTS[self._delivery.transport],
            window=pb.Credit(steps=self._delivery.prefetch, bytes=self._delivery.prefetch_bytes),
            client=client_name(),
            force=self.force,
            branch=self.branch,
            compression=self._delivery.compression,
            codecs=CODECS,
        )

    def _take_opened(self, opened: pb.Opened) -> None:
        schema = pa.ipc.read_schema(pa.py_buffer(opened.schema))
        if self._cutter is None:
            self._cutter = Cutter(schema, self._share, self._delivery, self._pool)
        elif not schema.equals(self._cutter.schema):
            raise ServerError(
                f"the stream came back with other columns: {schema.to_string()} instead of "
                f"{self._cutter.schema.to_string()}; the dataset was registered anew under the same name; "
                "begin a new stream"
            )
        self.opened = opened
        self._cursor = Cursor.from_json(opened.cursor)
        self._run, self.branch, self._heard = self._cursor.run, False, None
        self.clock.transport, self.clock.transport_reason = opened.transport, opened.transport_reason
        self._standing.opened(opened, tell=self.force)
        self.force = False

    # -- bundles ------------------------------------------------------------------------------------------------

    def _open_bundle(self, item: Received, waited: float) -> None:
        if self._cursor is None or self._cutter is None:
            raise ServerUnavailable(f"messages were lost: {self._link.target} sent a bundle before Opened")
        self._bundle = self._ahead.take(item) or self._cutter.open(item, self._cursor)
        self._standing.getting_on()
        self._waiting.over()
        header = item.header
        self.clock.bundle(waited, header.rows_wait_us / 1e6, header.gather_us / 1e6, header.body_bytes)

    def _end_epoch(self, end: pb.EpochEnd) -> pb.EpochEnd:
        cursor = self._cursor
        skipped = skipped_from(cursor.skip, cursor.epoch, cursor.step) if cursor is not None else 0
        if cursor is None or end.epoch != cursor.epoch or not 0 <= end.steps - cursor.step <= skipped:
            raise ServerUnavailable(
                f"messages were lost: the server ended epoch {end.epoch} after {end.steps} steps, but this side is at "
                f"{'no step yet' if cursor is None else f'step {cursor.step} of epoch {cursor.epoch}'}"
            )
        self._standing.getting_on()
        self._left_at_end = False
        self._cursor = cursor.next_epoch()
        self.clock.epoch(end)
        self._share.on_error.tell(end)
        self._give_back(self._window.flush())  # the next epoch's steps may be short of credit
        return end

    def _done_with_step(self) -> None:
        """The user asks for more: the credit of the last step goes back."""
        if self._owed is not None:
            owed, self._owed = self._owed, None
            self._give_back(self._window.done(*owed))

    def _hear(self) -> None:
        """Take over what the server has told of the journal since."""
        journal = self._receiver.journal if self._receiver is not None else None
        if journal is None or journal is self._heard or self.opened is None:
            return
        self._heard = journal
        told = json.loads(journal.run)
        if told["id"] == self._run.get("id") and told["n"] > self._run["n"]:
            self._run = told
        for name in ("steps", "rows"):
            self.opened.ClearField(name)
            if journal.HasField(name):
                setattr(self.opened, name, getattr(journal, name))

    def _give_back(self, credits_due: tuple[int, int] | None) -> None:
        if credits_due is not None and self._receiver is not None:
            self._receiver.credit(*credits_due)

    def _drop_receiver(self, join: bool = True) -> None:
        """End the stream. A bundle in hand is whole and may still be cut."""
        self._hear()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close(join)
            self._tally.ended()
        self._ahead.forget()

    def _leave(self) -> None:
        """Drop what is under way and in hand; the position stays."""
        self._drop_receiver()
        self._put_down()
        self._waiting.over()
