"""Memory that a front end and the owner share, each way one arena: large messages go through it, not over the socket.

Over a socket a large message is copied into the kernel and out of it again, in pieces for which both sides wake, and
the pieces are joined, which holds the interpreter's lock. In an arena the writer copies the message once; the reader
may use it where it lies (`lending.py`), or copies it once, and then says that its place is free again.
"""

import mmap
import os
import threading
from collections import deque

from inferry_server.front_ends.free_space import FreeSpace

ARENA_BYTES = 64 << 20
"""Of one arena. Pages of it take memory from their first use on, and the lowest places are used first."""
LARGE_BYTES = 32 << 10
"""Smaller messages go over the socket, many of them at a time."""
_ALIGNED_TO = 64  # bytes


class BrokenRecordsError(Exception):
    """What came cannot be what the other side sends: this side cannot know what follows."""


def open_arena(size: int = ARENA_BYTES) -> int | None:
    """Memory for one arena.

    Args:
        size: in bytes.

    Returns:
        Its descriptor, to be mapped by both sides and closed by who opened it; None where the system has no such
        memory.
    """
    if not hasattr(os, "memfd_create"):
        return None
    try:
        descriptor = os.memfd_create("inferry-front-end")
    except OSError:  # the system knows it, and does not allow it
        return None
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


class ArenaWriter:
    """Puts messages into an arena. Any thread may call.

    Args:
        descriptor: from `open_arena`; it is not needed any more afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, 0)
        self._free = FreeSpace(len(self._memory))
        self._lock = threading.Lock()

    def put(self, message: bytes) -> int | None:
        """Copy a message into the arena.

        It ends where memory is aligned: a tensor that ends the message, as raw contents do, begins so too.

        Returns:
            Where its place begins; None if there is no room for it.
        """
        size = len(message)
        with self._lock:
            start = self._free.take(_rounded(size))
        if start is None:
            return None
        first = _first(start, size)
        self._memory[first : first + size] = message
        return start

    def give_back(self, start: int) -> None:
        """The reader needs a message no more.

        Raises:
            KeyError: there is none at this place.
        """
        with self._lock:
            self._free.give_back(start)

    @property
    def taken_bytes(self) -> int:
        """Of messages that the reader has not given back."""
        with self._lock:
            return self._free.taken_bytes


class ArenaReader:
    """Takes messages out of an arena, as copies. One thread takes, another one may call `freed`.

    Args:
        descriptor: from `open_arena`; it is not needed any more afterwards.

    Attributes:
        gone: places whose messages are not needed any more, and of which the writer is not told yet.
    """

    def __init__(self, descriptor: int) -> None:
        self.gone: deque[int] = deque()
        self._memory = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)

    def take(self, start: int, size: int) -> bytes | memoryview:
        """A message; its place is free from now on.

        Args:
            start: of its place, as the writer put it.
            size: of the message.

        Raises:
            BrokenRecordsError: there is no such place.
        """
        first = self._place(start, size)
        message = self._memory[first : first + size]
        self.gone.append(start)
        return message

    def freed(self) -> list[int]:
        """The places of which the writer is to be told now."""
        gone = self.gone
        return [gone.popleft() for _ in range(len(gone))]

    def _place(self, start: int, size: int) -> int:
        """Where a message begins in its place."""
        if start + _rounded(size) > len(self._memory):  # guard: arena-inside
            raise BrokenRecordsError(f"a message of {size} bytes at {start} of {len(self._memory)} bytes")
        return _first(start, size)


def _rounded(size: int) -> int:
    return -(-size // _ALIGNED_TO) * _ALIGNED_TO


def _first(start: int, size: int) -> int:
    return start + _rounded(size) - size
