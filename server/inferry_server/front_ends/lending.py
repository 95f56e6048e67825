"""In the owner: large requests that are used where they lie in the memory shared with their front end."""

import weakref
from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray

from inferry_server.front_ends.arena import ArenaReader


class LendingReader(ArenaReader):
    """Gives views of the messages in an arena; a place is free once nothing views it any more.

    Requests that wait in a queue view their message, so that half of the arena at most is lent: further messages are
    copied out. Views stay valid when the front end has ended, and as long as they live.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._most_lent_bytes = len(self._memory) // 2  # the rest is for messages on their way, whatever is queued
        self._lent: dict[int, _Lent] = {}
        # Each is written by one thread, or under one lock: the difference is right.
        self._lent_bytes = self._freed_bytes = 0

    @property
    def lent_bytes(self) -> int:
        """Of messages that are viewed, or of which the writer is not told yet that they are not."""
        return self._lent_bytes - self._freed_bytes

    def take(self, start: int, size: int) -> bytes | memoryview:
        """A message, to be read only: a view of the arena, or a copy.

        Args:
            start: of its place, as the writer put it.
            size: of the message.

        Raises:
            BrokenRecordsError: there is no such place.
        """
        if self.lent_bytes + size > self._most_lent_bytes:  # guard: arena-lent-bounded
            return super().take(start, size)
        # Not a part of one array of the whole arena: views know the last array that has memory, and keep only that.
        block = np.frombuffer(self._memory, np.uint8, size, self._place(start, size))
        self._lent[start] = _Lent(block, self._returned, start)
        self._lent_bytes += size
        return block.data

    def freed(self) -> list[int]:
        """As `ArenaReader.freed`. One thread at a time calls it."""
        freed = super().freed()
        for start in freed:
            lent = self._lent.pop(start, None)
            if lent is not None:
                self._freed_bytes += lent.size
        return freed

    def _returned(self, lent: "_Lent") -> None:
        """Nothing views a message any more. Called on any thread, wherever it is: it takes no lock."""
        self.gone.append(lent.start)


class _Lent(weakref.ref[NDArray[np.uint8]]):
    """Tells when a block has gone, and which.

    Attributes:
        start: of its place.
        size: of its message.
    """

    __slots__ = ("size", "start")
    start: int
    size: int

    def __new__(cls, block: NDArray[np.uint8], gone: Callable[["_Lent"], None], start: int) -> Self:
        lent = super().__new__(cls, block, gone)
        lent.start, lent.size = start, block.nbytes
        return lent

    def __init__(self, block: NDArray[np.uint8], gone: Callable[["_Lent"], None], start: int) -> None:
        """See `__new__`."""
