"""A channel never blocks, and loses and reorders nothing whatever the socket takes at a time."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from inferry_server.front_ends import records
from inferry_server.front_ends.arena import LARGE_BYTES, ArenaReader, ArenaWriter, open_arena
from inferry_server.front_ends.channel import Arenas, Channel, Wake
from inferry_server.front_ends.lending import LendingReader
from inferry_server.front_ends.records import Record
from testkit.waiting import wait_until

MORE_THAN_A_SOCKET_TAKES = bytes(8 << 20)


class Ends:
    """Both ends of a channel, and how often the writing one asked to be polled for room."""

    def __init__(self, arena_bytes: int = 0, most_bytes: int = records.MOST_BYTES) -> None:
        ours, its = socket.socketpair()
        self.woken: list[bool] = []
        writers, readers = arenas(arena_bytes) if arena_bytes else (None, None)
        self.writer = Channel(ours, lambda: self.woken.append(True), writers)
        self.reader = Channel(its, lambda: None, readers, most_bytes=most_bytes)

    def close(self) -> None:
        self.writer.close()
        self.reader.close()

    def send(self, *sent: bytes) -> None:
        """Messages, each in a record."""
        for number, message in enumerate(sent):
            self.writer.put(1, number, b"body", message)
        self.writer.flush()

    def tell_freed(self) -> None:
        """What the reading end needs no more, to the writing one."""
        self.reader.flush_on()
        for kind, _, body, _ in self.writer.receive() or ():
            assert kind == records.FREED
            self.writer.freed(records.read_places(body))

    def read(self) -> list[Record]:
        """Everything that has come."""
        read: list[Record] = []
        while received := self.reader.receive():
            read += received
        return read


def arenas(size: int) -> tuple[Arenas, Arenas]:
    """Of the end that lends nothing, and of the one that does."""
    one, other = open_arena(size), open_arena(size)
    assert one is not None
    assert other is not None
    made = Arenas(ArenaWriter(one), ArenaReader(other)), Arenas(ArenaWriter(other), LendingReader(one))
    os.close(one)
    os.close(other)
    return made


@pytest.fixture
def ends() -> Iterator[Ends]:
    it = Ends()
    yield it
    it.close()


@pytest.fixture
def sharing() -> Iterator[Ends]:
    """Ends that share a little memory."""
    if open_arena(1 << 12) is None:
        pytest.skip("the system has no memory to share")
    it = Ends(arena_bytes=4 * LARGE_BYTES)
    yield it
    it.close()


def test_what_was_put_is_sent_together_with_a_flush(ends: Ends) -> None:
    ends.writer.put(1, 1, b"a")
    ends.writer.put(2, 2, b"b")
    assert ends.read() == []
    ends.writer.flush()
    assert ends.read() == [(1, 1, b"a", b""), (2, 2, b"b", b"")]
    assert ends.writer.unsent_bytes == 0


def test_what_the_socket_has_no_room_for_follows_in_order(ends: Ends) -> None:
    ends.writer.put(1, 1, b"", MORE_THAN_A_SOCKET_TAKES)
    ends.writer.flush()
    ends.writer.put(2, 2, b"after")
    ends.writer.flush()  # it does not try again: whoever polls does, once there is room
    assert ends.woken
    assert ends.writer.unsent_bytes > 0
    read: list[Record] = []
    while ends.writer.wants_room:
        read += ends.reader.receive() or ()
        ends.writer.flush_on()
    read += ends.read()
    assert read == [(1, 1, b"", MORE_THAN_A_SOCKET_TAKES), (2, 2, b"after", b"")]
    assert ends.writer.unsent_bytes == 0


def test_records_of_many_threads_come_whole_and_each_threads_in_order(ends: Ends) -> None:
    def put(thread: int) -> None:
        for number in range(500):
            ends.writer.put(thread, number, bytes(100))
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
        assert [number for its, number, _, _ in read if its == kind] == list(range(500))


def test_the_end_of_the_other_side_is_told_and_what_is_put_then_is_dropped(ends: Ends) -> None:
    ends.reader.close()
    assert ends.writer.receive() is None
    ends.writer.put(1, 1, b"nobody")
    ends.writer.flush()
    assert ends.writer.unsent_bytes == 0
    assert not ends.writer.wants_room


def test_large_messages_go_through_shared_memory_and_keep_their_order_with_small_ones(sharing: Ends) -> None:
    sent = [b"small", b"l" * LARGE_BYTES, b"", b"L" * LARGE_BYTES, b"last"]
    sharing.send(*sent)
    read = sharing.read()
    assert read == [(1, number, b"body", message) for number, message in enumerate(sent)]
    assert [isinstance(message, memoryview) for *_, message in read] == [False, True, False, True, False]


def test_large_messages_for_which_the_memory_has_no_room_go_over_the_socket_in_order(sharing: Ends) -> None:
    sent = [bytes([number]) * LARGE_BYTES for number in range(8)]
    sent += [b"then a small one", b"and one larger than the memory" * LARGE_BYTES]
    sharing.send(*sent)
    read: list[Record] = []
    while len(read) < len(sent):
        read += sharing.reader.receive() or ()
        sharing.writer.flush_on()
    assert [message for *_, message in read] == sent
    assert sharing.writer.unsent_bytes == 0


def test_memory_is_used_again_and_again_once_the_other_side_needs_it_no_more(sharing: Ends) -> None:
    for number in range(40):
        message = bytes([number]) * LARGE_BYTES
        sharing.send(message)
        [(*_, came)] = sharing.read()
        assert isinstance(came, memoryview)
        assert came == message
        del came
        sharing.tell_freed()


def test_replies_through_shared_memory_are_bytes(sharing: Ends) -> None:
    message = b"r" * LARGE_BYTES
    for _ in range(10):
        sharing.reader.put(2, 7, b"", message)
        sharing.reader.flush()
        received = sharing.writer.receive()
        assert received == [(2, 7, b"", message)]
        assert isinstance(received[0][3], bytes)
        sharing.writer.flush_on()
        [(kind, _, body, _)] = sharing.reader.receive() or ()
        assert kind == records.FREED
        sharing.reader.freed(records.read_places(body))


def test_what_is_freed_is_told_with_what_is_sent_next_or_when_it_is_much(sharing: Ends) -> None:
    def freed() -> int:
        return sum(len(records.read_places(body)) for kind, _, body, _ in sharing.writer.receive() or () if kind == 40)

    sharing.send(*[bytes(LARGE_BYTES)] * 2)
    sharing.read()
    sharing.reader.flush()
    assert freed() == 0
    sharing.reader.put(2, 1, b"reply")
    sharing.reader.flush()
    assert freed() == 2


def test_the_end_is_told_where_a_record_announces_more_than_there_may_be(caplog: pytest.LogCaptureFixture) -> None:
    ends = Ends(most_bytes=10 * LARGE_BYTES)
    ends.send(bytes(9 * LARGE_BYTES))
    while not (read := ends.reader.receive()):
        ends.writer.flush_on()
    assert len(read) == 1
    ends.send(bytes(11 * LARGE_BYTES))
    assert ends.reader.receive() is None
    assert "cannot be what the other process sends" in caplog.text
    ends.close()


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
