"""Cuts bundles into steps: what a step holds, which of its rows are data, where the trainer stands after it."""

import json
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock.batch import Batch, BatchMetadata
from penstock.errors import ConversionError, ServerUnavailable
from penstock.receiver import Received
from penstock.subscription import Delivery, Share
from penstock.tensor_pool import TensorPool
from penstock.tensors import BundleConverter, OpenBundle, plan_columns
from penstock.tensors.output import load_device, load_output
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1.cursor import Cursor
from penstock_proto.v1.skips import skipped_from

if TYPE_CHECKING:
    from penstock.tensors.to_device import Carrier

Rows = list[dict[str, Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]
Step: TypeAlias = Batch | pa.RecordBatch | Rows
"""What the training loop gets: with layout="rows" a list of dicts, with output="arrow" a record batch."""

_ORIGIN: Final = ("__source__", "__row__")


class Cutter:
    """Opens the bundles of one schema for one share."""

    def __init__(self, schema: pa.Schema, share: Share, delivery: Delivery, pool: TensorPool) -> None:
        """Raises ConversionError where a column cannot become what was asked for."""
        self.schema = schema
        self.share = share
        self._delivery = delivery
        # A record batch has no metadata: there they stay columns.
        self._hidden = _ORIGIN if share.row_ids and delivery.output != "arrow" else ()
        columns = pa.schema([field for field in schema if field.name not in self._hidden])
        self._converter: BundleConverter = plan_columns(
            columns,
            delivery.output,
            ragged=delivery.ragged,
            nulls=delivery.nulls,
            fill=delivery.fill,
            sparse=delivery.sparse,
            unified=delivery.unified_memory,
        )
        self.copies = self._converter.copies
        if "valid" in self._converter.keys and share.may_pad:
            raise ConversionError(
                "column 'valid' has the name of the mask that says which rows are data "
                f"(last={share.last!r}); leave it out with columns=, rename it, or say last='drop' or last='wrap'"
            )
        self._wrap_mask = load_output(delivery.output).wrap if delivery.output != "arrow" else None
        self.carrier: Carrier | None = None  # to the device, begun one step ahead
        if delivery.device is not None or delivery.pin_memory:
            self.carrier = load_device().carrier_of(delivery.device, delivery.pin_memory, pool)

    def open(self, item: Received, at: Cursor) -> "Cutting":
        """A bundle that begins at `at`, or behind the steps that are skipped there; else ServerUnavailable.

        gRPC loses messages where the process forks while it reads (grpcio 1.85): the stream is opened anew then.
        """
        header = item.header
        if skipped := skipped_from(at.skip, at.epoch, at.step):
            at = replace(at, step=at.step + skipped, segment=header.segment, taken=header.taken)
        if (header.epoch, header.first_step) != (at.epoch, at.step):
            raise ServerUnavailable(
                f"messages were lost: expected step {at.step} of epoch {at.epoch}, the server sent step "
                f"{header.first_step} of epoch {header.epoch}"
            )
        batch = pa.ipc.read_record_batch(pa.py_buffer(item.body), self.schema)
        origin = None
        if self._hidden:
            origin = {name: batch[name].to_numpy() for name in _ORIGIN}
            batch = batch.drop_columns(list(_ORIGIN))
        # The server counts units under this share's policy, whichever the state was saved under.
        at = replace(at, on_error=self.share.on_error.policy)
        bundle = self._converter.open(batch, item.body)
        if header.steps > 1 and self._delivery.layout != "rows":
            bundle.expect(header.rows)
        return Cutting(self, header, bundle, at, origin)

    def step(self, bundle: OpenBundle, start: int, metadata: BatchMetadata, valid: int | None) -> Step:
        """What the user gets of the rows from `start` on. `valid`: how many of them, the first ones, are data."""
        stop = start + metadata.rows
        mask = None
        if valid is not None or self.share.last == "pad":
            mask = np.arange(metadata.rows) < (metadata.rows if valid is None else valid)
        if self._delivery.layout == "rows":
            return self._rows(bundle, start, stop, mask, metadata.substituted)
        cut = bundle.rows(start, stop)
        if self._wrap_mask is None:
            return _arrow(cut, mask, metadata.substituted)
        batch = Batch(cut, metadata)
        if mask is not None:
            batch["valid"] = self._wrap_mask(mask)
        return batch

    def _rows(self, bundle: OpenBundle, start: int, stop: int, mask: Mask | None, substituted: Mask | None) -> Rows:
        rows = self._converter.each(bundle, start, stop)
        for name, marks in (("valid", mask), ("__substituted__", substituted)):
            if marks is not None:
                for row, marked in zip(rows, marks.tolist(), strict=True):
                    row[name] = marked
        return rows


def _arrow(batch: pa.RecordBatch, mask: Mask | None, substituted: Mask | None) -> pa.RecordBatch:
    """A record batch has no metadata of ours: what stands for bad rows is told in that of its schema."""
    if mask is not None:
        batch = batch.append_column("valid", pa.array(mask))
    if substituted is not None:
        told = {b"penstock.substituted": json.dumps(np.flatnonzero(substituted).tolist()).encode()}
        batch = batch.replace_schema_metadata({**(batch.schema.metadata or {}), **told})
    return batch


@dataclass
class Cutting:
    """A bundle and how many of its steps were handed out."""

    cutter: Cutter
    header: pb.Bundle
    rows: OpenBundle | None  # None: its last step is on its way to a device
    start: Cursor
    origin: dict[str, npt.NDArray[Any]] | None  # of each row, where it was asked for
    done: int = 0
    last_rows: int = 0  # of the step handed out last

    def __post_init__(self) -> None:
        # What each step needs as plain numbers: to ask the message takes longer than the rest of a small step.
        header = self.header
        self._steps, self._rows, self._first = int(header.steps), int(header.rows), int(header.first_step)
        self._share, self._rest = divmod(int(header.body_bytes), self._steps)
        self._plain = self.origin is None and not header.substituted
        self._begun: deque[tuple[int, Any, int]] = deque()  # steps on their way to a device: (number, step, rows)

    @property
    def exhausted(self) -> bool:
        return self.done == self._steps

    def next(self) -> Step:
        """The next step. Advances only when it was made."""
        carrier = self.cutter.carrier
        if carrier is None:
            step, rows = self._make(self.done)
        else:
            self.prepare(1)
            _, begun, rows = self._begun[0]
            step = carrier.finish(begun)
        self.done, self.last_rows = self.done + 1, rows
        if carrier is not None:
            self._begun.popleft()  # an interrupt may come between: see `prepare`
        return step

    def prepare(self, steps: int) -> int:
        """Begin to bring the next steps to the device; how many of so many are on their way: the bundle may end."""
        carrier = self.cutter.carrier
        while self._begun and self._begun[0][0] < self.done:
            self._begun.popleft()  # handed out
        while carrier is not None and len(self._begun) < steps and self.done + len(self._begun) < self._steps:
            number = self.done + len(self._begun)
            step, rows = self._make(number)
            self._begun.append((number, carrier.begin(step), rows))
            if self.done + len(self._begun) == self._steps:
                self.rows = None  # where all of it was copied, its memory goes back
        return len(self._begun)

    def _make(self, number: int) -> tuple[Any, int]:
        """A step, and its rows."""
        assert self.rows is not None  # noqa: S101 - what has begun is not made again
        rows, valid = self._rows, None
        if number + 1 == self._steps:
            header = self.header
            rows = header.last_rows if header.HasField("last_rows") else rows
            valid = header.last_valid if header.HasField("last_valid") else None
        start = number * self._rows
        stop = start + rows
        return self.cutter.step(self.rows, start, self._metadata(self._first + number, start, stop), valid), rows

    def credit(self) -> tuple[int, int]:
        """Steps and bytes of the step handed out last: shares of the bundle's bytes, the last one takes the rest."""
        return 1, self._share + self._rest if self.exhausted else self._share

    def cursor(self) -> Cursor:
        """After the steps handed out."""
        return self._after(self.done)

    def end(self) -> Cursor:
        """After all of its steps."""
        return self._after(self._steps)

    def _after(self, done: int) -> Cursor:
        header = self.header
        units = done * header.units
        if done == self._steps and header.HasField("last_units"):
            units += header.last_units - header.units
        return self.start.after(done, units, [(s.segment, s.units, s.digest) for s in header.spans], header.taken)

    def _metadata(self, step: int, start: int, stop: int) -> BatchMetadata:
        world, epoch = self.cutter.share.world, self.start.epoch
        if self._plain:
            return BatchMetadata(epoch, step, stop - start, world.rank, world.world_size)
        ids = source = None
        if self.origin is not None:
            ids, source = self.origin["__row__"][start:stop], self.origin["__source__"][start:stop]
        marks = self._substituted(start, stop)
        return BatchMetadata(epoch, step, stop - start, world.rank, world.world_size, ids, source, marks)

    def _substituted(self, start: int, stop: int) -> Mask | None:
        marked = self.header.substituted
        first, end = (bisect_left(marked, at) for at in (start, stop)) if marked else (0, 0)
        if first == end:
            return None
        marks = np.zeros(stop - start, np.bool_)
        marks[np.array(marked[first:end]) - start] = True
        return marks
