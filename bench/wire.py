"""Requests written to sockets by hand, so that the generator costs little and every server gets the same one.

gRPC over HTTP/2 frames (RFC 9113) without a library: one header block, prepared; of a reply only whether a message
came before the stream ended is read. HTTP/1.1 likewise: the status and the length of the body.
"""

import re
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_INITIAL_WINDOW_SIZE = 4
_WINDOW, _LARGEST_FRAME = 65_535, 16_384  # what every server grants at first
_MESSAGE_HEAD = 5  # gRPC's: compressed or not, and the length
_GRANTED = 1 << 20  # bytes of a reply before the server has to wait
_RECEIVE = 64 << 10  # more, and malloc may map and unmap memory for each reply
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]+)", re.IGNORECASE)


class ConnectionLostError(Exception):
    """The server closed a connection or broke the protocol."""


class Connection(Protocol):
    """Requests out and answers in; nothing blocks but `send` where the socket is full."""

    def fileno(self) -> int:
        """Of its socket."""
        ...

    def send(self, bodies: Sequence[bytes], tokens: Sequence[float]) -> None:
        """Send requests; each is known by its token."""
        ...

    def receive(self) -> list[tuple[float, bool]]:
        """The tokens of what has ended, and whether it was answered (or refused)."""
        ...


class GrpcConnection:
    """One HTTP/2 connection to a gRPC server, with any number of requests under way.

    Args:
        port: on loopback.
        path: of the RPC.
        timeout_s: the deadline of each request; 0: none.
    """

    def __init__(self, port: int, path: str, timeout_s: int = 0) -> None:
        self._socket = _connect(port)
        self._headers = _header_block(path, f"127.0.0.1:{port}", timeout_s)
        self._stream, self._window = 1, _WINDOW
        self._tokens: dict[int, float] = {}
        self._answered: set[int] = set()
        self._waiting: deque[tuple[bytes, float]] = deque()  # for the server to grant more
        self._buffer = b""
        settings = _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, _GRANTED))
        # A gigabyte of replies before the server would have to wait for more.
        self._socket.sendall(_PREFACE + settings + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, bodies: Sequence[bytes], tokens: Sequence[float]) -> None:
        largest = max(map(len, bodies))
        if largest + _MESSAGE_HEAD > _WINDOW:
            raise ValueError(f"a request has {largest} bytes; this generator sends less than {_WINDOW}")
        self._waiting.extend(zip(bodies, tokens, strict=True))
        self._flush()

    def receive(self) -> list[tuple[float, bool]]:
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise ConnectionLostError("the server closed the connection")
        buffer, at, ended = self._buffer + data, 0, []
        while at + 9 <= len(buffer):
            length, kind, flags = int.from_bytes(buffer[at : at + 3], "big"), buffer[at + 3], buffer[at + 4]
            if at + 9 + length > len(buffer):
                break
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            payload = buffer[at + 9 : at + 9 + length]
            at += 9 + length
            if kind == _DATA and length:
                self._answered.add(stream)
            if (kind in {_DATA, _HEADERS} and flags & _END_STREAM) or kind == _RST_STREAM:
                answered = stream in self._answered and kind != _RST_STREAM
                self._answered.discard(stream)
                if stream in self._tokens:  # a server may reset a stream that it has ended
                    ended.append((self._tokens.pop(stream), answered))
            elif kind not in {_DATA, _HEADERS}:
                self._control(kind, flags, stream, payload)
        self._buffer = buffer[at:]
        self._flush()
        return ended

    def _control(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, payload))
        elif kind == _GOAWAY:
            raise ConnectionLostError(f"the server ended the connection: {payload[8:].decode(errors='replace')}")

    def _flush(self) -> None:
        """Send what waits, as far as the server has granted."""
        parts = []
        while self._waiting and len(self._waiting[0][0]) + _MESSAGE_HEAD <= self._window:
            body, token = self._waiting.popleft()
            message = b"\0" + struct.pack(">I", len(body)) + body
            self._tokens[self._stream] = token
            parts.append(_frame(_HEADERS, _END_HEADERS, self._stream, self._headers))
            for start in range(0, len(message), _LARGEST_FRAME):
                last = start + _LARGEST_FRAME >= len(message)
                piece = message[start : start + _LARGEST_FRAME]
                parts.append(_frame(_DATA, _END_STREAM if last else 0, self._stream, piece))
            self._window -= len(message)
            self._stream += 2
        if parts:
            self._socket.sendall(b"".join(parts))


class HttpConnection:
    """One HTTP/1.1 connection, with one POST under way.

    Args:
        port: on loopback.
        path: of the resource.
        headers: besides the host and the length.
    """

    def __init__(self, port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
        self._socket = _connect(port)
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        self._head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{more}Content-Length: ".encode()
        self._body = self._request = b""
        self._token = 0.0
        self._buffer = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, bodies: Sequence[bytes], tokens: Sequence[float]) -> None:
        (body,), (self._token,) = bodies, tokens
        if body is not self._body:
            self._body, self._request = body, self._head + str(len(body)).encode() + b"\r\n\r\n" + body
        self._socket.sendall(self._request)

    def receive(self) -> list[tuple[float, bool]]:
        data = self._socket.recv(_RECEIVE)
        if not data:
            raise ConnectionLostError("the server closed the connection")
        self._buffer = data = self._buffer + data if self._buffer else data
        head = data.find(b"\r\n\r\n")
        if head < 0 or len(data) < head + 4 + _content_length(data[:head]):
            return []
        self._buffer = b""
        return [(self._token, data.startswith(b"HTTP/1.1 200 "))]


def _connect(port: int) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", port), timeout=30)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


def _content_length(head: bytes) -> int:
    found = _CONTENT_LENGTH.search(head)
    if found is None:
        raise ConnectionLostError(f"a reply without content-length: {head[:200]!r}")
    return int(found[1])


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _header_block(path: str, authority: str, timeout_s: int) -> bytes:
    """HPACK (RFC 7541) from the static table and plain strings, so that the server's table never changes."""
    return (
        b"\x83\x86"  # :method POST, :scheme http
        + b"\x04" + _text(path)
        + b"\x01" + _text(authority)
        + b"\x0f\x10" + _text("application/grpc")  # content-type
        + b"\x00" + _text("te") + _text("trailers")
        + (b"\x00" + _text("grpc-timeout") + _text(f"{timeout_s}S") if timeout_s else b"")
    )  # fmt: skip


def _text(value: str) -> bytes:
    encoded = value.encode()
    if len(encoded) >= 127:
        raise ValueError(f"{value!r} is longer than a length of one byte can say")
    return bytes((len(encoded),)) + encoded
