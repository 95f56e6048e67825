"""HTTP/2 (RFC 9113) as attackers write it: any frame in any order, within the server's flow control or not."""

import select
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW_SIZE = 4
_WINDOW = 65_535
LARGEST = 16_384
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NAMES = {HEADERS: "answered", RST_STREAM: "reset", GOAWAY: "GOAWAY"}


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(content))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + content


def block(path: str, more: Mapping[str, str] | None = None) -> bytes:
    """The header block of a gRPC call, without compression."""
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
              "content-type": "application/grpc", "te": "trailers", **(more or {})}  # fmt: skip
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in fields.items())


def headers(path: str, stream: int = 1, more: Mapping[str, str] | None = None) -> bytes:
    """The beginning of a call, in as many frames as its headers need."""
    content = block(path, more)
    if len(content) <= LARGEST:
        return frame(HEADERS, _END_HEADERS, stream, content)
    pieces = [content[at : at + LARGEST] for at in range(0, len(content), LARGEST)]
    last = len(pieces) - 1
    return frame(HEADERS, 0, stream, pieces[0]) + b"".join(
        frame(CONTINUATION, _END_HEADERS if number == last else 0, stream, piece)
        for number, piece in enumerate(pieces[1:], 1)
    )


def message(content: bytes, *, announced: int | None = None, compressed: bool = False) -> bytes:
    """A gRPC message, or the beginning of one of so many bytes."""
    size = len(content) if announced is None else announced
    return struct.pack(">BI", compressed, size) + content


def ready(connection: socket.socket, *, to_write: bool = False, within_s: float = 0.0) -> tuple[bool, bool]:
    """Whether a connection can be read, and written, within a time: of any number, as `select` cannot."""
    poll = select.poll()
    poll.register(connection, select.POLLIN | (select.POLLOUT if to_write else 0))
    events = dict(poll.poll(within_s * 1e3)).get(connection.fileno(), 0)
    return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)


class Peer:
    """One connection to a gRPC server. For one thread.

    Args:
        port: on loopback.
        window: what the server may send on a stream at first.
        host: on loopback, from which to connect.

    Attributes:
        seen: streams of which the server sent such frames, by kind, and `closed` where it closed the connection.
    """

    def __init__(self, port: int, *, window: int = _WINDOW, host: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(host, 0))
        self.seen: Counter[str] = Counter()
        self._met: set[tuple[int, int]] = set()
        self._room, self._first_room = _WINDOW, _WINDOW
        self._rooms: dict[int, int] = {}
        self._buffer = bytearray()
        self._owed = b""  # goes out before the next frame: never in the middle of one
        self.open = True
        self.send(_PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)))

    def send(self, content: bytes, *, until: float = float("inf")) -> bool:
        """Send bytes, reading meanwhile; says whether all were taken before the monotonic time `until`."""
        left, self._owed = memoryview(self._owed + content), b""
        while left and self.open and time.monotonic() < until:
            readable, writable = ready(self._socket, to_write=True, within_s=0.5)
            if readable:
                self._read()
            if writable and self.open:
                left = left[self._write(left) :]
        return not left

    def send_data(self, stream: int, content: bytes, *, ends: bool = False, until: float = float("inf")) -> bool:
        """Send bytes of a call as the server's flow control allows; says whether all were taken in time."""
        left = memoryview(content)
        while left and self.open and time.monotonic() < until:
            room = min(self._room, self._rooms.get(stream, 0) + self._first_room, LARGEST)
            if room <= 0:
                self.look(0.2)
                continue
            piece, left = left[:room], left[room:]
            self._room -= len(piece)
            self._rooms[stream] = self._rooms.get(stream, 0) - len(piece)
            flags = _END_STREAM if ends and not left else 0
            self.send(frame(DATA, flags, stream, bytes(piece)), until=until)
        return not left

    def look(self, seconds: float) -> None:
        """Read what comes within so many seconds."""
        ends = time.monotonic() + seconds
        while self.open and (left_s := ends - time.monotonic()) > 0:
            if self._owed:
                self.send(b"")
                continue
            if not ready(self._socket, within_s=left_s)[0]:
                return
            self._read()

    def close(self, *, reset: bool = False) -> None:
        """Close the connection, by RST if so wanted."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
        self.open = False

    def _write(self, content: memoryview) -> int:
        try:
            return self._socket.send(content[: 1 << 18], socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            self._lost()
            return len(content)

    def _read(self) -> None:
        try:
            content = self._socket.recv(1 << 20)
        except OSError:
            content = b""
        if not content:
            self._lost()
            return
        self._buffer += content
        at = 0
        while len(self._buffer) - at >= 9:
            size = int.from_bytes(self._buffer[at : at + 3], "big")
            if len(self._buffer) - at < 9 + size:
                break
            kind, flags = self._buffer[at + 3], self._buffer[at + 4]
            stream = int.from_bytes(self._buffer[at + 5 : at + 9], "big")
            self._frame(kind, flags, stream, bytes(self._buffer[at + 9 : at + 9 + size]))
            at += 9 + size
        del self._buffer[:at]

    def _frame(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        if kind in _NAMES and (kind, stream) not in self._met:
            self._met.add((kind, stream))
            self.seen[_NAMES[kind]] += 1
        elif kind == WINDOW_UPDATE:
            more = int.from_bytes(content, "big")
            if stream == 0:
                self._room += more
            else:
                self._rooms[stream] = self._rooms.get(stream, 0) + more
        elif kind == SETTINGS and not flags & _ACK:
            for at in range(0, len(content), 6):
                name, value = struct.unpack_from(">HI", content, at)
                if name == _INITIAL_WINDOW_SIZE:
                    self._first_room = value
            self._owed += frame(SETTINGS, _ACK, 0)

    def _lost(self) -> None:
        self.seen["closed"] += 1
        self.close()


def _text(text: str) -> bytes:
    """A string of HPACK without Huffman's code: its length in a prefix of seven bits, then its bytes."""
    size, head = len(text), bytearray()
    if size < 127:
        head.append(size)
    else:
        head.append(127)
        size -= 127
        while size >= 128:
            head.append(size % 128 + 128)
            size //= 128
        head.append(size)
    return bytes(head) + text.encode()
