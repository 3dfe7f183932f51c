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
    assert bytes(frames.decode(message).data) == data


@given(st.binary(max_size=300))
def test_a_frame_made_by_protobuf_is_read_by_hand(data: bytes) -> None:
    message = pb.ServerMessage(frame=pb.Frame(data=data)).SerializeToString()
    assert frames.is_frame(message)
    assert bytes(frames.decode(message).data) == data


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
        frame = frames.decode(message)
    except frames.BadFrame:
        return
    read = pb.ServerMessage.FromString(message).frame
    assert getattr(read, frame.codec or "data") == bytes(frame.data)


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_frame_cut_short_is_refused(cut: int) -> None:
    message = frames.encode(memoryview(b"0123456789"))
    with pytest.raises(frames.BadFrame):
        frames.decode(message[:-cut])


@given(st.binary(min_size=1, max_size=300), st.integers(1, 1 << 31), st.sampled_from(frames.CODECS))
def test_a_compressed_frame_is_the_message_of_the_proto_too(packed: bytes, size: int, codec: str) -> None:
    by_hand = frames.encode_packed(packed, size, codec)
    read = pb.ServerMessage.FromString(by_hand).frame
    assert (getattr(read, codec), read.size, read.data) == (packed, size, b"")
    assert frames.decode(by_hand) == frames.Frame(memoryview(packed), size, codec)
    by_protobuf = pb.ServerMessage(frame=read).SerializeToString()
    assert frames.decode(by_protobuf) == frames.Frame(memoryview(packed), size, codec)
