"""Connections of one peer are bounded: by what the kernel tells of them, and whoever has too many loses the newest."""

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_server.addresses import Address, UnixAddress
from inferry_server.rpc.router import Router
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.connections import can_count_connections
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.peers import (
    PeerBound,
    beyond,
    cut_off,
    established,
    own_sockets,
    peer_bound,
    peer_of,
    sockets_of_clients,
)
from inferry_server.transport.selection import make_transport
from testkit.servers import ANY_PORT
from testkit.sockets import is_open
from testkit.waiting import SOON_S, wait_until

PORT = 8001  # 1F41
HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty SETTINGS
linux = pytest.mark.skipif(not can_count_connections(), reason="this system does not show a process its descriptors")


def line(remote: str, number: int, *, state: str = "01", port: int = PORT, local: str = "0100007F") -> str:
    """A line of the kernel's table."""
    rest = f"00000000:00000000 00:00000000 00000000     0        0 {number} 1 0000000000000000 20 0 0 10 -1\n"
    return f"   7: {local}:{port:04X} {remote}:9C40 {state} {rest}"


def table(folder: Path, *lines: str) -> Path:
    path = folder / "tcp"
    path.write_text(HEADING + "".join(lines))
    return path


@given(st.dictionaries(st.integers(1, 40), st.sampled_from("abcd")), st.integers(1, 5), st.sets(st.integers(1, 40)))
def test_each_peer_keeps_its_oldest_connections_and_no_more_than_it_may_have(
    peers: Mapping[int, str], most: int, known: set[int]
) -> None:
    excess = set(beyond(peers, most, known))

    def age(number: int) -> tuple[bool, int]:
        return number not in known, number

    for peer, count in Counter(peers.values()).items():
        kept = [number for number, whose in peers.items() if whose == peer and number not in excess]
        lost = [number for number, whose in peers.items() if whose == peer and number in excess]
        assert len(kept) == min(count, most)
        assert not lost or max(map(age, kept)) < min(map(age, lost))


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("0100007F", "0100007F"),
        ("0000000000000000FFFF00000100007F", "0100007F"),  # ::ffff:127.0.0.1 on a little-endian machine
        ("00000000000000000000FFFF7F000001", "7F000001"),  # and on a big-endian one
        ("B80D01200000000000000000010000000", "B80D012000000000"),
        ("B80D0120000000001234567801000000", "B80D012000000000"),  # another one of the same network
    ],
)
def test_a_peer_is_an_ipv4_address_or_a_network_of_ipv6(address: str, peer: str) -> None:
    assert peer_of(address) == peer


def test_connections_are_those_to_the_port_that_were_accepted(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        line("0200007F", 11),
        line("0300007F", 12, state="06"),  # closed already
        line("0400007F", 0),  # waits to be accepted
        line("0500007F", 13, port=PORT + 1),
        line("0000000000000000FFFF00000200007F", 14, local="0" * 32),
        line("00000000", 15, state="0A"),  # the listener
    )
    assert dict(established(path, PORT)) == {11: "0200007F", 14: "0200007F"}


def test_a_long_table_is_read_to_its_end(tmp_path: Path) -> None:
    path = table(tmp_path, *(line("0200007F", number) for number in range(1, 5001)))
    assert sum(1 for _ in established(path, PORT)) == 5000


def test_the_table_is_read_less_often_the_longer_that_takes(tmp_path: Path) -> None:
    now, cpu, looks = [0.0], [0.0], [0]

    def cpu_clock() -> float:
        looks[0] += 1
        cpu[0] += 0.001
        return cpu[0]

    bound = PeerBound(PORT, 1, lambda _: None, [table(tmp_path)], clock=lambda: now[0], cpu_clock=cpu_clock)
    for _ in range(100):
        bound.look()
        now[0] += 1.0
    assert looks[0] == 2 * 25  # 1 ms of a core: the first look after 3.3 s


def test_a_process_without_a_descriptor_left_looks_again_and_tells_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = [0]

    def count() -> int:
        counts[0] += 1
        if counts[0] <= 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return 1

    bound = PeerBound(PORT, 1, lambda _: None, [table(tmp_path)], count=count, clock=lambda: 0.0)
    for _ in range(4):
        bound.look()
    assert counts == [4]
    assert [record.getMessage() for record in caplog.records] == [
        "the connections of each peer cannot be counted now: [Errno 24] Too many open files"
    ]


@pytest.mark.parametrize(
    ("come", "looks_at"),
    [(0, [0.0, 5.0]), (20, [0.0, 5.0]), (21, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0])],
)
def test_the_table_is_read_ten_times_as_often_while_one_peer_may_take_what_others_need(
    tmp_path: Path, come: int, looks_at: list[float]
) -> None:
    now, cpu, sockets, looks = [0.0], [0.0], [100], list[float]()

    def cpu_clock() -> float:
        cpu[0] += 0.025
        return cpu[0]

    def count() -> int:
        return sockets[0]

    path = table(tmp_path, *(line("0200007F", number) for number in range(1, 91)))
    bound = PeerBound(
        PORT, 100, lambda _: None, [path], spare=10, count=count, clock=lambda: now[0], cpu_clock=cpu_clock
    )
    for step in range(21):
        now[0] = step * 0.25
        before = cpu[0]
        bound.look()
        if cpu[0] > before:
            looks.append(now[0])
            sockets[0] += come
    assert looks == looks_at


def test_after_somebody_was_cut_off_the_table_is_read_sooner_until_nobody_is(tmp_path: Path) -> None:
    now, cpu, told, looked = [0.0], [0.0], list[int](), list[float]()

    def cpu_clock() -> float:
        cpu[0] += 0.025
        return cpu[0]

    with ExitStack() as opened:
        pairs = [socket.socketpair() for _ in range(4)]
        for one in (one for pair in pairs for one in pair):
            opened.enter_context(one)
        numbers = [os.fstat(ours.fileno()).st_ino for ours, _ in pairs]
        path = table(tmp_path, *(line("0200007F", number) for number in numbers))
        bound = PeerBound(
            PORT, 1, told.append, [path], spare=2, count=lambda: 50, clock=lambda: now[0], cpu_clock=cpu_clock
        )
        for step in range(24):
            now[0], before = step * 0.25, cpu[0]
            bound.look()
            if cpu[0] > before:
                looked.append(now[0])
            table(tmp_path, line("0200007F", numbers[0]))
    assert told == [3]
    assert looked == [0.0, 0.5, 5.5]


def test_connections_that_come_do_not_hide_behind_others_that_go(tmp_path: Path) -> None:
    now, cpu, sockets = [0.0], [0.0], [100]

    def cpu_clock() -> float:
        cpu[0] += 0.025
        return cpu[0]

    path = table(tmp_path, *(line("0200007F", number) for number in range(1, 91)))
    bound = PeerBound(
        PORT, 100, lambda _: None, [path], spare=10, count=lambda: sockets[0], clock=lambda: now[0], cpu_clock=cpu_clock
    )
    bound.look()
    looked = cpu[0]
    for now[0], sockets[0] in ((0.6, 60), (0.7, 80)):  # twenty have come at least
        bound.look()
        assert cpu[0] == looked
    now[0], sockets[0] = 0.8, 81
    bound.look()
    assert cpu[0] > looked


def test_a_descriptor_that_has_become_another_sockets_is_left_alone() -> None:
    ours, its = socket.socketpair()
    with ours, its:
        number = os.fstat(ours.fileno()).st_ino
        assert own_sockets()[number] == ours.fileno()
        assert not cut_off(ours.fileno(), number + 1)
        its.sendall(b"x")
        assert ours.recv(1) == b"x"
        assert cut_off(ours.fileno(), number)
        assert its.recv(1) == b""
    assert not cut_off(ours.fileno() if ours.fileno() >= 0 else 10**6, number)


@linux
@pytest.mark.parametrize(
    ("family", "host", "named"),
    [
        (socket.AF_INET, "127.0.0.1", "ipv4:127.0.0.1:{}"),
        (socket.AF_INET6, "::1", "ipv6:%5B::1%5D:{}"),
        (socket.AF_INET6, "::1", "ipv6:[0:0:0:0:0:0:0:1]:{}"),
    ],
)
def test_a_clients_sockets_are_found_by_its_name_and_no_others(
    family: socket.AddressFamily, host: str, named: str
) -> None:
    with ExitStack() as opened:
        listeners = [opened.enter_context(socket.create_server((host, 0), family=family)) for _ in range(2)]
        ports = [listener.getsockname()[1] for listener in listeners]
        clients = [opened.enter_context(socket.create_connection((host, port))) for port in (*ports, ports[0])]
        for listener in (listeners[0], listeners[1], listeners[0]):
            opened.enter_context(listener.accept()[0])
        names = [named.format(client.getsockname()[1]) for client in clients]
        assert not sockets_of_clients({names[1], "unix:", "ipv4:192.0.2.1:1"}, ports[0])  # it asks another port
        found = sockets_of_clients({*names}, ports[0])
        assert {name: len(sockets) for name, sockets in found.items()} == {names[0]: 1, names[2]: 1}
        ((number, descriptor),) = found[names[0]].items()
        assert cut_off(descriptor, number)
        assert list(map(is_open, clients)) == [False, True, True]


def test_nothing_is_looked_at_where_no_peer_can_have_too_many() -> None:
    options = TransportOptions(max_message_bytes=1, max_streams=1, max_connections=9, max_connections_per_peer=9)
    assert peer_bound(options, Address("127.0.0.1", 1), lambda _: None) is None
    fewer = TransportOptions(max_message_bytes=1, max_streams=1, max_connections=9, max_connections_per_peer=8)
    assert peer_bound(fewer, UnixAddress("unix", "/x"), lambda _: None) is None
    assert peer_bound(fewer, Address("127.0.0.1", 1), lambda _: None) is not None


@pytest.fixture
def connections() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(stack: ExitStack, address: Address, peer: str) -> socket.socket:
    """A connection from an address of this machine that gRPC has taken: it has said hello."""
    connection = stack.enter_context(
        socket.create_connection((address.host, address.port), timeout=SOON_S, source_address=(peer, 0))
    )
    connection.sendall(HTTP2_PREFACE)
    assert connection.recv(1)
    return connection


@pytest.mark.skipif(not can_count_connections(), reason="this system has no tables of its TCP connections")
def test_who_has_too_many_connections_loses_the_newest_and_nobody_else_any(
    transport: str, connections: ExitStack
) -> None:
    metrics = ServerMetrics()
    options = TransportOptions(max_message_bytes=1, max_streams=1, max_connections=9, max_connections_per_peer=3)
    made = make_transport(transport, Router(metrics), options)
    address = made.start(ANY_PORT)
    try:
        greedy = [connect(connections, address, "127.0.0.1") for _ in range(3)]
        made.look()
        greedy += [connect(connections, address, "127.0.0.1") for _ in range(2)]
        modest = [connect(connections, address, "127.0.0.2") for _ in range(3)]

        def cut() -> bool:
            made.look()
            return sum(map(is_open, greedy)) == 3

        wait_until(cut, "the connections that are too many to be closed")
        assert [is_open(one) for one in greedy] == [True, True, True, False, False]
        assert all(map(is_open, modest))
        assert metrics.registry.get_sample_value("inferry_connections_closed_total", {"reason": "peer"}) == 2
    finally:
        connections.close()
        made.stop(0)
