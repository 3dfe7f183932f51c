"""CSV and TSV: a header, then rows whose quoted fields may hold line ends.

CSV has no types, so those of a column are the narrowest that all its cells of one file fit, text at last. Whether a
cell fits is asked cell by cell, so how the file is cut into blocks makes no difference.
"""

from functools import lru_cache

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.types as t

from penstock_service.source.conform import cast_array, one_batch
from penstock_service.source.schemas import Widened, twice_named
from penstock_service.source.text.blocks import U8, BadSyntaxError, Cut, RowBlock
from penstock_service.source.text.jsonl import byte_order_mark
from penstock_service.source.text.quotes import cut_records
from penstock_service.source.text.syntax import Head, Inferred

_INFER_BLOCK = 1 << 20
_QUOTE = 34


class Delimited:
    """A row with another number of fields than the header is an error; empty lines are no rows."""

    semantics = 1
    optional_columns = False
    by_line = True

    def __init__(self, delimiter: str) -> None:
        self._delimiter = delimiter

    def head(self, data: U8, last: bool) -> Head | None:
        mark = byte_order_mark(data)
        text = data[mark.length :]
        found, inside = cut_records(text, ord(self._delimiter))
        if not len(found.starts):
            if last and inside:
                raise BadSyntaxError(mark.length, "a quote of the header is never closed")
            return mark if last else None
        end = int(found.starts[1]) if len(found.starts) > 1 else found.end
        if len(found.starts) == 1 and not last:
            return None  # the next row may follow after blank lines
        header = bytes(text[int(found.starts[0]) : end])
        try:
            names = _names(header, self._delimiter)
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise BadSyntaxError(mark.length, f"the header cannot be read: {error}") from error
        if name := twice_named(list(names)):
            raise BadSyntaxError(mark.length, f"the header has two columns named {name!r}: rename one")
        return Head(mark.length + end, int((text[:end] == 10).sum()), names)

    def cut(self, data: U8, last: bool, head: Head, whole: bool) -> Cut:
        found, inside = cut_records(data, ord(self._delimiter))
        if last and inside:
            raise BadSyntaxError(found.end, "in this row a quote is opened and never closed")
        return found

    def infer(self, block: RowBlock, head: Head) -> Inferred:
        data = block.bytes()
        quoted = bool((data == _QUOTE).any())
        small = len(data) < _INFER_BLOCK  # one block: the reader without threads is a third quicker to set up
        size = len(data) + 1 if quoted or small else max(_INFER_BLOCK, int(block.lengths().max()) + 1)
        reading = pc.ReadOptions(use_threads=not small, block_size=size, column_names=head.columns)
        options = (reading, _parsing(self._delimiter, quoted), _converting({}, None))
        source = pa.BufferReader(pa.py_buffer(data))
        table = pc.open_csv(source, *options).read_all() if small else pc.read_csv(source, *options)
        # a cell that is no UTF-8 makes Arrow call its column binary; it is text, and that row an error when read
        kinds = [pa.field(f.name, pa.string() if t.is_binary(f.type) else f.type) for f in table.schema]
        return Inferred(table.num_rows, pa.schema(kinds), table.nbytes)

    def parse(self, block: RowBlock, head: Head, schema: pa.Schema) -> pa.RecordBatch:
        data = block.bytes()
        names = [f.name for f in schema if f.name in head.columns]
        table = pc.read_csv(
            pa.BufferReader(pa.py_buffer(data)),
            read_options=pc.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=head.columns),
            parse_options=_parsing(self._delimiter, bool((data == _QUOTE).any())),
            convert_options=_converting({n: _csv_type(schema.field(n).type) for n in names}, names),
        )
        batch = one_batch(table.to_batches(), table.schema)
        columns = [
            cast_array(batch.column(f.name), f.type) if f.name in names else pa.nulls(batch.num_rows, f.type)
            for f in schema
        ]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def join(self, a: pa.Schema, b: pa.Schema) -> tuple[pa.Schema, list[Widened]]:
        widened = []
        fields = []
        for f in a:
            kind = _join_cells(f.type, b.field(f.name).type)
            if kind != f.type and not t.is_null(f.type):
                widened.append(Widened(f.name, f.type, kind))
            fields.append(pa.field(f.name, kind))
        return pa.schema(fields), widened


@lru_cache(maxsize=64)
def _names(header: bytes, delimiter: str) -> tuple[str, ...]:
    """The columns that a header names; thousands of files have the same."""
    return tuple(pc.read_csv(pa.BufferReader(header), parse_options=_parsing(delimiter, True)).schema.names)


def _parsing(delimiter: str, newlines: bool) -> pc.ParseOptions:
    return pc.ParseOptions(delimiter=delimiter, newlines_in_values=newlines)


def _converting(types: dict[str, pa.DataType], columns: list[str] | None) -> pc.ConvertOptions:
    return pc.ConvertOptions(
        column_types=types,
        include_columns=columns,
        # Arrow's own lists hold 1 and 0: then a column of ones and zeros would be bool or integer by what else is there
        true_values=["true", "True", "TRUE"],
        false_values=["false", "False", "FALSE"],
    )


def _join_cells(a: pa.DataType, b: pa.DataType) -> pa.DataType:
    if a == b or t.is_null(b):
        return a
    if t.is_null(a):
        return b
    kinds = (a, b)
    if all(t.is_int64(k) or t.is_float64(k) for k in kinds):
        return pa.float64()
    if all(t.is_date32(k) or (t.is_timestamp(k) and k.tz is None) for k in kinds):
        return pa.timestamp("ns" if any(t.is_timestamp(k) and k.unit == "ns" for k in kinds) else "s")
    if all(t.is_timestamp(k) for k in kinds) and a.tz == b.tz:
        return pa.timestamp("ns", a.tz)
    return pa.string()


def _csv_type(kind: pa.DataType) -> pa.DataType:
    """The type to parse to: as asked, where a cell can hold it. Other types come only with shards of other formats, and
    join with nothing but a column of empty cells."""
    if t.is_nested(kind) or isinstance(kind, pa.BaseExtensionType):
        return pa.null()
    return kind
