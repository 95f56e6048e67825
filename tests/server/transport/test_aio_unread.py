"""Clients of grpc.aio who do not read their replies are cut off, and nobody who gets their address and port."""

import errno
import math
import socket
import struct
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest

from inferry_server.transport import aio_unread
from inferry_server.transport.aio_unread import UnreadReplies
from inferry_server.transport.connections import can_count_connections
from inferry_server.transport.peers import sockets_of_clients
from testkit.sockets import is_open

PORT = 8001
linux = pytest.mark.skipif(not can_count_connections(), reason="this system does not show a process its descriptors")


class GivenUp:
    """A client that does not read the replies of a stream over `aio`, and is given up.

    Attributes:
        call: the stream's; done once its end is known.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, peer: str) -> None:
        monkeypatch.setattr(aio_unread, "_CORES", math.inf)  # every look is due
        self.call: Future[None] = Future()
        self._streams: list[Any] = [
            SimpleNamespace(active_at=0.0, awaits_reader=True, peer=lambda: peer, task=self.call)
        ]
        self.replies = UnreadReplies(cast("Any", SimpleNamespace(time=lambda: 100.0)), 1.0, lambda: None)
        self.turn()
        self._streams.clear()

    def turn(self, times: int = 1) -> None:
        """The loop goes on."""
        for _ in range(times):
            self.replies.give_up(self._streams)


def test_clients_who_are_given_up_are_looked_for_later_where_no_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[set[str]] = []

    def look(clients: set[str], port: int) -> dict[str, dict[int, int]]:
        assert port == PORT
        asked.append(clients)
        if len(asked) == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return {}

    monkeypatch.setattr(aio_unread, "sockets_of_clients", look)
    given_up = GivenUp(monkeypatch, "ipv4:192.0.2.1:1")
    for _ in range(2):
        given_up.replies.cut_off(PORT)
    given_up.call.set_result(None)
    given_up.replies.cut_off(PORT)
    assert asked == [{"ipv4:192.0.2.1:1"}] * 2


class OneAddress:
    """Connections to a port of this process, all from one address and port, one after another."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened = opened
        self._listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.port, self._own_port = self._listener.getsockname()[1], 0
        self.connect()

    @property
    def peer(self) -> str:
        return f"ipv4:127.0.0.1:{self._own_port}"

    def connect(self) -> None:
        self._client = self._opened.enter_context(socket.socket())
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._client.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # the port is free at once
        self._client.bind(("127.0.0.1", self._own_port))
        self._client.connect(self._listener.getsockname())
        self._own_port = self._client.getsockname()[1]
        self._accepted = self._opened.enter_context(self._listener.accept()[0])

    def exchange(self) -> None:
        """The client goes, and another one has its address and port."""
        self._client.close()
        self._accepted.close()
        self.connect()

    def is_open(self) -> bool:
        return is_open(self._client)


@linux
def test_a_client_who_is_given_up_is_cut_off_when_its_call_has_waited_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as opened:
        address = OneAddress(opened)
        given_up = GivenUp(monkeypatch, address.peer)
        for turns in (0, 4, 1):
            assert address.is_open()
            given_up.turn(turns)
            given_up.replies.cut_off(address.port)
        assert not address.is_open()


@linux
@pytest.mark.parametrize("heard", [False, True], ids=["the call waits on", "the call has ended"])
@pytest.mark.parametrize("when", ["before the first look", "between two looks", "as the sockets are looked for"])
def test_whoever_gets_the_port_of_a_client_who_was_given_up_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch, when: str, *, heard: bool
) -> None:
    """The call hears within five turns of the loop that its connection has ended."""
    with ExitStack() as opened:
        address = OneAddress(opened)
        given_up = GivenUp(monkeypatch, address.peer)

        def look(clients: set[str], port: int) -> Mapping[str, Mapping[int, int]]:
            found = sockets_of_clients(clients, port)
            if heard and when == "as the sockets are looked for" and not given_up.call.done():
                given_up.call.set_result(None)
            return found

        if when != "between two looks":
            address.exchange()
        given_up.replies.cut_off(address.port)
        monkeypatch.setattr(aio_unread, "sockets_of_clients", look)
        if when == "between two looks":
            address.exchange()
        if heard and when != "as the sockets are looked for":
            given_up.call.set_result(None)
        given_up.turn(5 if heard or when == "between two looks" else 4)
        given_up.replies.cut_off(address.port)
        assert address.is_open()
