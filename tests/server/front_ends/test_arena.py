"""Messages in shared memory: they come as they were put, and their places are free again when nobody views them."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from inferry_server.front_ends.arena import ArenaReader, ArenaWriter, BrokenRecordsError, open_arena
from inferry_server.front_ends.lending import LendingReader

SIZE = 1 << 20
needs_arenas = pytest.mark.skipif(open_arena(1 << 12) is None, reason="the system has no memory to share")
pytestmark = needs_arenas


@pytest.fixture
def descriptor() -> Iterator[int]:
    opened = open_arena(SIZE)
    assert opened is not None
    yield opened
    os.close(opened)


def put(writer: ArenaWriter, message: bytes) -> int:
    start = writer.put(message)
    assert start is not None
    return start


def test_a_copy_is_what_was_put_and_its_place_is_free_at_once(descriptor: int) -> None:
    writer, reader = ArenaWriter(descriptor), ArenaReader(descriptor)
    places = [put(writer, bytes([number]) * 1000) for number in range(3)]
    assert [reader.take(place, 1000) for place in places] == [bytes([number]) * 1000 for number in range(3)]
    assert reader.freed() == places
    assert reader.freed() == []
    for place in places:
        writer.give_back(place)
    assert writer.taken_bytes == 0


def test_a_message_is_lent_until_the_last_thing_that_views_it_has_gone(descriptor: int) -> None:
    writer, reader = ArenaWriter(descriptor), LendingReader(descriptor)
    pixels = np.arange(3000, dtype=np.float32)
    place = put(writer, b"head" + pixels.tobytes())
    message = reader.take(place, 4 + pixels.nbytes)
    assert isinstance(message, memoryview)
    assert message.readonly
    array = np.ndarray((3, 1000), np.float32, message, 4)
    rows = array[1:].reshape(-1)
    del message, array
    assert (reader.freed(), reader.lent_bytes) == ([], 4 + pixels.nbytes)
    assert rows.tolist() == pixels[1000:].tolist()
    del rows
    assert (reader.freed(), reader.lent_bytes) == ([place], 0)


def test_a_tensor_that_ends_its_message_is_aligned(descriptor: int) -> None:
    writer, reader = ArenaWriter(descriptor), LendingReader(descriptor)
    for head in range(1, 9):
        tensor = np.arange(100, dtype=np.float64)
        message = reader.take(put(writer, bytes(head) + tensor.tobytes()), head + tensor.nbytes)
        array = np.ndarray(tensor.shape, np.float64, message, head)
        assert array.flags.aligned
        assert array.tolist() == tensor.tolist()


def test_half_of_an_arena_is_lent_and_further_messages_are_copied(descriptor: int) -> None:
    writer, reader = ArenaWriter(descriptor), LendingReader(descriptor)
    quarter = SIZE // 4
    taken = [reader.take(put(writer, bytes([number]) * quarter), quarter) for number in range(3)]
    assert [type(message) for message in taken] == [memoryview, memoryview, bytes]
    assert [message[0] for message in taken] == [0, 1, 2]
    [copied] = reader.freed()
    writer.give_back(copied)
    del taken
    for place in reader.freed():
        writer.give_back(place)
    assert isinstance(reader.take(put(writer, bytes(quarter)), quarter), memoryview)


def test_an_arena_that_is_full_takes_nothing_until_something_is_given_back(descriptor: int) -> None:
    writer = ArenaWriter(descriptor)
    places = [put(writer, bytes(SIZE // 4)) for _ in range(4)]
    assert writer.put(b"more") is None
    writer.give_back(places[1])
    assert writer.put(b"more") == places[1]
    assert ArenaWriter(descriptor).put(bytes(SIZE + 1)) is None


@pytest.mark.parametrize("kind", [ArenaReader, LendingReader])
def test_a_place_that_is_not_inside_is_refused(descriptor: int, kind: type[ArenaReader]) -> None:
    reader = kind(descriptor)
    assert len(reader.take(SIZE - 64, 64)) == 64
    for start, size in ((SIZE, 1), (SIZE - 64, 65), (0, SIZE + 1), (1 << 63, 10)):
        with pytest.raises(BrokenRecordsError):
            reader.take(start, size)


def test_views_stay_when_both_ends_have_gone(descriptor: int) -> None:
    writer, reader = ArenaWriter(descriptor), LendingReader(descriptor)
    message = reader.take(put(writer, b"still here"), 10)
    del writer, reader
    assert bytes(message) == b"still here"
