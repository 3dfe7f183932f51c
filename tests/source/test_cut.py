import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.errors import InvalidRequest
from penstock_service.source.cut import even_pieces, pack
from penstock_service.source.format import ChunkLimits, Piece

UNIT = st.tuples(st.integers(1, 30), st.integers(0, 300))


@given(st.integers(0, 1000), st.integers(0, 10_000), st.integers(1, 100), st.integers(1, 1000))
def test_even_pieces_cover_the_unit_within_the_limits(rows: int, size: int, most_rows: int, most_bytes: int) -> None:
    limits = ChunkLimits(most_rows, most_bytes)
    pieces = even_pieces(0, rows, size, limits)
    assert [p.unit_row for p in pieces] == [sum(p.rows for p in pieces[:i]) for i in range(len(pieces))]
    assert sum(p.rows for p in pieces) == rows
    assert all(1 <= p.rows <= most_rows for p in pieces)
    assert all(p.bytes <= most_bytes or p.rows == 1 for p in pieces)
    assert all(p.rows == pieces[0].rows for p in pieces[:-1])


@given(st.lists(st.lists(UNIT, max_size=5), max_size=8))
def test_packing_keeps_stored_order_and_fills_chunks(shards: list[list[tuple[int, int]]]) -> None:
    limits = ChunkLimits(rows=40, bytes=300)
    cut = [
        [piece for unit, (rows, size) in enumerate(units) for piece in even_pieces(unit, rows, size, limits)]
        for units in shards
    ]
    placed = pack(cut, limits)
    flat = [chunk for of_shard in placed for chunk in of_shard]
    assert flat == sorted(flat)
    assert sorted(set(flat)) == list(range(len(set(flat))))
    sizes: dict[int, tuple[int, int]] = {}
    for piece, chunk in zip((p for of_shard in cut for p in of_shard), flat, strict=True):
        rows, size = sizes.get(chunk, (0, 0))
        sizes[chunk] = rows + piece.rows, size + piece.bytes
    assert all(rows <= 40 and size <= 300 for rows, size in sizes.values())


def test_units_of_two_shards_with_the_same_number_are_two_units() -> None:
    one = [Piece(0, 0, 10, 0, 0, 10)]
    assert pack([one, one, one], ChunkLimits()) == [[0], [0], [0]]
    halves = [Piece(0, 0, 10, 0, 0, 10), Piece(0, 10, 10, 0, 0, 10)]
    assert pack([one, halves, one, one], ChunkLimits()) == [[0], [1, 2], [3], [3]]


@pytest.mark.parametrize(("rows", "size"), [(0, 1), (1, 0), (1, 2 << 30)])
def test_limits_that_make_no_chunks_are_refused(rows: int, size: int) -> None:
    with pytest.raises(InvalidRequest, match=str(rows if rows < 1 else size)):
        ChunkLimits(rows, size)
