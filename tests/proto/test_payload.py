"""The bytes of a payload socket: heads of frames say what was said, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1 import payload
from penstock_proto.v1.frames import CODECS, BadFrame


@given(st.integers(1, 1 << 32 - 1), st.data())
def test_a_head_says_what_was_said(size: int, data: st.DataObject) -> None:
    codec = data.draw(st.sampled_from(["", *CODECS] if size > 1 else [""]))
    length = data.draw(st.integers(1, size - 1)) if codec else size
    written = payload.head(length, size, codec)
    assert len(written) == payload.HEAD
    assert payload.read_head(written, size) == (length, size, codec)
    with pytest.raises(BadFrame, match=f"a frame of {size} bytes where a bundle has {size - 1} left"):
        payload.read_head(written, size - 1)


@given(st.binary(min_size=payload.HEAD, max_size=payload.HEAD), st.integers(0, 1 << 40))
def test_bytes_that_are_no_head_are_refused_and_none_asks_for_more_than_is_left(data: bytes, left: int) -> None:
    try:
        head = payload.read_head(data, left)
    except BadFrame:
        return
    assert 0 < head.length <= head.size <= left
    assert payload.head(*head) == data


@pytest.mark.parametrize(
    ("length", "size", "codec"), [(5, 6, ""), (7, 6, ""), (0, 6, "lz4"), (7, 6, "zstd"), (0, 0, "")]
)
def test_lengths_that_cannot_be_are_refused(length: int, size: int, codec: str) -> None:
    with pytest.raises(BadFrame):
        payload.read_head(payload.head(length, size, codec), 100)
