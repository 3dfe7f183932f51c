"""JSON lines (one object per line) and JSON documents (an array of objects, or objects one after another)."""

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.types as t

from penstock_service.source.conform import cast_array, one_batch
from penstock_service.source.schemas import Widened, join_schemas
from penstock_service.source.text.blocks import U8, BadSyntaxError, Cut, RowBlock
from penstock_service.source.text.lines import cut_filled_lines, first_and_last_bytes
from penstock_service.source.text.objects import find_objects, one_per_line
from penstock_service.source.text.syntax import Head, Inferred

_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"
_INFER_BLOCK = 1 << 20  # blocks that Arrow's own threads infer at a time


class JsonLines:
    """Blank lines are no rows; a line that is no JSON object is a row that is an error. Strings stay strings."""

    semantics = 1
    optional_columns = True
    by_line = True

    def head(self, data: U8, last: bool) -> Head | None:
        return byte_order_mark(data)

    def cut(self, data: U8, last: bool, head: Head, whole: bool) -> Cut:
        return cut_filled_lines(data, last)

    def infer(self, block: RowBlock, head: Head) -> Inferred:
        self.check(block)
        data = block.buffer()
        if data.size < _INFER_BLOCK:  # one block: the reader without threads is a third quicker to set up
            table = pj.open_json(
                pa.BufferReader(data), pj.ReadOptions(use_threads=False, block_size=data.size + 1)
            ).read_all()
        else:
            size = max(_INFER_BLOCK, int(block.lengths().max()) + 1)
            table = pj.read_json(pa.BufferReader(data), read_options=pj.ReadOptions(block_size=size))
        schema = pa.schema([pa.field(f.name, _no_times(f.type)) for f in table.schema])
        return Inferred(table.num_rows, schema, table.nbytes)

    def parse(self, block: RowBlock, head: Head, schema: pa.Schema) -> pa.RecordBatch:
        self.check(block)
        data = block.buffer()
        table = pj.read_json(
            pa.BufferReader(data),
            read_options=pj.ReadOptions(use_threads=False, block_size=data.size + 1),
            parse_options=pj.ParseOptions(
                explicit_schema=pa.schema([pa.field(f.name, _json_type(f.type)) for f in schema]),
                unexpected_field_behavior="ignore",
            ),
        )
        batch = one_batch(table.to_batches(), table.schema)
        batch.validate(full=True)  # the parser lets bytes pass that are not UTF-8
        return pa.RecordBatch.from_arrays([cast_array(batch.column(f.name), f.type) for f in schema], schema=schema)

    def join(self, a: pa.Schema, b: pa.Schema) -> tuple[pa.Schema, list[Widened]]:
        return join_schemas(a, b, True, True)

    def check(self, block: RowBlock) -> None:
        """Each row begins with { and ends with }.

        The parser takes objects wherever they begin. With this, and as many objects as rows, each row is one object: a
        row that ends within an object ends with the } of a value, and after that no { can follow.
        """
        first, last = first_and_last_bytes(block.bytes(), block.starts - block.starts[0])
        wrong = (first != ord("{")) | (last != ord("}"))
        if wrong.any():
            raise pa.ArrowInvalid("not a JSON object")


class JsonDocument(JsonLines):
    """Objects of a .json file, on any number of lines. What stands between them must be nothing, or commas."""

    by_line = False  # one line may hold many

    def head(self, data: U8, last: bool) -> Head | None:
        mark = byte_order_mark(data)
        start = bytes(data[mark.length :]).lstrip(_SPACE)[:1]
        if not start and not last:
            return None
        if start not in (b"[", b"{", b""):
            raise BadSyntaxError(mark.length, "a JSON file of rows begins with [ or {")
        return mark._replace(array=start == b"[")

    def cut(self, data: U8, last: bool, head: Head, whole: bool) -> Cut:
        found = find_objects(data)
        if found.stray >= 0:
            text = bytes(data[found.stray : found.stray + 20]).decode(errors="replace")
            raise BadSyntaxError(found.stray, f"a JSON object is expected here, found {text!r}")
        if last and found.tail < len(data):
            raise BadSyntaxError(found.tail, "truncated: this JSON object is not closed")
        end = int(found.stops[-1]) if len(found.stops) else 0
        if last and whole and head.array:
            rest = bytes(data[end:]).rstrip(_SPACE)
            if not rest.endswith(b"]"):
                raise BadSyntaxError(end + len(rest), "truncated: the JSON array is not closed")
        one_per_line(data[:end], found)
        return Cut(found.starts, end)

    def check(self, block: RowBlock) -> None:
        """Rows were found by their braces: nothing is left to check."""


def byte_order_mark(data: U8) -> Head:
    return Head(len(_BOM) if bytes(data[: len(_BOM)]) == _BOM else 0, 0)


def _no_times(kind: pa.DataType) -> pa.DataType:
    """Arrow guesses times from strings, one block so, another not; JSON has no times."""
    if t.is_timestamp(kind):
        return pa.string()
    if t.is_list(kind):
        return pa.list_(_no_times(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([pa.field(f.name, _no_times(f.type)) for f in kind])
    return kind


def _json_type(kind: pa.DataType) -> pa.DataType:
    """The type to parse to: as asked, where JSON can hold it. Other types come only with shards of other formats, and
    join with nothing but a JSON column of nulls."""
    if t.is_list(kind):
        return pa.list_(_json_type(kind.value_type))
    if t.is_struct(kind):
        return pa.struct([pa.field(f.name, _json_type(f.type)) for f in kind])
    if t.is_floating(kind):
        return pa.float64()
    if t.is_integer(kind) or t.is_boolean(kind) or t.is_string(kind):
        return kind
    return pa.null()
