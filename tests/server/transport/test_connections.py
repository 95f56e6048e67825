"""Connections are counted by what the kernel tells, and one peer may have a share of all."""

import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from inferry_server.transport.connections import can_count_connections, share_of_peer, sockets_in_use


def test_sockets_are_counted_for_both_families_and_none_where_the_system_does_not_tell(tmp_path: Path) -> None:
    four, six = tmp_path / "sockstat", tmp_path / "sockstat6"
    assert sockets_in_use((four, six)) == 0
    four.write_text("sockets: used 14\nTCP: inuse 31 orphan 5 tw 3 alloc 1 mem 0\nUDP: inuse 7 mem 0\n")
    assert sockets_in_use((four, six)) == 31
    six.write_text("TCP6: inuse 11\nUDP6: inuse 2\n")
    assert sockets_in_use((four, six)) == 42


@pytest.mark.skipif(not can_count_connections(), reason="this system has no tables of its TCP connections")
def test_each_new_connection_of_this_machine_counts() -> None:
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        before = sockets_in_use()
        for _ in range(20):
            opened.enter_context(socket.create_connection(listener.getsockname()))
            opened.enter_context(listener.accept()[0])
        assert sockets_in_use() >= before + 20  # both ends count; others may have closed theirs


@pytest.mark.parametrize(
    ("wanted", "of", "expected"), [(0, 10_000, 7500), (0, 1, 1), (0, 2, 2), (5, 16, 5), (10_000, 640, 640)]
)
def test_a_peer_may_have_three_quarters_of_all_connections_unless_a_setting_says_otherwise(
    wanted: int, of: int, expected: int
) -> None:
    assert share_of_peer(wanted, of=of) == expected
