"""Connections: bounded in number, and no client is waited for longer than it has time."""

import asyncio
import contextlib
import inspect
import logging
import socket
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
import uvicorn.server
from starlette.responses import Response

from inferry_server.errors import StartError
from inferry_server.http import protocol
from inferry_server.http import server as http_server
from inferry_server.http.application import make_application
from inferry_server.http.crowd import Crowd
from inferry_server.http.limits import HttpLimits
from inferry_server.http.server import HttpOptions, HttpServer
from testkit.http_port import ROUTES, connect, read_all, running
from testkit.servers import ANY_PORT


def ask(connection: socket.socket, path: str = "/") -> bytes:
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    came = b""
    while b"hello" not in came and (piece := connection.recv(4096)):
        came += piece
    return came


@pytest.mark.parametrize("began", [b"0\r\n", b"1\r\nb\r\n5;"], ids=["trailer", "chunk extension"])
@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
def test_what_stands_between_pieces_of_a_body_is_bounded(closed: Counter[str], path: str, began: bytes) -> None:
    with running(closed=lambda reason: closed.update([reason])) as address, connect(address) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + began)
        with contextlib.suppress(ConnectionError):  # it takes no more
            for _ in range(1024):
                connection.sendall(b"a" * HttpLimits().header_bytes)
        read_all(connection)
    assert closed == {"invalid": 1}


def test_a_body_in_many_small_pieces_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = 2 * HttpLimits().header_bytes // len(b"1;e\r\n")
    transport, loop = FakeTransport(), asyncio.new_event_loop()
    monkeypatch.setattr(loop, "create_task", lambda coroutine: coroutine.close() or loop.create_future())
    one = connection_on(loop, transport)
    one.data_received(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(pieces):
        for part in (b"1;e\r\n", b"b", b"\r\n"):
            one.data_received(part)
    assert (transport.aborted, bytes(one.cycle.body)) == (False, b"b" * pieces)
    loop.close()


@pytest.fixture
def closed() -> Counter[str]:
    """Why connections were closed."""
    return Counter()


IMPATIENT = HttpLimits(read_s=0.0, write_s=0.0)
"""Every wait is over at the next look."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next look comes soon."""
    monkeypatch.setattr(http_server, "_TICK_S", 0.01)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTT",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    ],
)
def test_a_client_that_does_not_send_its_request_is_not_waited_for(
    impatient: None, closed: Counter[str], sent: bytes
) -> None:
    options = {"limits": IMPATIENT, "closed": lambda reason: closed.update([reason])}
    with running(**options) as address, connect(address) as connection:
        connection.sendall(sent)
        assert read_all(connection) == b""
    assert closed == {"slow": 1}


def test_a_client_that_does_not_read_its_reply_is_not_waited_for(impatient: None) -> None:
    with running(limits=IMPATIENT) as address, connect(address) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        with connect(address) as another:  # until this one is answered, the first has had its time
            assert b"hello" in ask(another)
        waiting = threading.Event()
        while not waiting.wait(0.02):
            try:
                connection.send(b"G")  # an aborted connection takes nothing any more
            except ConnectionError:
                break


def test_a_body_that_comes_steadily_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = FakeTransport()
    now = [100.0]
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(loop, "time", lambda: now[0])
    monkeypatch.setattr(loop, "create_task", lambda coroutine: coroutine.close() or loop.create_future())
    one = connection_on(loop, transport)
    one.data_received(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n")
    for _ in range(5):
        now[0] += 5
        one.expire(now[0])
        one.data_received(bytes(5 * protocol.LEAST_BYTES_PER_S))
    aborted = [transport.aborted]
    one.expire(now[0] + HttpLimits().read_s + 1)
    aborted.append(transport.aborted)
    assert aborted == [False, True]
    loop.close()


class FakeTransport(asyncio.Transport):
    """Remembers that it was aborted, or closed."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


def connection_on(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport, **options: Any) -> Any:
    import uvicorn
    from uvicorn.server import ServerState

    config = uvicorn.Config(make_application(ROUTES), log_config=None, lifespan="off")
    crowd = Crowd(9, 9, lambda _: None)
    one = protocol.BoundedProtocol(config, ServerState(), {}, loop, limits=HttpLimits(), crowd=crowd, **options)
    one.connection_made(transport)
    return one


@pytest.mark.parametrize(("sent", "reason"), [(b"", "idle"), (b"GET / HT", "slow")])
def test_a_client_that_asks_nothing_more_is_idle_and_not_slow(sent: bytes, reason: str) -> None:
    loop, reasons = asyncio.new_event_loop(), list[str]()
    one = connection_on(loop, FakeTransport(), closed=reasons.append)
    one.resume_writing()  # it has read its reply
    if sent:
        one.data_received(sent)
    one.expire(loop.time() + 1e6)
    assert reasons == [reason]
    loop.close()


def test_headers_that_come_in_one_piece_are_bounded() -> None:
    loop, reasons = asyncio.new_event_loop(), list[str]()
    one = connection_on(loop, FakeTransport(), closed=reasons.append)
    one.data_received(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * HttpLimits().header_bytes + b"\r\n\r\n")
    assert reasons == ["invalid"]
    loop.close()


def test_headers_are_bounded(closed: Counter[str]) -> None:
    with running(closed=lambda reason: closed.update([reason])) as address, connect(address) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * (2 * HttpLimits().header_bytes) + b"\r\n\r\n")
        assert read_all(connection).startswith(b"HTTP/1.1 400")
    assert closed == {"invalid": 1}


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b"GET / HTTP/1.1\r\n", b"GET /"])
def test_a_head_that_does_not_end_is_not_kept(closed: Counter[str], sent: bytes) -> None:
    with running(closed=lambda reason: closed.update([reason])) as address, connect(address) as connection:
        with contextlib.suppress(ConnectionError):  # it is told before all has been sent
            connection.sendall(sent + b"x" * (1 << 20))
        assert read_all(connection)[:13] in (b"HTTP/1.1 400 ", b"")
    assert closed == {"invalid": 1}


def test_where_there_are_too_many_connections_the_one_idle_for_longest_makes_room(closed: Counter[str]) -> None:
    options = {"most_connections": 3, "closed": lambda reason: closed.update([reason])}
    with running(**options) as address, ExitStack() as stack:
        oldest, *others = [stack.enter_context(connect(address)) for _ in range(3)]
        for one in (oldest, *others):
            assert b"hello" in ask(one)
        newest = stack.enter_context(connect(address))
        assert b"hello" in ask(newest)
        assert read_all(oldest) == b""
        for one in others:
            assert b"hello" in ask(one)
    assert closed == {"crowded": 1}


def test_replies_do_not_wait_for_acknowledgements() -> None:
    async def look(scope: Any, receive: Any, send: Any) -> None:
        await Response(b"hello")(scope, receive, send)

    server = HttpServer(look, HttpOptions())
    address = server.start(ANY_PORT)
    with connect(address) as connection:
        assert b"hello" in ask(connection)
        options = [
            one.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            for one in server._server.server_state.connections
        ]
    server.close()
    assert options == [1]


def test_a_client_that_keeps_its_connection_gets_replies_again() -> None:
    with running() as address, connect(address) as connection:
        for _ in range(3):
            assert b"hello" in ask(connection)


def test_an_unexpected_error_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    with running() as address, connect(address) as connection:
        connection.sendall(b"GET /fail HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"secret" not in answer
    assert "secret" in caplog.text


def test_a_port_is_not_shared() -> None:
    with running() as address, pytest.raises(StartError, match=r"HTTP address .* cannot be bound"):
        HttpServer(make_application(ROUTES), HttpOptions()).start(address)


def test_closing_ends_connections_and_gives_the_port_back() -> None:
    with running() as address:
        connection = connect(address)
        assert b"hello" in ask(connection)
    assert read_all(connection) == b""
    connection.close()
    again = HttpServer(make_application(ROUTES), HttpOptions())
    assert again.start(address) == address
    again.close()


def test_that_no_task_was_cancelled_at_the_end_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    said = "Cancel %s running task(s), timeout graceful shutdown exceeded"
    assert said in inspect.getsource(uvicorn.server)
    HttpServer(make_application(ROUTES), HttpOptions())
    for cancelled in (0, 2):
        logging.getLogger("uvicorn.error").error(said, cancelled)
    assert [record.getMessage() for record in caplog.records] == [said % 2]
