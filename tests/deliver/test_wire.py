"""What is written for a body is put together again at the other end, whatever the carrier and the codec."""

import asyncio
import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.unpacking import Assembly, FromSocket
from penstock_proto.v1 import frames, payload
from penstock_service.core.errors import InvalidRequest
from penstock_service.deliver.carriers import Carrier, GrpcMessages, Parts, SocketFrames
from penstock_service.deliver.wire import Wire, settle

CODECS = ["none", "lz4", "zstd"]


class Buffered:
    """A payload socket that keeps what is sent."""

    def __init__(self) -> None:
        self.sent = bytearray()

    async def send(self, parts: Parts) -> None:
        for part in parts:
            self.sent += part


def send(carrier: Carrier, body: bytes, frame_bytes: int, codec: str) -> Wire:
    wire = Wire(carrier, frame_bytes, codec)
    asyncio.run(wire.send(np.frombuffer(body, np.uint8)))
    return wire


def sent(body: bytes, frame_bytes: int, codec: str) -> list[bytes]:
    messages: list[bytes] = []

    async def write(message: bytes) -> None:
        messages.append(message)

    wire = send(GrpcMessages(write), body, frame_bytes, codec)
    assert wire.sent_bytes == sum(map(len, messages))
    return messages


def sent_over_a_socket(body: bytes, frame_bytes: int, codec: str) -> bytes:
    socket: Any = Buffered()
    wire = send(SocketFrames(socket), body, frame_bytes, codec)
    assert wire.sent_bytes == len(socket.sent)
    return bytes(socket.sent)


def receive(data: bytes, size: int) -> bytes:
    """The body of `size` bytes that these bytes of a socket bring."""
    file = io.BytesIO(data)

    def fill(view: memoryview) -> None:
        if file.readinto(view) < len(view):
            raise EOFError

    memory = np.empty(size, np.uint8)
    assert FromSocket(fill).receive(memory) == file.tell()
    return bytes(memory)


BODIES = (st.integers(1, 10_000), st.integers(1, 3000), st.sampled_from([1, 7, 251]), st.sampled_from(CODECS))


@given(*BODIES)
def test_a_body_is_cut_into_frames_that_join_to_it(size: int, frame_bytes: int, period: int, codec: str) -> None:
    body = bytes(i % period for i in range(size))
    messages = sent(body, frame_bytes, codec)
    assembly = Assembly(np.empty(size, np.uint8))
    for message in messages:
        assert not assembly.whole
        assembly.add(message)
    assert assembly.whole
    assert bytes(assembly.memory) == body
    cut = [frames.decode(message) for message in messages]
    assert [frame.size for frame in cut] == [len(body[at : at + frame_bytes]) for at in range(0, size, frame_bytes)]
    assert all(frame.codec in ("", codec) for frame in cut)


@given(*BODIES, st.data())
def test_over_a_socket_too_and_one_that_ends_early_gives_nothing(
    size: int, frame_bytes: int, period: int, codec: str, data: st.DataObject
) -> None:
    body = bytes(i % period for i in range(size))
    travels = sent_over_a_socket(body, frame_bytes, codec)
    assert receive(travels, size) == body
    with pytest.raises(EOFError):
        receive(travels[: data.draw(st.integers(0, len(travels) - 1))], size)


def test_bodies_one_after_another_use_one_scratch_buffer_and_do_not_mix() -> None:
    bodies = [bytes([n]) * (500 * n) for n in (3, 1, 2)]
    file = io.BytesIO(b"".join(sent_over_a_socket(body, 400, "zstd") for body in bodies))
    socket = FromSocket(file.readinto)
    for body in bodies:
        memory = np.empty(len(body), np.uint8)
        assert socket.receive(memory) < len(body)
        assert bytes(memory) == body


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_what_packs_well_travels_packed_and_what_does_not_as_it_is(codec: str) -> None:
    zeros, noise = bytes(100_000), np.random.default_rng(0).bytes(100_000)
    (packed,) = sent(zeros, 1 << 20, codec)
    (plain,) = sent(noise, 1 << 20, codec)
    assert len(packed) < 2000
    assert frames.decode(packed).codec == codec
    assert frames.decode(plain).codec == ""
    assert len(plain) < len(noise) + 20
    assert len(sent_over_a_socket(zeros, 1 << 20, codec)) < 2000
    assert len(sent_over_a_socket(noise, 1 << 20, codec)) == len(noise) + payload.HEAD


def test_more_bytes_than_were_announced_and_damaged_ones_are_refused() -> None:
    (packed,) = sent(bytes(10_000), 1 << 20, "lz4")
    with pytest.raises(frames.BadFrame, match="frames of 10000 bytes for a bundle of 9999"):
        Assembly(np.empty(9999, np.uint8)).add(packed)
    frame = frames.decode(packed)
    with pytest.raises(frames.BadFrame, match="of lz4 cannot be undone"):
        Assembly(np.empty(10_000, np.uint8)).add(frames.encode_packed(bytes(len(frame.data)), 10_000, "lz4"))
    over_a_socket = sent_over_a_socket(bytes(10_000), 1 << 20, "lz4")
    with pytest.raises(frames.BadFrame, match="a frame of 10000 bytes where a bundle has 9999 left"):
        receive(over_a_socket, 9999)
    with pytest.raises(frames.BadFrame, match="of lz4 cannot be undone"):
        receive(over_a_socket[: payload.HEAD] + bytes(len(over_a_socket)), 10_000)


def test_who_gets_which_codec_and_why() -> None:
    both = ["lz4", "zstd"]
    assert settle("", [], here=False, shared=False).decision == ("none", "the client asked for none")
    asked = settle("zstd", both, here=True, shared=False)
    assert (asked.decision, asked.chooser) == (("zstd", "the client asked for it"), None)
    same_host = settle("auto", both, here=True, shared=False)
    assert (same_host.decision, same_host.chooser) == (("none", "client and server are on one host"), None)
    far = settle("auto", both, here=False, shared=False)
    assert far.decision == ("none", "until the link has been measured")
    assert far.chooser is not None
    assert "shared memory are not compressed" in settle("lz4", both, here=True, shared=True).decision.reason
    with pytest.raises(InvalidRequest, match="compression='gzip': must be"):
        settle("gzip", both, here=False, shared=False)
    with pytest.raises(InvalidRequest, match="pyarrow of the client was built without it"):
        settle("zstd", ["lz4"], here=False, shared=False)
