"""The client's end of a payload socket: where it connects, what it makes of failures, and how it ends."""

import os
import re
import socket
import threading
from collections.abc import Callable
from contextlib import closing

import numpy as np
import pytest

from penstock import payload as client
from penstock.errors import ServerUnavailable
from penstock.offer import take
from penstock.payload import AVOID_FOR, Avoided, NoSocket, PayloadSocket, connect, host_of
from penstock_proto.v1 import data_pb2 as pb
from penstock_proto.v1 import payload

NONCE = bytes(range(payload.NONCE))


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("127.0.0.1:7400", "127.0.0.1"),
        ("trainer-7.pool:7400", "trainer-7.pool"),
        ("somewhere", "somewhere"),
        ("[::1]:7400", "::1"),
        ("::1", "::1"),
        ("ipv6:[2001:db8::1]:7400", "2001:db8::1"),
        ("ipv4:10.0.0.1:7400,10.0.0.2:7400", "10.0.0.1"),
        ("dns:///server:7400", "server"),
        ("dns://10.0.0.53/server:7400", "server"),
        ("dns:server", "server"),
    ],
)
def test_the_host_of_a_target(target: str, host: str) -> None:
    assert host_of(target) == host


@pytest.mark.parametrize("target", ["unix:/run/penstock.sock", "unix-abstract:penstock", "xds:///server"])
def test_a_target_without_a_host_has_no_socket(target: str) -> None:
    with pytest.raises(NoSocket, match="names no host"):
        host_of(target)


class Server:
    """One that does with each comer what a test says."""

    def __init__(self, act: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._act = act
        self.came = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def offer(self) -> pb.Payload:
        return pb.Payload(port=self._listener.getsockname()[1], nonce=NONCE)

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.came += 1
            with peer:
                self._act(peer)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


def hello(peer: socket.socket) -> bytes:
    said = b""
    while len(said) < len(payload.HELLO) + payload.NONCE:
        said += peer.recv(100)
    return said


def nothing() -> None:
    """What is heard does not matter."""


def plug(server: Server) -> PayloadSocket:
    return connect(server.offer, "127.0.0.1:1", Avoided(), nothing)


def test_a_body_is_received_in_place_however_it_comes() -> None:
    body = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8)
    heard: list[int] = []

    def act(peer: socket.socket) -> None:
        assert hello(peer) == payload.HELLO + NONCE
        sent = payload.WELCOME + payload.head(200_000, 200_000, "") + body[:200_000].tobytes()
        sent += payload.head(100_000, 100_000, "") + body[200_000:].tobytes()
        for at in range(0, len(sent), 7001):
            peer.sendall(sent[at : at + 7001])
        peer.recv(1)  # until the client leaves

    with closing(Server(act)) as server:
        sock = connect(server.offer, "127.0.0.1:1", Avoided(), lambda: heard.append(1))
        memory = np.zeros(300_000, np.uint8)
        assert sock.receive(memory) == 300_000 + 2 * payload.HEAD
        assert (memory == body).all()
        assert heard
        sock.end()
        sock.end()
        sock.close()
        sock.close()


@pytest.mark.parametrize("sent", [b"", payload.head(10, 10, ""), payload.head(10, 10, "") + b"12345"])
def test_a_connection_that_ends_within_a_body_can_be_tried_again(sent: bytes) -> None:
    def act(peer: socket.socket) -> None:
        hello(peer)
        peer.sendall(payload.WELCOME + sent)

    with (
        closing(Server(act)) as server,
        closing(plug(server)) as sock,
        pytest.raises(ServerUnavailable, match="ended within a bundle"),
    ):
        sock.receive(np.zeros(10, np.uint8))


def test_who_waits_for_bytes_is_woken_by_another_thread() -> None:
    waiting, over = threading.Event(), threading.Event()

    def act(peer: socket.socket) -> None:
        hello(peer)
        peer.sendall(payload.WELCOME + payload.head(10, 10, ""))
        over.wait(30)

    with closing(Server(act)) as server, closing(plug(server)) as sock:
        found: list[BaseException] = []

        def receive() -> None:
            waiting.set()
            try:
                sock.receive(np.zeros(10, np.uint8))
            except ServerUnavailable as error:
                found.append(error)

        thread = threading.Thread(target=receive)
        thread.start()
        waiting.wait(10)
        sock.end()
        thread.join(10)
        assert not thread.is_alive()
        assert len(found) == 1
        over.set()


def test_a_child_of_a_fork_closes_its_copy_and_the_parents_connection_lives() -> None:
    go = threading.Event()

    def act(peer: socket.socket) -> None:
        hello(peer)
        peer.sendall(payload.WELCOME)
        go.wait(30)
        peer.sendall(payload.head(3, 3, "") + b"abc")

    with closing(Server(act)) as server, closing(plug(server)) as sock:
        child = os.fork()
        if child == 0:
            sock.close()
            os._exit(0)
        os.waitpid(child, 0)
        go.set()
        memory = np.zeros(3, np.uint8)
        sock.receive(memory)
        assert memory.tobytes() == b"abc"


@pytest.fixture
def closed() -> pb.Payload:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return pb.Payload(host="127.0.0.1", port=port, nonce=NONCE)


def test_a_port_that_refuses_is_told_and_tried_again(closed: pb.Payload) -> None:
    avoided = Avoided()
    for _ in range(2):
        with pytest.raises(NoSocket, match=f"127.0.0.1:{closed.port}: Connection refused"):
            connect(closed, "elsewhere:1", avoided, nothing)


@pytest.mark.parametrize("host", ["gateway..cluster.local", "x" * 70, "no such host"])
def test_a_name_that_is_none_is_told(host: str) -> None:
    with pytest.raises(NoSocket, match=re.escape(host)):
        connect(pb.Payload(host=host, port=9, nonce=NONCE), "127.0.0.1:1", Avoided(), nothing)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", payload.WELCOME[:-1] + b"!"])
def test_another_server_on_that_port_is_none_of_ours(answer: bytes) -> None:
    def act(peer: socket.socket) -> None:
        hello(peer)
        peer.sendall(answer)

    with closing(Server(act)) as server, pytest.raises(NoSocket, match="does not know this session"):
        plug(server)


def test_what_does_not_answer_is_not_tried_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_WITHIN", 0.1)
    over, clock = threading.Event(), [1000.0]

    def act(peer: socket.socket) -> None:
        hello(peer)
        over.wait(30)

    with closing(Server(act)) as server:
        avoided = Avoided(lambda: clock[0])
        with pytest.raises(NoSocket, match="does not answer"):
            connect(server.offer, "127.0.0.1:1", avoided, nothing)
        clock[0] += 60
        with pytest.raises(NoSocket, match="did not answer, 60 s ago"):
            connect(server.offer, "127.0.0.1:1", avoided, nothing)
        assert server.came == 1
        clock[0] += AVOID_FOR
        monkeypatch.setattr(client, "ANSWER_WITHIN", 30.0)
        over.set()
        with pytest.raises(NoSocket, match="does not know this session"):
            connect(server.offer, "127.0.0.1:1", avoided, nothing)
        assert server.came == 2


def test_a_client_that_cannot_map_takes_the_socket_and_says_why() -> None:
    def act(peer: socket.socket) -> None:
        hello(peer)
        peer.sendall(payload.WELCOME)
        peer.recv(1)

    slots = pb.Slots(path="/dev/shm/penstock-slots-gone", count=1, slot_bytes=4096)  # noqa: S108 - no such file
    with closing(Server(act)) as server:
        opened = pb.Opened(transport="shm", transport_reason="one host", slots=slots, payload=server.offer)
        taken = take(opened, "127.0.0.1:1", Avoided(), nothing)
        assert taken.slots is None
        assert taken.socket is not None
        assert taken.proof is not None
        taken.socket.close()
    assert (taken.proof.socket, taken.proof.nonce) == (True, b"")
    assert "cannot map /dev/shm/penstock-slots-gone" in taken.proof.reason
    assert (opened.transport, opened.transport_reason) == ("tcp", taken.proof.reason)


def test_a_client_that_can_use_nothing_of_it_says_why(closed: pb.Payload) -> None:
    slots = pb.Slots(path="/dev/shm/penstock-slots-gone", count=1, slot_bytes=4096)  # noqa: S108 - no such file
    opened = pb.Opened(transport="shm", slots=slots, payload=closed)
    taken = take(opened, "127.0.0.1:1", Avoided(), nothing)
    assert (taken.slots, taken.socket) == (None, None)
    assert taken.proof == pb.Proof(reason=opened.transport_reason)
    assert opened.transport == "grpc"
    assert "cannot map" in opened.transport_reason
    assert f"; no payload socket: 127.0.0.1:{closed.port}: Connection refused" in opened.transport_reason
    nothing_offered = pb.Opened(transport="grpc", transport_reason="as it is")
    assert take(nothing_offered, "127.0.0.1:1", Avoided(), nothing).proof is None
    assert nothing_offered.transport_reason == "as it is"
