"""The plan of requests, and a file read by it: pure, with bytes instead of a store."""

import threading
import time
from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_service.source.objects.parts import HOLE_BYTES, Part, plan
from penstock_service.source.objects.reader import RangeReader
from penstock_service.source.place import Range

DATA = bytes(i * 31 % 251 for i in range(300_000))
RANGES = st.lists(st.builds(Range, st.integers(0, 310_000), st.integers(0, 120_000)), max_size=6)
READS = st.lists(st.tuples(st.integers(0, 310_000), st.integers(0, 150_000)), max_size=12)


def test_a_long_range_is_cut_evenly_and_neighbours_are_joined() -> None:
    cut = plan([[Range(100, 1000)]], 10_000, 400)
    assert cut.by_offset == (Part(100, 333, 333), Part(433, 333, 333), Part(766, 334, 334))
    assert cut.in_turn == (0, 1, 2)
    joined = plan([[Range(0, 100), Range(150, 50), Range(2 * HOLE_BYTES, 10)]], 1 << 20, 1 << 19)
    assert joined.by_offset == (Part(0, 200, 150), Part(2 * HOLE_BYTES, 10, 10))


def test_columns_are_fetched_side_by_side_and_row_groups_one_after_the_other() -> None:
    found = plan([[Range(0, 400), Range(400, 200)], [Range(600, 100)]], 1000, 100, 1)
    assert [found.by_offset[i].offset for i in found.in_turn] == [0, 400, 100, 200, 500, 300, 600]


def test_ranges_beyond_the_end_are_not_asked_for() -> None:
    assert plan([[Range(0, 10), Range(95, 10)]], 100, 50).by_offset == (Part(0, 10, 10),)


@given(st.lists(RANGES, max_size=3), st.integers(1000, 200_000))
def test_parts_never_overlap_and_are_within_the_file(expected: list[list[Range]], part_bytes: int) -> None:
    parts = plan(expected, len(DATA), part_bytes).by_offset
    for part, following in pairwise(parts):
        assert part.end <= following.offset
    assert all(0 < part.needed <= part.length <= part_bytes and part.end <= len(DATA) for part in parts)


@given(RANGES, READS, st.integers(1000, 200_000), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_whatever_was_expected_what_is_read_is_what_is_there(
    expected: list[Range], reads: list[tuple[int, int]], part_bytes: int, ahead: int
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def fetch(offset: int, length: int, _: threading.Event) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        data = DATA[offset : offset + length]
        with lock:
            now -= 1
        assert len(data) == length > 0
        return data

    reader = RangeReader(fetch, len(DATA), plan([expected], len(DATA), part_bytes), ahead)
    with pa.PythonFile(reader, mode="r") as file:
        assert file.size() == len(DATA)
        for offset, length in reads:
            file.seek(offset)
            assert file.read(length) == DATA[offset : offset + length]
        file.seek(0)
        assert file.read() == DATA
    assert reader.closed
    assert most <= ahead + 1


def test_what_was_read_to_its_end_is_let_go_and_only_so_much_is_held() -> None:
    fetched: list[int] = []

    def fetch(offset: int, length: int, _: threading.Event) -> bytes:
        fetched.append(offset)
        return DATA[offset : offset + length]

    reader = RangeReader(fetch, len(DATA), plan([[Range(0, len(DATA))]], len(DATA), 10_000), 3)
    for read in range(10):
        time.sleep(0.01)
        assert len(fetched) <= read + 3
        assert len(reader._held) <= 4
        reader.read(10_000)
    reader.close()
    reader.close()
    assert reader._held == {}
