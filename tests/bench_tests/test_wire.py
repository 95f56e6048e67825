"""HTTP/2 as servers may send it: frames in pieces, streams ended in either way."""

import socket
from collections.abc import Iterator

import pytest

from bench import wire
from bench.wire import ConnectionLostError, GrpcConnection

DATA, HEADERS, RST_STREAM, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 6, 7, 8
END_STREAM = 1


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, socket.socket]]:
    """The client's end and the server's."""
    client, server = socket.socketpair()
    client.settimeout(10)
    server.settimeout(10)
    monkeypatch.setattr(wire, "_connect", lambda _: client)
    yield client, server
    client.close()
    server.close()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def test_a_message_and_its_trailers_are_an_answer_however_they_are_cut(
    sockets: tuple[socket.socket, socket.socket],
) -> None:
    connection = GrpcConnection(1, "/a/b")
    connection.send([b"x", b"y"], [10.0, 20.0])
    sent = frame(HEADERS, 0, 3, b"h") + frame(DATA, 0, 3, b"d") + frame(HEADERS, END_STREAM, 3, b"t")
    ended = []
    for byte in sent:
        sockets[1].send(bytes((byte,)))
        ended += connection.receive()
    assert ended == [(20.0, True)]


@pytest.mark.parametrize(
    "reply",
    [
        frame(HEADERS, END_STREAM, 1, b"t"),
        frame(RST_STREAM, 0, 1, b"\0\0\0\0"),
        frame(HEADERS, END_STREAM, 1, b"t") + frame(RST_STREAM, 0, 1, b"\0\0\0\0"),
        frame(DATA, 0, 1, b"d") + frame(RST_STREAM, 0, 1, b"\0\0\0\0"),
    ],
    ids=["trailers only", "reset", "trailers, then reset", "reset after a message"],
)
def test_a_stream_without_message_or_trailers_is_refused_once(
    sockets: tuple[socket.socket, socket.socket], reply: bytes
) -> None:
    connection = GrpcConnection(1, "/a/b")
    connection.send([b"x"], [10.0])
    sockets[1].sendall(reply)
    assert connection.receive() == [(10.0, False)]


def test_nothing_is_sent_that_the_server_has_not_granted(sockets: tuple[socket.socket, socket.socket]) -> None:
    connection = GrpcConnection(1, "/a/b")
    body = bytes(30_000)
    connection.send([body] * 3, [1.0, 2.0, 3.0])  # the third does not fit into 65535 bytes
    before = received(sockets[1])
    assert 2 * len(body) <= len(before) < 3 * len(body)
    sockets[1].sendall(frame(WINDOW_UPDATE, 0, 0, (1 << 20).to_bytes(4, "big")))
    connection.receive()
    assert len(received(sockets[1])) >= len(body)


def test_a_ping_is_returned(sockets: tuple[socket.socket, socket.socket]) -> None:
    connection = GrpcConnection(1, "/a/b")
    received(sockets[1])
    sockets[1].sendall(frame(PING, 0, 0, b"12345678"))
    assert connection.receive() == []
    assert received(sockets[1]) == frame(PING, 1, 0, b"12345678")


def test_a_server_that_leaves_is_an_error(sockets: tuple[socket.socket, socket.socket]) -> None:
    connection = GrpcConnection(1, "/a/b")
    sockets[1].sendall(frame(GOAWAY, 0, 0, bytes(8) + b"too many pings"))
    with pytest.raises(ConnectionLostError, match="too many pings"):
        connection.receive()


def test_a_request_larger_than_the_first_window_is_refused(sockets: tuple[socket.socket, socket.socket]) -> None:
    connection = GrpcConnection(1, "/a/b")
    with pytest.raises(ValueError, match="65535"):
        connection.send([bytes(70_000)], [1.0])


def received(server: socket.socket) -> bytes:
    """All that has come: what a socket pair carries is there when `send` returns."""
    server.setblocking(False)
    data = b""
    while True:
        try:
            data += server.recv(1 << 20)
        except BlockingIOError:
            server.settimeout(10)
            return data
