"""Rows come out of many chunks as if each were looked up alone, wherever the chunks and the place for the rows lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.batch.fixed import item_type
from penstock_service.batch.spans import Columns, Items, Spans

WIDTHS = st.sampled_from([1, 2, 3, 4, 8, 12, 64, 256, 784, 2048, 2052, 8192])


@st.composite
def memories(draw: st.DrawFn) -> tuple[np.ndarray, list[Items], Items]:
    """Chunks in one block of memory, in any order and at any distance, and among them room for rows."""
    width = draw(WIDTHS)
    counts = draw(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(any))
    rows = draw(st.one_of(st.integers(0, 60), st.just(5000 if width < 300 else 300)))
    sizes = [*(count * width for count in counts), rows * width]
    turns = draw(st.permutations(range(len(sizes))))
    starts, at = [0] * len(sizes), 0
    for turn in turns:
        gap = draw(st.sampled_from([0, width, 8, 64, 4096 - at % 4096]))
        starts[turn] = -(-(at + gap) // 8) * 8
        at = starts[turn] + sizes[turn]
    block = np.frombuffer(np.random.default_rng(draw(st.integers(0, 99))).bytes(at + 8), np.uint8).copy()
    items = [block[start : start + size].view(item_type(width)) for start, size in zip(starts, sizes, strict=True)]
    return block, items[:-1], items[-1]


@settings(max_examples=300, deadline=None)
@given(memories(), st.integers(0, 99))
def test_each_row_is_the_one_asked_for_and_nothing_else_is_written(
    memory: tuple[np.ndarray, list[Items], Items], seed: int
) -> None:
    block, chunks, out = memory
    rng = np.random.default_rng(seed)
    chunk = rng.choice([number for number, values in enumerate(chunks) if len(values)], len(out))
    row = np.array([rng.integers(0, len(chunks[c])) for c in chunk], np.uint32)
    expected = [chunks[c][r].tobytes() for c, r in zip(chunk, row, strict=True)]
    before = [values.tobytes() for values in chunks]
    Spans(chunks).take(chunk, row, out)
    assert [value.tobytes() for value in out] == expected
    assert [values.tobytes() for values in chunks] == before
    assert block.size  # it lives until here


@pytest.mark.parametrize("width", [8, 256])
def test_a_row_that_a_chunk_does_not_have_is_no_row_of_its_neighbour(width: int) -> None:
    memory = np.zeros(100 * width, np.uint8).view(item_type(width))
    spans = Spans([memory[:10], memory[10:90]])
    out = np.empty(2, memory.dtype)
    spans.take(np.array([1, 0]), np.array([79, 9], np.uint32), out)
    with pytest.raises(IndexError, match="row 10 of a chunk that has fewer"):
        spans.take(np.array([1, 0]), np.array([79, 10], np.uint32), out)


@pytest.mark.parametrize("last", [7, 1 << 20])
def test_chunks_are_found_by_number_and_one_that_is_not_there_is_refused(last: int) -> None:
    values = {number: [np.full(3, number, np.uint32)] for number in (5, 3, last)}
    columns = Columns(values)  # type: ignore[arg-type]
    wanted = np.array([last, 3, 5, 3], np.uint32)
    out = np.empty(4, np.uint32)
    columns.spans[0].take(columns.among(wanted), np.zeros(4, np.uint32), out)  # type: ignore[arg-type]
    assert out.tolist() == wanted.tolist()
    for missing in (2, 4, last + 1):
        with pytest.raises(IndexError):
            columns.spans[0].take(columns.among(np.array([3, missing], np.uint32)), wanted[:2] * 0, out[:2])  # type: ignore[arg-type]
