"""Parquet: the read unit is a row group; one that is bigger than a chunk is read once, batch by batch."""

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import Slice
from penstock_service.core.errors import DataError
from penstock_service.source.conform import conform, join_values, row_name
from penstock_service.source.cut import even_pieces
from penstock_service.source.digest import binary_fingerprint
from penstock_service.source.format import ChunkLimits, Piece, ShardFile, ShardScan, ShardWatch
from penstock_service.source.place import Place, Range, storage_errors
from penstock_service.source.rows import RowStream
from penstock_service.source.schemas import fixed_row_bytes, plain_schema, twice_named

_SAMPLE_ROWS = 1024
_BATCH_ROWS = 1 << 16
_BUFFER_BYTES = (
    1 << 20
)  # objects/parts.py counts on it; a buffered column stream: without one a whole column chunk is in memory at once


class Parquet:
    name = "parquet"
    semantics = 1
    suffixes = (".parquet", ".pq", ".parq")
    optional_columns = False

    def scan(self, file: ShardFile, limits: ChunkLimits, watch: ShardWatch) -> ShardScan:
        with storage_errors(f"{file.full} (footer at byte {max(file.state.size - 8, 0)})"), _open(file) as opened:
            footer = opened.metadata
            schema = plain_schema(opened.schema_arrow)
            if name := twice_named(schema.names):
                raise DataError(f"{file.full} has two columns named {name!r}: rename one")
            _check_extent(file, footer)
            width = fixed_row_bytes(schema)
            sampled = width if width is not None else _sampled_row_bytes(opened, schema)
        pieces: list[Piece] = []
        for unit in range(footer.num_row_groups):
            group = footer.row_group(unit)
            size = int(sampled * group.num_rows)
            if width is None:  # encoded values are hardly ever bigger than decoded ones
                size = max(size, group.total_byte_size)
            pieces.extend(even_pieces(unit, group.num_rows, size, limits))
        watch.reached(0)
        return ShardScan(schema, footer.num_rows, self.fingerprint(file), pieces)

    def fingerprint(self, file: ShardFile) -> str:
        return binary_fingerprint(file, lambda: _footer_bytes(file))

    def read(self, file: ShardFile, slices: Sequence[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
        units = list(dict.fromkeys(s.unit for s in slices))
        with storage_errors(file.full), _open(file, units, set(schema.names)) as opened:
            found = set(opened.schema_arrow.names)
            columns = [name for name in schema.names if name in found]
            for unit, group in groupby(slices, key=lambda s: s.unit):
                yield from _read_group(file, opened, unit, list(group), columns, schema)


@contextmanager
def _open(file: ShardFile, units: Sequence[int] = (), columns: Set[str] = frozenset()) -> Iterator[pq.ParquetFile]:
    """The file, to read these columns of these row groups."""
    footer = _footer(file.place, file.path, file.state.size, file.state.mtime_ns)
    expected = [_ranges(footer, unit, columns) for unit in units if unit < footer.num_row_groups]
    with file.place.open(file.path, expected) as stream:
        # Arrow's pre_buffer would hold whole row groups, and would not try again what failed
        yield pq.ParquetFile(stream, metadata=footer, buffer_size=_BUFFER_BYTES, pre_buffer=False)


def _ranges(footer: pq.FileMetaData, unit: int, columns: Set[str]) -> list[Range]:
    """Where the column chunks of a row group lie."""
    group = footer.row_group(unit)
    chunks = [group.column(i) for i in range(group.num_columns)]
    return [
        Range(_first_byte(chunk), chunk.total_compressed_size)
        for chunk in chunks
        if chunk.path_in_schema in columns or chunk.path_in_schema.partition(".")[0] in columns
    ]


def _first_byte(column: pq.ColumnChunkMetaData) -> int:
    if column.has_dictionary_page and column.dictionary_page_offset:
        return min(int(column.data_page_offset), int(column.dictionary_page_offset))
    return int(column.data_page_offset)


@lru_cache(maxsize=16)
def _footer(place: Place, path: str, size: int, mtime_ns: int) -> pq.FileMetaData:
    """Footers of files with thousands of row groups take a second to decode: not once per task."""
    with place.open(path) as stream:
        if size == 0:
            raise DataError(f"{place.full(path)} is empty (0 bytes): no Parquet file")
        return pq.read_metadata(stream)


def _footer_bytes(file: ShardFile) -> int:
    with storage_errors(file.full), file.place.open(file.path) as stream:
        stream.seek(max(file.state.size - 8, 0))
        return int.from_bytes(stream.read(4), "little") + 8


def _check_extent(file: ShardFile, footer: pq.FileMetaData) -> None:
    """A footer whose column chunks do not lie within the file was put behind other data."""
    for unit in range(footer.num_row_groups):
        group = footer.row_group(unit)
        for i in range(group.num_columns):
            column = group.column(i)
            first = _first_byte(column)
            if first < 0 or first + column.total_compressed_size > file.state.size:
                raise DataError(
                    f"{file.full} is corrupt: column {column.path_in_schema!r} of row group {unit} ends at byte "
                    f"{first + column.total_compressed_size} of {file.state.size}"
                )


def _sampled_row_bytes(opened: pq.ParquetFile, schema: pa.Schema) -> float:
    """Bytes of a processed row, from the first rows: sizes in the footer are those of encoded values."""
    for unit in range(opened.num_row_groups):
        if opened.metadata.row_group(unit).num_rows == 0:
            continue
        for batch in opened.iter_batches(batch_size=_SAMPLE_ROWS, row_groups=[unit], use_threads=False):
            value = conform(batch, schema, str)
            size: int = value.rows.nbytes
            return size / max(int(value.rows.num_rows), 1)
    return 0.0


def _read_group(
    file: ShardFile, opened: pq.ParquetFile, unit: int, slices: list[Slice], columns: list[str], schema: pa.Schema
) -> Iterator[ChunkValue]:
    """The slices of one row group, decoded once from its start up to the last of them."""
    where = f"{file.full}, row group {unit}"
    with storage_errors(where):
        if unit >= opened.num_row_groups:
            raise DataError(f"{where}: the file has only {opened.num_row_groups} row groups")
        batches = opened.iter_batches(
            batch_size=min(_BATCH_ROWS, max(s.rows for s in slices)),
            row_groups=[unit],
            columns=columns,
            use_threads=False,  # workers are the parallelism
        )
        source = RowStream(batches, where)
        for piece in slices:
            source.skip_to(piece.unit_row)
            parts = []
            at = piece.first_row
            for batch in source.take(piece.rows):
                parts.append(conform(batch, schema, row_name(file.path, at)))
                at += batch.num_rows
            yield join_values(parts, schema)
