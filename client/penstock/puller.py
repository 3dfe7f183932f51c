"""Pulls the steps of one rank in order, from any position, whatever happens to the connection.

The position is that of what the caller received. When a stream breaks, what was received whole is handed out first,
then another stream is opened at the position: nothing is lost and nothing comes twice.
"""

import logging
import os
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock.batch import Batch, BatchMetadata
from penstock.errors import ConversionError, PenstockError, ServerError, ServerUnavailable
from penstock.link import Link, nobody_there
from penstock.profile import Clock
from penstock.receiver import Received, Receiver
from penstock.retry import Backoff
from penstock.subscription import Delivery, Order, Share
from penstock.tensors import BundleConverter, OpenBundle, plan_columns
from penstock.tensors.output import load_output
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


@dataclass
class _Open:
    """A bundle being cut."""

    header: pb.Bundle
    rows: OpenBundle
    start: Cursor
    next: int = 0

    def units_before(self, step: int) -> int:
        header = self.header
        units: int = step * header.units
        if step == header.steps and header.HasField("last_units"):
            units += header.last_units - header.units
        return units

    def cursor(self) -> Cursor:
        """After the steps handed out."""
        spans = [(s.segment, s.units, s.digest) for s in self.header.spans]
        return self.start.after(self.next, self.units_before(self.next), spans, self.header.taken)


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
        self._receiver: Receiver | None = None
        self._pid = os.getpid()
        self._converter: BundleConverter | None = None
        self._schema: pa.Schema | None = None
        self._bundle: _Open | None = None
        self._window = Window(delivery.prefetch, delivery.prefetch_bytes)
        self._owed: tuple[int, int] | None = None  # credits of the step that the user still works on
        self._backoff: Backoff | None = None
        self._connected_once = False
        self._told = 0.0  # when the log last said what we wait for
        self._rows = 0  # of the step cut last

    # -- position -----------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        return self._cursor.epoch if self._cursor is not None else self._epoch

    @property
    def step(self) -> int:
        """The next step of the epoch."""
        if self._bundle is not None:
            return int(self._bundle.header.first_step) + self._bundle.next
        return self._cursor.step if self._cursor is not None else 0

    def cursor(self) -> Cursor | None:
        """After what was received; None before the server was ever asked."""
        return self._bundle.cursor() if self._bundle is not None and self._bundle.next else self._cursor

    def seek(self, epoch: int, cursor: Cursor | None) -> None:
        """Go on at `cursor`, else at the start of `epoch`. Where we are there already, what is under way is kept."""
        here = self.cursor()
        if cursor is None and here is not None:
            cursor = replace(here, epoch=epoch, segment=0, taken=0, step=0, digest=0)
        if cursor is not None and here == cursor and self._pid == os.getpid():
            return
        self._drop_receiver()
        self._cursor, self._epoch = cursor, epoch

    # -- pulling ------------------------------------------------------------------------------------------------

    def ensure_open(self) -> pb.Opened:
        """Connect, if we are not: what the server says of the stream."""
        while self.opened is None:
            self._take(self._receive())
        return self.opened

    @property
    def schema(self) -> pa.Schema:
        self.ensure_open()
        assert self._schema is not None  # noqa: S101 - set with `opened`
        return self._schema

    def next(self) -> Batch | pa.RecordBatch | pb.EpochEnd:
        """The next step, or the end of the epoch (told once; the next call begins the following epoch)."""
        started = time.monotonic()
        if self._owed is not None:
            owed, self._owed = self._owed, None
            self._give_back(self._window.done(*owed))
        if self._bundle is None:
            end = self._next_bundle()
            if end is not None:
                return end
        step = self._cut()
        self.clock.step(time.monotonic() - started, step.num_rows if isinstance(step, pa.RecordBatch) else self._rows)
        return step

    def close(self) -> None:
        self._drop_receiver()

    def _next_bundle(self) -> pb.EpochEnd | None:
        started = time.monotonic()
        while True:
            item = self._receive()
            if isinstance(item, Received):
                self._backoff = None
                self._open_bundle(item, time.monotonic() - started)
                return None
            if isinstance(item, pb.EpochEnd):
                self._backoff = None
                self._end_epoch(item)
                return item
            self._take(item)

    def _take(self, item: Any) -> None:
        if isinstance(item, pb.Opened):
            self._take_opened(item)
        elif isinstance(item, pb.Filling):
            self._tell_filling(item)
        elif isinstance(item, PenstockError):
            self._failed(item)
        else:
            raise ServerError(f"{self._link.target} sent {type(item).__name__} before Opened: a bug in the server")

    def _receive(self) -> Any:
        if self._receiver is None or self._pid != os.getpid():
            self._drop_receiver()
            self._connect()
        assert self._receiver is not None  # noqa: S101 - just connected
        if self._receiver.waiting():
            self._give_back(self._window.flush())
        return self._receiver.get()

    def _connect(self) -> None:
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
        self._receiver = Receiver(self._link.channel(), message, self._link.target, self._link.metadata)
        self._receiver.start()

    def _take_opened(self, opened: pb.Opened) -> None:
        schema = pa.ipc.read_schema(pa.py_buffer(opened.schema))
        if self._schema is not None and not schema.equals(self._schema):
            raise ServerError(
                f"the stream came back with other columns: {schema.to_string()} instead of {self._schema.to_string()}; "
                "the dataset was registered anew under the same name; begin a new stream"
            )
        if self._converter is None:
            d = self._delivery
            self._converter = plan_columns(schema, d.output, ragged=d.ragged, nulls=d.nulls, fill=d.fill)
            if "valid" in self._converter.keys and self._share.may_pad:
                raise ConversionError(
                    "column 'valid' has the name of the mask that says which rows are data "
                    f"(last={self._share.last!r}); leave it out with columns=, rename it, or say last='drop' or "
                    "last='wrap'"
                )
        self._schema = schema
        self.opened = opened
        self._cursor = Cursor.from_json(opened.cursor)
        self.clock.transport = opened.transport
        if not self._connected_once:
            for note in opened.notes:
                _log.warning("%s", note)
            _log.info("connected to %s (%s): plan %s", self._link.target, opened.server, opened.plan)
        self._connected_once = True

    def _tell_filling(self, filling: pb.Filling) -> None:
        self.filling = filling
        now = time.monotonic()
        if now - self._told > _TELL_EVERY:
            self._told = now
            _log.info("waiting for the server: %s (%d of %d rows ready)", filling.stage, filling.rows, filling.of)

    def _failed(self, error: PenstockError) -> None:
        """The stream broke. Permanent errors are raised; else wait a little, then the next receive reconnects."""
        self._drop_receiver(keep_bundle=True)
        if not error.retryable:
            raise error
        if self._backoff is None:
            limit = self._delivery.reconnect_timeout if self._connected_once else CONNECT_TIMEOUT
            self._backoff = Backoff(min(limit, self._delivery.reconnect_timeout))
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
        header = item.header
        assert self._cursor is not None  # noqa: S101 - Opened came before
        assert self._converter is not None  # noqa: S101
        if (header.epoch, header.first_step) != (self._cursor.epoch, self._cursor.step):
            raise ServerError(
                f"expected step {self._cursor.step} of epoch {self._cursor.epoch}, the server sent step "
                f"{header.first_step} of epoch {header.epoch}: a bug in the server"
            )
        batch = pa.ipc.read_record_batch(pa.py_buffer(item.body), self._schema)
        rows = self._converter.open(batch, item.body)
        self._bundle = _Open(header, rows, self._cursor)
        self.clock.bundle(waited, header.rows_wait_us / 1e6, header.gather_us / 1e6, header.body_bytes)
        self.filling = None

    def _cut(self) -> Batch | pa.RecordBatch:
        bundle = self._bundle
        assert bundle is not None  # noqa: S101 - the caller saw to it
        header, step = bundle.header, bundle.next
        last = step + 1 == header.steps
        start = step * header.rows
        stop = start + (header.last_rows if last and header.HasField("last_rows") else header.rows)
        size = header.body_bytes // header.steps
        cut = bundle.rows.rows(start, stop)
        bundle.next += 1
        self._rows = stop - start
        self._owed = (1, size + header.body_bytes % header.steps if last else size)
        valid = self._valid(header.last_valid if last and header.HasField("last_valid") else None)
        number = header.first_step + step
        if last:
            self._cursor, self._bundle = bundle.cursor(), None
        if isinstance(cut, pa.RecordBatch):
            return cut if valid is None else cut.append_column("valid", pa.array(valid))
        world = self._share.world
        batch = Batch(cut, BatchMetadata(header.epoch, number, self._rows, world.rank, world.world_size))
        if valid is not None:
            batch["valid"] = load_output(self._delivery.output).wrap(valid)
        return self._placed(batch)

    def _valid(self, rows: int | None) -> np.ndarray[tuple[int], np.dtype[np.bool_]] | None:
        """Which rows are data: in every batch under `last="pad"`, else only where some are not."""
        if rows is None and self._share.last != "pad":
            return None
        return np.arange(self._rows) < (self._rows if rows is None else rows)

    def _placed(self, batch: Batch) -> Batch:
        if self._delivery.pin_memory:
            batch = batch.pin_memory()
        if self._delivery.device is not None:
            batch = batch.to(self._delivery.device, non_blocking=self._delivery.pin_memory)
        return batch

    def _end_epoch(self, end: pb.EpochEnd) -> None:
        assert self._cursor is not None  # noqa: S101 - Opened came before
        self._cursor = self._cursor.next_epoch()
        clock = self.clock
        clock.epochs += 1
        clock.dropped += end.dropped
        clock.padded += end.padded
        clock.repeated += end.repeated_rows

    def _give_back(self, credits_due: tuple[int, int] | None) -> None:
        if credits_due is not None and self._receiver is not None:
            self._receiver.credit(*credits_due)

    def _drop_receiver(self, keep_bundle: bool = False) -> None:
        """End the stream. A bundle in hand is whole and may still be cut, unless we go somewhere else."""
        if not keep_bundle and self._bundle is not None:
            self._cursor, self._bundle = self.cursor(), None
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.close()
