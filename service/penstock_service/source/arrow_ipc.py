"""Arrow IPC, file and stream (told apart by their first bytes): the read unit is a record batch.

A stream with dictionaries has one unit, all of it: a batch means nothing without the dictionaries before it.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import Slice
from penstock_service.core.errors import DataError
from penstock_service.source.arrow_layout import BrokenLayoutError, Layout, is_file, layout_of
from penstock_service.source.conform import conform, join_values, row_name
from penstock_service.source.cut import even_pieces
from penstock_service.source.digest import binary_fingerprint
from penstock_service.source.format import ChunkLimits, Piece, ShardFile, ShardScan, ShardWatch
from penstock_service.source.place import Range, storage_errors
from penstock_service.source.rows import RowStream
from penstock_service.source.schemas import fixed_row_bytes, plain_schema, twice_named

_SAMPLE_ROWS = 1024
_FEATHER_1 = b"FEA1"


class ArrowIpc:
    name = "arrow"
    semantics = 1
    suffixes = (".arrow", ".feather", ".ipc", ".arrows")
    optional_columns = False

    def scan(self, file: ShardFile, limits: ChunkLimits, watch: ShardWatch) -> ShardScan:
        with storage_errors(file.full), file.place.open(file.path) as stream:
            layout, whole = _layout(stream, file)
            opened = _Opened(stream)
            schema = plain_schema(opened.schema)
            if name := twice_named(schema.names):
                raise DataError(f"{file.full} has two columns named {name!r}: rename one")
            width = fixed_row_bytes(schema)
            if width is None:
                width = _sampled_row_bytes(opened, layout, whole, schema)
        rows = sum(span.rows for span in layout.batches)
        pieces: list[Piece] = []
        if whole:
            pieces = even_pieces(0, rows, int(width * rows), limits)
        else:
            for unit, span in enumerate(layout.batches):
                size = int(width * span.rows)
                pieces.extend(even_pieces(unit, span.rows, size, limits, span.offset, span.length))
        watch.reached(0)
        return ShardScan(schema, rows, self.fingerprint(file), pieces)

    def fingerprint(self, file: ShardFile) -> str:
        return binary_fingerprint(file, lambda: 0)

    def read(self, file: ShardFile, slices: Sequence[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
        units = dict.fromkeys((s.offset, s.length) for s in slices)
        expected = [[Range(offset, length or file.state.size)] for offset, length in units]
        with storage_errors(file.full), file.place.open(file.path, expected) as stream:
            opened = _Opened(stream)
            for unit, group in groupby(slices, key=lambda s: s.unit):
                pieces = list(group)
                where = f"{file.full}, record batch {unit}"
                with storage_errors(where):
                    rows = RowStream(opened.batches(unit, pieces[0].offset, pieces[0].length), where)
                    for piece in pieces:
                        yield _slice(rows, piece, schema)


def _slice(rows: RowStream[pa.RecordBatch], piece: Slice, schema: pa.Schema) -> ChunkValue:
    rows.skip_to(piece.unit_row)
    parts = []
    at = piece.first_row
    for batch in rows.take(piece.rows):
        batch.validate(full=True)  # offsets beyond the data would be read by whoever takes rows
        picked = batch.select([name for name in schema.names if name in batch.schema.names])
        parts.append(conform(picked, schema, row_name(piece.path, at)))
        at += batch.num_rows
    return join_values(parts, schema)


class _Opened:
    """An IPC file or stream with its schema (and footer) decoded once."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._file = None
        of_file = is_file(stream)
        stream.seek(0)
        if of_file:
            self._file = pa.ipc.open_file(stream)
            self.schema = self._file.schema
        else:
            self.schema = pa.ipc.open_stream(stream).schema

    def batches(self, unit: int, offset: int, length: int) -> Iterator[pa.RecordBatch]:
        """The batches of one unit; `length` is 0 where the unit is the whole stream."""
        if self._file is not None:
            yield self._file.get_batch(unit)
        elif length:
            self._stream.seek(offset)
            yield pa.ipc.read_record_batch(pa.ipc.read_message(self._stream), self.schema)
        else:
            self._stream.seek(0)
            yield from pa.ipc.open_stream(self._stream)


def _layout(stream: pa.NativeFile, file: ShardFile) -> tuple[Layout, bool]:
    """The layout, and whether the shard can only be read as a whole."""
    if file.state.size == 0:
        raise DataError(f"{file.full} is empty (0 bytes): no Arrow file")
    if bytes(stream.read(4)) == _FEATHER_1:
        raise DataError(f"{file.full} is a Feather V1 file: write it again with pyarrow.feather.write_feather")
    try:
        layout = layout_of(stream, file.state.size, lambda ranges: file.place.open(file.path, [ranges]))
    except BrokenLayoutError as error:
        raise DataError(f"{file.full} is corrupt or truncated: {error}") from error
    return layout, layout.dictionaries and not is_file(stream)


def _sampled_row_bytes(opened: _Opened, layout: Layout, whole: bool, schema: pa.Schema) -> float:
    """Bytes of a processed row, from the first rows of the first batch and the size of all bodies."""
    rows = sum(span.rows for span in layout.batches)
    if rows == 0:
        return 0.0
    stored = sum(span.body for span in layout.batches) / rows
    unit = next(unit for unit, span in enumerate(layout.batches) if span.rows)
    span = layout.batches[unit]
    for batch in opened.batches(unit, span.offset, 0 if whole else span.length):
        if batch.num_rows:
            sample = conform(batch.slice(0, _SAMPLE_ROWS), schema, str).rows
            size: int = sample.nbytes
            return max(size / max(int(sample.num_rows), 1), stored)
    return stored
