"""A channel never blocks, and loses and reorders nothing whatever the socket takes at a time."""

import socket
import threading
from collections.abc import Iterator

import pytest

from inferry_server.front_ends import records
from inferry_server.front_ends.channel import Channel, Wake
from inferry_server.front_ends.records import Record
from testkit.waiting import wait_until

MORE_THAN_A_SOCKET_TAKES = bytes(8 << 20)


class Ends:
    """Both ends of a channel, and how often the writing one asked to be polled for room."""

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        self.woken: list[bool] = []
        self.writer = Channel(ours, lambda: self.woken.append(True))
        self.reader = Channel(its, lambda: None)

    def read(self) -> list[Record]:
        """Everything that has come."""
        read: list[Record] = []
        while received := self.reader.receive():
            read += received
        return read


@pytest.fixture
def ends() -> Iterator[Ends]:
    it = Ends()
    yield it
    it.writer.close()
    it.reader.close()


def test_what_was_put_is_sent_together_with_a_flush(ends: Ends) -> None:
    ends.writer.put(records.write(1, 1, b"a"))
    ends.writer.put(records.write(2, 2, b"b"))
    assert ends.read() == []
    ends.writer.flush()
    assert ends.read() == [(1, 1, b"a"), (2, 2, b"b")]
    assert ends.writer.unsent_bytes == 0


def test_what_the_socket_has_no_room_for_follows_in_order(ends: Ends) -> None:
    ends.writer.put(records.write(1, 1, MORE_THAN_A_SOCKET_TAKES))
    ends.writer.flush()
    ends.writer.put(records.write(2, 2, b"after"))
    ends.writer.flush()  # it does not try again: whoever polls does, once there is room
    assert ends.woken
    assert ends.writer.unsent_bytes > 0
    read: list[Record] = []
    while ends.writer.wants_room:
        read += ends.reader.receive() or ()
        ends.writer.flush_on()
    read += ends.read()
    assert read == [(1, 1, MORE_THAN_A_SOCKET_TAKES), (2, 2, b"after")]
    assert ends.writer.unsent_bytes == 0


def test_records_of_many_threads_come_whole_and_each_threads_in_order(ends: Ends) -> None:
    def put(thread: int) -> None:
        for number in range(500):
            ends.writer.put(records.write(thread, number, bytes(100)))
            ends.writer.flush()

    threads = [threading.Thread(target=put, args=(thread,)) for thread in range(1, 5)]
    for thread in threads:
        thread.start()
    read: list[Record] = []

    def all_read() -> bool:
        ends.writer.flush_on()
        read.extend(ends.reader.receive() or ())
        return len(read) == 2000

    wait_until(all_read, "all records")
    for thread in threads:
        thread.join()
    for kind in range(1, 5):
        assert [number for its, number, _ in read if its == kind] == list(range(500))


def test_the_end_of_the_other_side_is_told_and_what_is_put_then_is_dropped(ends: Ends) -> None:
    ends.reader.close()
    assert ends.writer.receive() is None
    ends.writer.put(records.write(1, 1, b"nobody"))
    ends.writer.flush()
    assert ends.writer.unsent_bytes == 0
    assert not ends.writer.wants_room


def test_a_wake_that_comes_while_the_thread_is_awake_wakes_it_again() -> None:
    wake = Wake()
    wake()
    wake()
    wake.clear()
    wake()
    assert wake.is_set()
    wake.clear()
    assert not wake.is_set()
    wake.close()
