"""Where the values of fixed-width columns lie in an Arrow record batch message, so that they are gathered in place.

The metadata of such a message depends on the schema and the number of rows alone: it is taken from one that Arrow
itself made, and the values are written where that one has them.
"""

import weakref
from collections import OrderedDict
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.fixed import dense, item_bytes, item_type, items_of, rebuild
from penstock_service.core.feed import U8

Views = tuple[npt.NDArray[np.void], ...]

_KEPT: Final = 16  # layouts of one schema: bundles of one session differ in rows only at the end of an epoch


class Layout(NamedTuple):
    """One message of so many rows."""

    head: bytes  # all that precedes the first column's values
    gaps: tuple[tuple[int, int], ...]  # bytes (from, to) behind the values of columns
    at: tuple[int, ...]  # of each column: where its values begin
    size: int

    def begin(self, memory: U8) -> None:
        """Write all but the values into `memory` [size]."""
        memory[: len(self.head)] = np.frombuffer(self.head, np.uint8)
        for start, stop in self.gaps:
            memory[start:stop] = 0


class Layouts:
    """The layouts of one schema. Used from one thread at a time."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.widths = [item_bytes(field.type) for field in schema]
        self._known: OrderedDict[int, Layout] = OrderedDict()
        self._views: dict[int, tuple[weakref.ref[pa.RecordBatch], Views]] = {}

    def of(self, rows: int) -> Layout | None:
        """None where a column has no fixed width, or there are no rows."""
        if not rows or not self.widths or not all(self.widths):
            return None
        layout = self._known.get(rows)
        if layout is None:
            layout = self._known[rows] = _measure(self.schema, self.widths, rows)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(rows)
        return layout

    def items(self, batch: pa.RecordBatch, columns: int) -> Views:
        """The values of the first columns of the schema as NumPy items; empty where one of them holds nulls.

        Finding them takes longer than copying a few rows: they are kept until the batch is gone.
        """
        key = id(batch)
        known = self._views.get(key)
        if known is not None and known[0]() is batch:
            return known[1]
        found = [batch.column(name) for name in self.schema.names[:columns]]
        views: Views = ()
        if all(map(dense, found)):
            views = tuple(items_of(a, w, item_type(w)) for a, w in zip(found, self.widths, strict=False))
        of = self._views
        self._views[key] = (weakref.ref(batch, lambda gone: _forget(of, key, gone)), views)
        return views


def _forget(views: "dict[int, tuple[weakref.ref[pa.RecordBatch], Views]]", key: int, gone: object) -> None:
    if (known := views.get(key)) is not None and known[0] is gone:  # else another batch has its number meanwhile
        del views[key]


def _measure(schema: pa.Schema, widths: list[int], rows: int) -> Layout:
    arrays = [
        rebuild(field.type, np.zeros(rows, item_type(width)), rows) for field, width in zip(schema, widths, strict=True)
    ]
    message = pa.RecordBatch.from_arrays(arrays, schema=schema).serialize()
    read = pa.ipc.read_record_batch(message, schema)
    at = [_values(column).address - message.address for column in read.columns]
    ends = [start + rows * width for start, width in zip(at, widths, strict=True)]
    gaps = zip(ends, [*at[1:], message.size], strict=True)
    head = message.slice(0, at[0]).to_pybytes()
    return Layout(head, tuple((a, b) for a, b in gaps if a < b), tuple(at), message.size)


def _values(array: pa.Array) -> pa.Buffer:
    return (array.storage if isinstance(array, pa.ExtensionArray) else array).buffers()[-1]
