"""Text formats, plain or compressed: one engine that scans and reads any `Syntax`.

A plain file is cut into read units of about one chunk each, at row boundaries that the scan has found. Units are called
by the number of lines before them, so that errors name lines without reading what is before. A compressed file is one
unit, decompressed once per reading, block by block.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import pyarrow as pa

from penstock_service.core.chunk import ChunkValue, RowError
from penstock_service.core.dataset import Slice
from penstock_service.core.errors import DataError
from penstock_service.source.conform import join_values, one_batch
from penstock_service.source.digest import ContentDigest
from penstock_service.source.format import ChunkLimits, ShardFile, ShardScan, ShardWatch
from penstock_service.source.place import Range, storage_errors
from penstock_service.source.rows import RowStream
from penstock_service.source.text.blocks import (
    BLOCK_BYTES,
    MAX_ROW_BYTES,
    BadSyntaxError,
    ByteRange,
    RowBlock,
    row_blocks,
)
from penstock_service.source.text.gather import TextCutter, TextSchema
from penstock_service.source.text.syntax import Head, Syntax, isolate

_HEAD_BYTES = 64 << 10
_CODECS = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True)
class TextFormat:
    """A format of the text family: `endings` are those of plain files, `.gz` and `.zst` may follow each."""

    name: str
    endings: tuple[str, ...]
    syntax: Syntax

    @property
    def semantics(self) -> int:
        return self.syntax.semantics

    @property
    def suffixes(self) -> tuple[str, ...]:
        return tuple(ending + packed for ending in self.endings for packed in ("", *_CODECS))

    @property
    def optional_columns(self) -> bool:
        return self.syntax.optional_columns

    def scan(self, file: ShardFile, limits: ChunkLimits, watch: ShardWatch) -> ShardScan:
        digest = ContentDigest()
        schema = TextSchema(self.syntax, file)
        with storage_errors(file.full):
            head, whole = self._beginning(file)
            digest.update(whole[: head.length])
            cutter = TextCutter(limits, head, one_unit=_codec(file.path) is not None, by_line=self.syntax.by_line)
            with _opened(file, head.length, known=whole) as (raw, stream):
                cut = partial(self.syntax.cut, head=head, whole=True)
                size = BLOCK_BYTES if _codec(file.path) else min(BLOCK_BYTES, file.state.size + 1)
                source = ByteRange(stream)
                for block in row_blocks(source, cut, file.full, head.length, head.lines, size, digest.update):
                    cutter.add(block, schema.add(block, head))
                    watch.reached(raw.tell())
        pieces = cutter.finish()
        rows = sum(piece.rows for piece in pieces)
        return ShardScan(schema.finish(head, rows), rows, digest.fingerprint(file.state.size), pieces, schema.notes)

    def fingerprint(self, file: ShardFile) -> str:
        digest = ContentDigest()
        with storage_errors(file.full), _opened(file, 0) as (_, stream):
            block = memoryview(bytearray(1 << 20))
            while got := stream.readinto(block):
                digest.update(block[:got])
        return digest.fingerprint(file.state.size)

    def read(self, file: ShardFile, slices: Sequence[Slice], schema: pa.Schema) -> Iterator[ChunkValue]:
        with storage_errors(file.full):
            head, _ = self._beginning(file)
            for _, group in groupby(slices, key=lambda s: s.unit):
                pieces = list(group)
                with _opened(file, pieces[0].offset, pieces[0].length) as (_, stream):
                    blocks = self._unit_blocks(file, stream, head, pieces[0])
                    rows = RowStream(blocks, f"{file.full}, from byte {pieces[0].offset} on,")
                    for piece in pieces:
                        rows.skip_to(piece.unit_row)
                        yield self._parse(rows, head, piece, schema)

    def _unit_blocks(self, file: ShardFile, stream: pa.NativeFile, head: Head, unit: Slice) -> Iterator[RowBlock]:
        size = BLOCK_BYTES if _codec(file.path) else unit.length + 1  # a plain unit is about a chunk: one block
        return row_blocks(
            ByteRange(stream, unit.length),
            partial(self.syntax.cut, head=head, whole=False),
            file.full,
            unit.offset,
            unit.unit,
            block_bytes=size,
        )

    def _parse(self, rows: RowStream[RowBlock], head: Head, piece: Slice, schema: pa.Schema) -> ChunkValue:
        values = []
        first = piece.first_row
        for block in rows.take(piece.rows):
            parts, bad = isolate(block, partial(self.syntax.parse, head=head, schema=schema))
            batch = one_batch([part.value for part in parts], schema)
            names = row_names(self.syntax, piece.path, block, [b.row for b in bad], first)
            errors = [RowError(b.row, name, b.reason) for b, name in zip(bad, names, strict=True)]
            values.append(ChunkValue(block.num_rows, batch, tuple(errors)))
            first += block.num_rows
        return join_values(values, schema)

    def _beginning(self, file: ShardFile) -> tuple[Head, memoryview]:
        """What precedes the rows, and the first bytes of the text, from which it was told. Raises DataError."""
        size = _HEAD_BYTES if _codec(file.path) else min(_HEAD_BYTES, file.state.size + 1)
        while True:
            with _opened(file, 0, size) as (_, stream):
                data = np.empty(size, np.uint8)
                got = ByteRange(stream).fill(data.data)
            try:
                head = self.syntax.head(data[:got], got < size)
            except BadSyntaxError as error:
                raise DataError(f"{file.full}, line 1 (byte {error.position}): {error}") from error
            if head is not None:
                return head, data.data[:got]
            size *= 4
            if size > MAX_ROW_BYTES:
                raise DataError(f"{file.full}, line 1: no row ends in the first {size >> 22} MiB")


def row_names(syntax: Syntax, path: str, block: RowBlock, rows: list[int], first: int) -> list[str]:
    """What rows of `block` are called in errors; `first` is the row of the shard that it begins with."""
    if not rows:
        return []
    if syntax.by_line:
        return [f"{path}, line {line}" for line in block.lines_of(rows)]
    return [f"{path}, row {first + row} (counted from 0)" for row in rows]


def is_plain(path: str) -> bool:
    """Is a file of the text family stored without compression?"""
    return _codec(path) is None


def _codec(path: str) -> str | None:
    for ending, codec in _CODECS.items():
        if path.lower().endswith(ending):
            return codec
    return None


@contextmanager
def _opened(
    file: ShardFile, offset: int, length: int | None = None, known: memoryview | None = None
) -> Iterator[tuple[pa.NativeFile, pa.NativeFile]]:
    """The file as stored, and its text from `offset` on (which for a compressed file means reading up to there).

    `length`: how much of it will be read, if not all. Not opened again if its first bytes are `known` and are all.
    """
    codec = _codec(file.path)
    size = file.state.size
    if codec is None and known is not None and len(known) == size:
        stream = pa.BufferReader(pa.py_buffer(known[offset:]))
        yield stream, stream
        return
    wanted = Range(offset, min(size - offset if length is None else length, size - offset))
    if codec is not None:  # what is wanted is packed in less
        wanted = Range(0, size if length is None else min(offset + length, size))
    with file.place.open(file.path, [[wanted]]) as raw:
        if codec is None:
            raw.seek(offset)
            yield raw, raw
            return
        with pa.CompressedInputStream(raw, codec) as stream:
            left = offset
            while left > 0 and (skipped := stream.read(min(left, 1 << 20))):
                left -= len(skipped)
            yield raw, stream
