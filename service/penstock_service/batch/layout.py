"""Where the values of fixed-width columns lie in an Arrow record batch message, so that they are gathered in place.

The metadata of such a message depends on the schema and the number of rows alone: it is taken from one that Arrow
itself made, and the values are written where that one has them.
"""

import struct
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from penstock_service.batch.fixed import dense, item_bytes, item_type, items_of, rebuild
from penstock_service.batch.spans import Columns
from penstock_service.core.feed import U8

Views = tuple[npt.NDArray[np.void], ...]

_ALIGNED: Final = 8  # bytes: Arrow's default for messages
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
        self._form: _Form | None = None
        self._known: OrderedDict[int, Layout] = OrderedDict()
        self._views: dict[int, tuple[weakref.ref[pa.RecordBatch], Views]] = {}
        self._last: dict[int, weakref.ref[pa.RecordBatch]] = {}
        self._columns: Columns | None = None  # of the last batches, whose memory it reads while they are there

    def of(self, rows: int) -> Layout | None:
        """None where a column has no fixed width, there are no rows, or Arrow's layout is not the known one."""
        if not rows or not self.widths or not all(self.widths):
            return None
        layout = self._known.get(rows)
        if layout is None:
            self._form = self._form or _Form(self.schema, self.widths)
            if not self._form.known:
                return None
            layout = self._known[rows] = self._form.of(rows)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(rows)
        return layout

    def columns(self, batches: Mapping[int, pa.RecordBatch], count: int) -> Columns | None:
        """The first `count` columns of the schema in `batches`; None where one of them holds nulls.

        Finding them takes longer than copying a few rows: they are kept, of each batch until it is gone, and together
        until other batches are asked for.
        """
        last = self._last
        if last.keys() == batches.keys() and all(of() is batches[number] for number, of in last.items()):
            return self._columns
        views = {number: self._items(batch, count) for number, batch in batches.items()}
        self._columns = Columns(views) if all(views.values()) else None
        self._last = {number: weakref.ref(batch) for number, batch in batches.items()}
        return self._columns

    def _items(self, batch: pa.RecordBatch, count: int) -> Views:
        """The values as NumPy items; empty where one of them holds nulls."""
        key = id(batch)
        known = self._views.get(key)
        if known is not None and known[0]() is batch:
            return known[1]
        found = [batch.column(name) for name in self.schema.names[:count]]
        views: Views = ()
        if all(map(dense, found)):
            views = tuple(items_of(a, w, item_type(w)) for a, w in zip(found, self.widths, strict=False))
        of = self._views
        self._views[key] = (weakref.ref(batch, lambda gone: _forget(of, key, gone)), views)
        return views


def _forget(views: "dict[int, tuple[weakref.ref[pa.RecordBatch], Views]]", key: int, gone: object) -> None:
    if (known := views.get(key)) is not None and known[0] is gone:  # else another batch has its number meanwhile
        del views[key]


class _Form:
    """The metadata of a message of one row, and where the numbers stand in it that change with the rows.

    To have Arrow write each message would cost as much as the message: segments differ in rows, so bundles do. The
    metadata is a flatbuffer (https://arrow.apache.org/docs/format/Columnar.html#recordbatch-message): tables of
    offsets, of which those of RecordBatch and its vectors of FieldNode and Buffer hold what counts.
    """

    def __init__(self, schema: pa.Schema, widths: list[int]) -> None:
        arrays = [rebuild(f.type, np.zeros(1, item_type(w)), 1) for f, w in zip(schema, widths, strict=True)]
        message = pa.RecordBatch.from_arrays(arrays, schema=schema).serialize().to_pybytes()
        (length,) = struct.unpack_from("<i", message, 4)
        self._head = message[: 8 + length]
        root = 8 + self._u32(8)
        self._body_at = self._field(root, 3)
        header = self._follow(self._field(root, 2))
        self._rows_at = self._field(header, 0)
        self._nodes = self._structs(self._follow(self._field(header, 1)))
        self._buffers = self._structs(self._follow(self._field(header, 2)))
        ends = [_padded(offset + size, _ALIGNED) for _, offset, size in self._buffers]
        starts = [offset for _, offset, _ in self._buffers] + [len(message) - len(self._head)]
        # Else a later Arrow lays messages out in another way: they are then written by it.
        self.known = [0, *ends] == starts and [size for _, _, size in self._buffers if size] == widths

    def of(self, rows: int) -> Layout:
        head = bytearray(self._head)
        for at, of_one, _ in self._nodes:
            struct.pack_into("<q", head, at, of_one * rows)
        body, starts, ends = 0, [], []
        for at, _, of_one in self._buffers:
            struct.pack_into("<qq", head, at, body, of_one * rows)
            if of_one:
                starts.append(len(head) + body)
                ends.append(starts[-1] + of_one * rows)
            body = _padded(body + of_one * rows, _ALIGNED)
        struct.pack_into("<q", head, self._rows_at, rows)
        struct.pack_into("<q", head, self._body_at, body)
        size = len(head) + body
        gaps = zip(ends, [*starts[1:], size], strict=True)
        return Layout(bytes(head), tuple((a, b) for a, b in gaps if a < b), tuple(starts), size)

    def _u32(self, at: int) -> int:
        return int(struct.unpack_from("<I", self._head, at)[0])

    def _follow(self, at: int) -> int:
        return at + self._u32(at)

    def _field(self, table: int, number: int) -> int:
        """Where a table keeps one of its fields."""
        fields = table - int(struct.unpack_from("<i", self._head, table)[0])
        return table + int(struct.unpack_from("<H", self._head, fields + 4 + 2 * number)[0])

    def _structs(self, vector: int) -> list[tuple[int, int, int]]:
        """Where each pair of numbers stands, and the pair."""
        places = range(vector + 4, vector + 4 + 16 * self._u32(vector), 16)
        return [(at, *struct.unpack_from("<qq", self._head, at)) for at in places]


def _padded(size: int, to: int) -> int:
    return -(-size // to) * to
