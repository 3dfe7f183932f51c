import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1 import frames


@given(st.binary(max_size=300) | st.integers(100, 70_000).map(bytes))
def test_a_frame_made_by_hand_is_the_message_of_the_proto(data: bytes) -> None:
    message = frames.encode(memoryview(data))
    assert pb.ServerMessage.FromString(message).frame.data == data
    assert frames.is_frame(message)
    assert bytes(frames.payload(message)) == data


@given(st.binary(max_size=300))
def test_a_frame_made_by_protobuf_is_read_by_hand(data: bytes) -> None:
    message = pb.ServerMessage(frame=pb.Frame(data=data)).SerializeToString()
    assert frames.is_frame(message)
    assert bytes(frames.payload(message)) == data


def test_other_messages_are_no_frames() -> None:
    for other in (
        pb.ServerMessage(heartbeat=pb.Heartbeat()),
        pb.ServerMessage(bundle=pb.Bundle(steps=3)),
        pb.ServerMessage(error=pb.Error(code="x")),
    ):
        assert not frames.is_frame(other.SerializeToString())
    assert not frames.is_frame(b"")


@given(st.binary(max_size=40))
def test_bytes_that_are_no_frame_raise_and_never_crash(rest: bytes) -> None:
    message = bytes([0x22]) + rest
    try:
        data = frames.payload(message)
    except frames.BadFrame:
        return
    assert pb.ServerMessage.FromString(message).frame.data == bytes(data)


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_frame_cut_short_is_refused(cut: int) -> None:
    message = frames.encode(memoryview(b"0123456789"))
    with pytest.raises(frames.BadFrame):
        frames.payload(message[:-cut])
