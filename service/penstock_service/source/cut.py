"""Cutting read units into slices, and packing slices into chunks: arithmetic, no I/O."""

from collections.abc import Iterable, Sequence

from penstock_service.source.format import ChunkLimits, Piece


def even_pieces(unit: int, rows: int, size: int, limits: ChunkLimits, offset: int = 0, length: int = 0) -> list[Piece]:
    """A read unit of `rows` rows and about `size` processed bytes as slices of nearly equal length within `limits`."""
    if rows == 0:
        return []
    count = min(rows, max(-(-rows // limits.rows), -(-size // limits.bytes)))
    each = min(-(-rows // count), max(limits.bytes * rows // max(size, 1), 1))
    pieces = []
    for first in range(0, rows, each):
        part = min(each, rows - first)
        pieces.append(Piece(unit, first, part, offset, length, size * part // rows))
    return pieces


def pack(shards: Iterable[Sequence[Piece]], limits: ChunkLimits) -> list[list[int]]:
    """For each shard the chunk ordinal of each piece.

    Small units share a chunk in stored order; a unit that was cut shares its chunks with no other, so that one reading
    of it gives whole chunks.
    """
    chunk = -1
    rows = size = 0
    closed = True  # may nothing be added to the current chunk?
    placed = []
    for pieces in shards:
        ordinals = []
        for i, piece in enumerate(pieces):
            cut = (i > 0 and pieces[i - 1].unit == piece.unit) or (
                i + 1 < len(pieces) and pieces[i + 1].unit == piece.unit
            )
            if closed or cut or rows + piece.rows > limits.rows or size + piece.bytes > limits.bytes:
                chunk += 1
                rows = size = 0
            rows += piece.rows
            size += piece.bytes
            closed = cut
            ordinals.append(chunk)
        placed.append(ordinals)
    return placed
