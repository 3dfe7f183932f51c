"""Row boundaries found by array arithmetic are those that the parsers find byte by byte."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock_service.core.errors import DataError
from penstock_service.source.text.blocks import MAX_ROW_BYTES, U8, ByteRange, Cut, row_blocks
from penstock_service.source.text.lines import cut_filled_lines, cut_lines
from penstock_service.source.text.objects import find_objects, one_per_line
from penstock_service.source.text.quotes import cut_records

MANY = settings(max_examples=400, deadline=None)


def array(data: bytes) -> U8:
    return np.frombuffer(bytearray(data), np.uint8)


def csv_rows(data: bytes) -> int:
    """How many rows Arrow's parser finds, of whatever length."""
    bad = 0

    def skip(row: object) -> str:
        nonlocal bad
        bad += 1
        return "skip"

    table = pc.read_csv(
        pa.BufferReader(data),
        read_options=pc.ReadOptions(use_threads=False, block_size=1 << 20, column_names=["a"]),
        parse_options=pc.ParseOptions(newlines_in_values=True, invalid_row_handler=skip),
    )
    return int(table.num_rows) + bad


@given(st.text(st.sampled_from('",\n\ra'), min_size=1, max_size=30).map(lambda s: s.encode() + b"\n"))
@example(b'5" pipe,x\n6"x""y\n"a"b"c\n')
@example(b'"a""\n""",""\n"",""""\n')
@MANY
def test_csv_records_are_those_that_the_parser_finds(data: bytes) -> None:
    cut, inside = cut_records(array(data), ord(","))
    if inside:  # the parser takes what is open as a row; we refuse it
        return
    assert cut.end == len(data)
    assert len(cut.starts) == csv_rows(data)
    for first, end in pairwise([*cut.starts, cut.end]):
        assert csv_rows(data[first:end]) == 1


@given(st.text(st.sampled_from('",\na'), max_size=40), st.integers(1, 20))
@MANY
def test_blocks_of_any_size_have_the_same_records(text: str, size: int) -> None:
    data = text.encode() + b"\n"
    whole, inside = cut_records(array(data), ord(","))
    if inside:
        return

    def cut(block: U8, last: bool) -> Cut:
        return cut_records(block, ord(","))[0]

    starts = []
    for block in row_blocks(ByteRange(pa.BufferReader(data)), cut, "a.csv", block_bytes=size):
        starts.extend((block.starts + block.offset).tolist())
        assert block.line == data[: block.offset].count(b"\n")
    assert starts == whole.starts.tolist()


@given(st.text(st.sampled_from("ab \t\r\n"), max_size=40))
@MANY
def test_lines_are_those_of_split(text: str) -> None:
    data = text.encode() + b"\n"
    lines = data.split(b"\n")[:-1]
    starts = np.cumsum([0, *(len(line) + 1 for line in lines)])[:-1]
    assert cut_lines(array(data), True).starts.tolist() == starts.tolist()
    filled = [int(s) for s, line in zip(starts, lines, strict=True) if line.strip(b" \t\r")]
    assert cut_filled_lines(array(data), True).starts.tolist() == filled


JSON = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\{}[],\n')),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.sampled_from('a"\\{}')), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(st.sampled_from('k"\\}')), JSON, max_size=3), max_size=6),
    st.sampled_from([None, 1]),
    st.sampled_from(["", "\n", " , ", ",\n\n"]),
)
@MANY
def test_json_objects_are_found_whatever_stands_in_their_strings(
    objects: list[dict[str, object]], indent: int | None, between: str
) -> None:
    text = "[" + between.join(json.dumps(o, indent=indent) for o in objects) + "]\n"
    data = array(text.encode())
    found = find_objects(data)
    assert found.stray == -1
    assert found.tail == len(data)
    if objects:
        one_per_line(data[: found.stops[-1]], found)
    parsed = [bytes(data[a:b]) for a, b in zip(found.starts, found.stops, strict=True)]
    assert [json.loads(p) for p in parsed] == objects
    assert all(b"\n" not in p for p in parsed)


def test_a_row_beyond_the_limit_is_refused_with_its_line_before_it_is_all_in_memory() -> None:
    class Endless:
        read = 0

        def readinto(self, into: memoryview) -> int:
            into[:] = b"x" * len(into)
            self.read += len(into)
            return len(into)

    source = Endless()
    with pytest.raises(DataError, match=r"big\.txt, line 1: a row of more than 64 MiB"):
        list(row_blocks(ByteRange(source), cut_lines, "big.txt"))
    assert source.read < 3 * MAX_ROW_BYTES
