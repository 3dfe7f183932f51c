import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1 import frames
from penstock_service.deliver import messages


@given(st.integers(0, 10_000), st.integers(1, 3000))
def test_a_body_is_cut_into_frames_that_join_to_it(size: int, frame_bytes: int) -> None:
    body = bytes(i % 251 for i in range(size))
    parts = [bytes(frames.payload(m)) for m in messages.frames(np.frombuffer(body, np.uint8), frame_bytes)]
    assert b"".join(parts) == body
    assert all(len(part) == frame_bytes for part in parts[:-1])
    assert len(parts) == -(-size // frame_bytes)
