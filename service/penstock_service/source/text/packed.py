"""Many tiny plain files parsed as one block of bytes: Arrow's readers take 0.1 to 0.3 ms for each call, however little.

Only the flawless case is done here. Whatever else there is (a row that does not parse, a file that was changed) is left
to the reading of file by file, which names it; so what a file means is written down there only.
"""

import numpy as np
import pyarrow as pa

from penstock_service.core.chunk import ChunkValue
from penstock_service.core.dataset import Slice
from penstock_service.source.place import Place
from penstock_service.source.same import is_same
from penstock_service.source.text.blocks import LINE_END, U8, BadSyntaxError, RowBlock
from penstock_service.source.text.syntax import Head, Syntax

TINY_BYTES = 256 << 10


def is_tiny(piece: Slice) -> bool:
    """Is it a shard's first read unit, and so small that opening and parsing cost more than its bytes?"""
    return (
        piece.first_row == 0 and piece.unit_row == 0 and piece.length > 0 and piece.offset + piece.length <= TINY_BYTES
    )


def read_packed(syntax: Syntax, place: Place, pieces: list[Slice], schema: pa.Schema) -> ChunkValue | None:
    """The rows of all `pieces`, each tiny and of a plain file of this syntax; None if one needs a closer look.

    Raises SourceUnreadable, SourceChanged for a file that is gone.
    """
    states = place.states([piece.path for piece in pieces])
    if not all(s is not None and is_same(place, p, s) for s, p in zip(states, pieces, strict=True)):
        return None
    parts: list[bytes] = []
    heads: dict[bytes, Head | None] = {}
    ends = np.empty(len(pieces), np.int64)
    columns: tuple[str, ...] | None = None
    size = 0
    for i, piece in enumerate(pieces):
        with place.open(piece.path) as stream:
            data = stream.read(piece.offset + piece.length)
        before = data[: piece.offset]
        if before not in heads:  # thousands of files begin alike
            heads[before] = _head(syntax, before)
        head = heads[before]
        if head is None or (columns is not None and head.columns != columns):
            return None
        columns = head.columns
        unit = data[piece.offset :]
        if not unit.endswith(b"\n"):  # as the reading of a file adds it to the last row
            unit += b"\n"
        parts.append(unit)
        size += len(unit)
        ends[i] = size
    if place.states([piece.path for piece in pieces]) != states:
        return None  # somebody writes to them
    block = _block(syntax, np.frombuffer(bytearray(b"".join(parts)), np.uint8), ends, pieces)
    if block is None:
        return None
    try:
        batch = syntax.parse(block, Head(0, 0, columns or ()), schema)
    except (pa.ArrowInvalid, ValueError):
        return None
    if batch.num_rows != block.num_rows:
        return None
    return ChunkValue(batch.num_rows, batch)


def _block(syntax: Syntax, data: U8, ends: np.ndarray, pieces: list[Slice]) -> RowBlock | None:
    """The rows of `data`, if each piece begins with a row and has as many as it had when it was scanned."""
    try:
        starts, end = syntax.cut(data, True, Head(0, 0), False)
    except BadSyntaxError:
        return None
    rows = np.cumsum([piece.rows for piece in pieces])
    if len(starts) != rows[-1] or starts[0] != 0 or (starts[rows[:-1]] != ends[:-1]).any():
        return None
    if not (data[ends - 1] == LINE_END).all():
        return None
    return RowBlock(data, starts, end, 0, 0)


def _head(syntax: Syntax, before: bytes) -> Head | None:
    """What the bytes before the first row say."""
    try:
        return syntax.head(np.frombuffer(before, np.uint8), True)
    except BadSyntaxError:
        return None
