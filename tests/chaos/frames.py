"""Bytes of HTTP/2 as a client writes them that means no good: what gRPC's own clients never send."""

import socket
import struct

from inferry_server.addresses import Address

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS = 0, 1, 4
_END_HEADERS = 4
_CONNECT_S = 10.0


def hello() -> bytes:
    """The beginning of a connection."""
    return _PREFACE + _frame(_SETTINGS, 0, 0, b"")


def call(path: str, *, announced: int) -> bytes:
    """The beginning of a call: its headers, and those of a message of so many bytes that does not follow."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
              "content-type": "application/grpc", "te": "trailers"}  # fmt: skip
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())
    return _frame(_HEADERS, _END_HEADERS, 1, block) + data(b"\0" + struct.pack(">I", announced))


def data(content: bytes) -> bytes:
    """A piece of the first call's message."""
    return _frame(_DATA, 0, 1, content)


def connect(address: Address, *, source: str = "") -> socket.socket:
    """A connection; from this address of the machine, where one is given."""
    own = (source, 0) if source else None
    return socket.create_connection((address.host, address.port), timeout=_CONNECT_S, source_address=own)


def reset(connection: socket.socket) -> None:
    """Close it with RST, as a process that is killed or a cable that is pulled looks from afar."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def _text(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()
