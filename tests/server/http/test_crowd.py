"""Who makes room where there are too many HTTP connections, of everybody or of one peer."""

import asyncio
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from inferry_server.addresses import Address
from inferry_server.http import protocol
from inferry_server.http import server as http_server
from inferry_server.http.application import make_application
from inferry_server.http.crowd import FOR_HEALTH, Crowd, peer_of
from inferry_server.http.handshakes import Handshakes
from inferry_server.http.limits import HttpLimits
from inferry_server.http.server import HttpOptions, HttpServer
from testkit.certificates import Authority
from testkit.servers import ANY_PORT
from testkit.waiting import SOON_S, wait_until

MOST = 4


@dataclass(eq=False)
class Member:
    """A connection that stands as it is told."""

    peer: str
    standing: tuple[int, float] | None = None
    is_open: bool = True

    def make_room(self) -> None:
        self.is_open = False


class Played:
    """A crowd and its members."""

    def __init__(self, most: int = MOST, most_of_peer: int = MOST) -> None:
        self.closed: Counter[str] = Counter()
        self.crowd = Crowd(most, most_of_peer, lambda reason: self.closed.update([reason]))
        self.members: list[Member] = []

    def enter(self, peer: str, standing: tuple[int, float] | None = None) -> tuple[Member, bool]:
        one = Member(peer, standing)
        self.members.append(one)
        return one, self.crowd.enter(one)

    def open(self) -> list[Member]:
        return [one for one in self.members if one.is_open]


Standing = st.none() | st.tuples(st.integers(0, 2), st.floats(0, 9))
Arrival = st.tuples(st.sampled_from("abc"), Standing, st.booleans())


@given(st.lists(Arrival, max_size=80), st.integers(1, 6), st.integers(1, 6))
def test_no_more_may_ask_than_the_limits_say_and_a_few_more_for_health(
    arrivals: list[tuple[str, tuple[int, float] | None, bool]], most: int, most_of_peer: int
) -> None:
    played = Played(most, most_of_peer)
    may_ask: set[Member] = set()
    for peer, standing, then_owed in arrivals:
        one, may = played.enter(peer, standing)
        if may:
            may_ask.add(one)
        if then_owed:
            one.standing = None
        there = played.open()
        asking = [one for one in there if one in may_ask]
        assert len(asking) <= most
        assert len(there) <= most + FOR_HEALTH
        assert max(Counter(one.peer for one in asking).values(), default=0) <= most_of_peer
        assert max(Counter(one.peer for one in there).values(), default=0) <= most_of_peer + FOR_HEALTH
        assert one.is_open or not may
    assert played.closed.total() == len(arrivals) - len(played.open())


def test_nobody_makes_room_who_is_owed_an_answer() -> None:
    played = Played()
    owed = [played.enter("a")[0] for _ in range(MOST)]
    probes = [played.enter("a") for _ in range(FOR_HEALTH + 3)]
    assert all(one.is_open for one in owed)
    assert not any(may_ask for _, may_ask in probes)
    assert [one.is_open for one, _ in probes] == [True] * FOR_HEALTH + [False] * 3
    assert played.closed == {"crowded": 3}


def test_whoever_has_the_most_connections_makes_room_for_others() -> None:
    played = Played()
    proxy, _ = played.enter("proxy", (0, 1.0))
    greedy = [played.enter("greedy", (1, 9.0 - number))[0] for number in range(3)]
    newcomer, may_ask = played.enter("new", (0, 5.0))
    assert may_ask
    assert [one.is_open for one in (proxy, newcomer, *greedy)] == [True, True, True, True, False]


def test_a_peer_with_too_many_connections_makes_room_for_itself() -> None:
    played = Played(most_of_peer=2)
    idle, _ = played.enter("other", (0, 0.0))
    first, second = (played.enter("greedy", (0, at))[0] for at in (2.0, 1.0))
    assert played.enter("greedy", (0, 3.0))[1]
    assert [one.is_open for one in (idle, first, second)] == [True, True, False]


def test_a_connection_that_left_is_forgotten_once() -> None:
    played = Played(most=1)
    one, _ = played.enter("a")
    for _ in range(3):
        played.crowd.leave(one)
    assert played.enter("a")[1]
    assert not played.enter("b")[1]


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("2001:db8::1", "2001:db8::"),
        ("2001:db8::ffff:2", "2001:db8::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_a_peer_is_an_ipv4_address_or_a_network_of_ipv6(host: str, peer: str) -> None:
    assert peer_of(host) == peer


async def hello(_request: Request) -> Response:
    return Response(b"hello")


async def endless(_request: Request) -> Response:
    async def events() -> Any:
        yield b"hello"
        await asyncio.Event().wait()

    return StreamingResponse(events())


class Gate:
    """Answers when it is told to."""

    def __init__(self) -> None:
        self.waiting = self.bodies = 0
        self._opened: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def answer(self, _request: Request) -> Response:
        self._loop = asyncio.get_running_loop()
        self._opened = self._opened or asyncio.Event()
        self.waiting += 1
        await self._opened.wait()
        return Response(b"hello")

    async def echo(self, request: Request) -> Response:
        self.bodies += 1
        return Response(await request.body())

    def open(self) -> None:
        if self._loop is not None and self._opened is not None:
            self._loop.call_soon_threadsafe(self._opened.set)


class Running:
    """A server with a gate."""

    def __init__(self, address: Address, gate: Gate, closed: Counter[str], stack: ExitStack) -> None:
        self.address, self.gate, self.closed = address, gate, closed
        self._stack = stack

    def connect(self, peer: str = "127.0.0.1") -> socket.socket:
        made = socket.create_connection((self.address.host, self.address.port), SOON_S, source_address=(peer, 0))
        return self._stack.enter_context(made)

    def asked(self, path: str, peer: str = "127.0.0.1", more: bytes = b"") -> socket.socket:
        connection = self.connect(peer)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n".encode() + (more or b"\r\n"))
        return connection


@contextmanager
def running(**options: Any) -> Iterator[Running]:
    gate, closed = Gate(), Counter[str]()
    routes = [
        Route("/", hello), Route("/livez", hello), Route("/gate", gate.answer), Route("/live", endless),
        Route("/echo", gate.echo, methods=["GET"]),
    ]  # fmt: skip
    told = {"closed": lambda reason: closed.update([reason])}
    server = HttpServer(make_application(routes), HttpOptions(**{"most_of_peer": 99, **told, **options}))
    with ExitStack() as stack:
        try:
            yield Running(server.start(ANY_PORT), gate, closed, stack)
        finally:
            gate.open()
            stack.close()
            server.close()


def said(connection: socket.socket) -> bytes:
    """What comes until an answer of five letters is whole, or the server closes."""
    came = b""
    try:
        while b"hello" not in came and (piece := connection.recv(4096)):
            came += piece
    except ConnectionError:
        pass
    return came


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(SOON_S)
    try:
        return connection.recv(4096) == b""
    except ConnectionError:
        return True


HALF_A_BODY = b"Content-Length: 99\r\n\r\nhalf"


def test_half_sent_bodies_and_streams_without_an_end_make_room_for_others() -> None:
    with running(most_connections=3) as server:
        stream = server.asked("/live", "127.0.0.2")
        assert said(stream).endswith(b"hello\r\n")
        bodies = [server.asked("/echo", "127.0.0.2", HALF_A_BODY) for _ in range(2)]
        wait_until(lambda: server.gate.bodies == 2, "the bodies to begin")
        for number in range(3):
            assert b"hello" in said(server.asked("/", f"127.0.0.{3 + number}"))
        assert all(map(is_closed, bodies))
        assert is_closed(stream)
        assert server.closed == {"crowded": 3}


def test_the_slowest_body_makes_room_first() -> None:
    with running(most_connections=2) as server:
        slow = server.asked("/echo", "127.0.0.2", HALF_A_BODY)
        wait_until(lambda: server.gate.bodies == 1, "its body to begin")
        fast = server.asked("/echo", "127.0.0.2", HALF_A_BODY)
        wait_until(lambda: server.gate.bodies == 2, "the other one's")
        fast.sendall(b"x" * 50)
        assert b"hello" in said(server.asked("/", "127.0.0.3"))
        assert is_closed(slow)
        fast.sendall(b"x" * 45)
        fast.settimeout(SOON_S)
        assert fast.recv(4096).startswith(b"HTTP/1.1 200")


def test_health_is_told_where_every_connection_is_owed_an_answer_and_nothing_else_is() -> None:
    with running(most_connections=2, most_of_peer=2) as server:
        owed = [server.asked("/gate") for _ in range(2)]
        wait_until(lambda: server.gate.waiting == 2, "the requests")
        for peer in ("127.0.0.1", "127.0.0.2"):
            assert b"connection: close" in said(server.asked("/livez", peer))
            refused = server.asked("/", peer)
            head, _, body = said_all(refused).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in head
            assert "http_max_connections" in json.loads(body)["error"]
        server.gate.open()
        assert all(b"hello" in said(one) for one in owed)
        assert server.closed == {"crowded": 2}


def said_all(connection: socket.socket) -> bytes:
    connection.settimeout(SOON_S)
    came = b""
    while piece := connection.recv(4096):
        came += piece
    return came


def test_one_peer_does_not_take_the_connections_of_others() -> None:
    with running(most_connections=4, most_of_peer=3) as server:
        owed = [server.asked("/gate", "127.0.0.2") for _ in range(3)]
        wait_until(lambda: server.gate.waiting == 3, "the requests")
        assert said_all(server.asked("/", "127.0.0.2")).startswith(b"HTTP/1.1 503")
        assert b"hello" in said(server.asked("/", "127.0.0.3"))
        server.gate.open()
        assert all(b"hello" in said(one) for one in owed)


PIPELINED = b"GET /gate HTTP/1.1\r\nHost: x\r\n\r\n"


def test_requests_that_wait_behind_others_of_their_connection_are_bounded_and_those_before_are_answered() -> None:
    with running() as server:
        connection = server.connect()
        connection.settimeout(SOON_S)
        connection.sendall(PIPELINED * 100)  # one piece: of what is unread, a reset would tell
        wait_until(lambda: server.closed["invalid"] == 1, "the bound")
        wait_until(lambda: server.gate.waiting == 1, "the first of them")
        server.gate.open()
        came = said_all(connection)
        assert came.count(b"HTTP/1.1 200") == came.count(b"hello") == protocol.MOST_PIPELINED + 1
        assert b"HTTP/1.1 400" not in came


def test_a_client_is_read_no_further_than_its_requests_are_answered() -> None:
    large = b"GET /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n" + bytes(60_000)
    with running() as server:
        connection = server.connect()
        count = 0

        def send() -> None:
            connection.sendall(large * 500)

        sending = threading.Thread(target=send)
        sending.start()
        while count < 500:
            piece = connection.recv(1 << 20)
            assert piece
            count += piece.count(b"HTTP/1.1 200")
        sending.join()
        assert server.closed == {}


@pytest.mark.parametrize(
    "behind",
    [b"\xff\xff", b"GET /gate HTTP/1.1\r\n\r\n", b"GET /gate HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 999_999],
)
def test_what_is_no_request_does_not_overtake_the_reply_to_the_one_before(behind: bytes) -> None:
    with running() as server:
        connection = server.connect()
        connection.sendall(PIPELINED + behind)
        wait_until(lambda: server.closed["invalid"] == 1, "the fault to be found")
        server.gate.open()
        came = said(connection) + said(connection)
        assert came.count(b"HTTP/1.1") == came.count(b"hello")
        assert b"hello" in came or behind[1 << 18 :]  # what is unread is answered with a reset


@pytest.fixture
def secured(tmp_path: Path) -> ssl.SSLContext:
    issued = Authority(tmp_path, "authority").issue("server", "IP:127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def greeted(server: Running) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(server.connect("127.0.0.3")) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return said(connection)


def test_handshakes_are_bounded_in_number(secured: ssl.SSLContext) -> None:
    with running(most_connections=3, tls=secured) as server:
        silent = [server.connect() for _ in range(18)]
        wait_until(lambda: server.closed["crowded"] == 2, "the oldest two to be given up")
        assert all(map(is_closed, silent[:2]))
        for _ in range(4):
            assert b"hello" in greeted(server)
        assert server.closed["crowded"] <= 6


def test_handshakes_are_bounded_in_time(secured: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_TICK_S", 0.01)
    with running(tls=secured, limits=HttpLimits(read_s=0.0)) as server:
        assert is_closed(server.connect())
        assert server.closed == {"slow": 1}


def accepted(clock: Callable[[], float] = lambda: 0.0) -> tuple[Handshakes, Counter[str]]:
    closed: Counter[str] = Counter()
    return Handshakes(2, 10.0, lambda reason: closed.update([reason]), clock), closed


def test_a_handshake_that_ended_makes_room_without_anybody_being_given_up() -> None:
    under_way, closed = accepted()
    pairs = [socket.socketpair() for _ in range(4)]
    for number, (ours, _) in enumerate(pairs):
        under_way.began(ours, "127.0.0.1")
        if number == 0:
            under_way.ended(ours.fileno())
        if number == 1:
            ours.close()
    assert closed == {}
    under_way.began(socket.socketpair()[0], "127.0.0.2")
    assert closed == {"crowded": 1}
    assert pairs[2][1].recv(1) == b""
    for pair in pairs:
        for end in pair:
            end.close()
