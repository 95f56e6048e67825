"""One end of the socket between a front end and the owner: it never blocks, and sends what has gathered at once."""

import contextlib
import logging
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferry_server.front_ends import records
from inferry_server.front_ends.arena import LARGE_BYTES, ArenaReader, ArenaWriter, BrokenRecordsError
from inferry_server.front_ends.records import MOST_BYTES, Record, RecordReader

logger = logging.getLogger(__name__)

# More takes longer than it spares: below what the allocator takes from the system for each object anew.
_RECEIVED_AT_ONCE = 1 << 16  # bytes
_LARGE_AT_ONCE = 1 << 20  # bytes of a large message
_SENT_AT_ONCE = 1 << 20  # bytes; more are joined in several steps, as each is copied once
_FREED_AT = 4  # places of which the other side does not know; fewer are told with what is sent next


@dataclass(frozen=True)
class Arenas:
    """The memory that both sides share.

    Attributes:
        outgoing: for messages from this side.
        incoming: for messages from the other side.
    """

    outgoing: ArenaWriter
    incoming: ArenaReader


class Channel:
    """Sends and receives records. Any thread may `put` and `flush`; one thread polls the socket and receives.

    Args:
        end: of a pair of stream sockets; closed by `close`.
        wake: wakes the thread that polls, where what was put does not fit into the socket.
        arenas: for large messages; None: these go over the socket too.
        most_bytes: of one record that comes over the socket.

    Attributes:
        wants_room: something was put for which the socket has no room; the thread that polls waits for it, and calls
            `flush_on`.
        unsent_bytes: of what was put and has not been sent, about: threads that put at the same time may be counted
            as one, until everything has been sent.
    """

    def __init__(
        self,
        end: socket.socket,
        wake: Callable[[], object],
        arenas: Arenas | None = None,
        *,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        end.setblocking(False)
        self._socket = end
        self._wake = wake
        self._outgoing = None if arenas is None else arenas.outgoing
        self._incoming = None if arenas is None else arenas.incoming
        self._gone: Sequence[int] = () if arenas is None else arenas.incoming.gone
        self._reader = RecordReader(self._incoming, most_bytes)
        self._unsent: deque[bytes] = deque()
        self._rest = memoryview(b"")  # of what was joined to be sent
        self._sending = threading.Lock()
        self.unsent_bytes = 0
        self.wants_room = False

    def fileno(self) -> int:
        """The socket's, to poll it; -1 once it is closed."""
        return self._socket.fileno()

    def put(self, kind: int, number: int, body: bytes = b"", message: bytes = b"") -> None:
        """Send a record with the next `flush`, after those that were put before."""
        size = len(message)
        if size < LARGE_BYTES:
            record = records.write(kind, number, body, message)
            self._unsent.append(record)
            self.unsent_bytes += len(record)
            return
        place = None if self._outgoing is None else self._outgoing.put(message)
        if place is not None:
            record = records.write_placed(kind, number, body, place=place, size=size)
            self._unsent.append(record)
            self.unsent_bytes += len(record)
            return
        head = records.write_head(kind, number, body, size)
        self._unsent.extend((head, message))  # as one: nothing comes in between
        self.unsent_bytes += len(head) + size

    def flush(self) -> None:
        """Send what was put, if there is anything and the socket has room. Nothing happens once it is closed."""
        if (self._unsent or len(self._gone) >= _FREED_AT) and not self.wants_room:
            self.flush_on()

    def flush_on(self) -> None:
        """As `flush`, though the socket had no room the last time."""
        with self._sending:
            self.wants_room = False
            while self._rest or self._gather():
                try:
                    sent = self._socket.send(self._rest)
                except BlockingIOError:
                    self.wants_room = True
                    self._wake()
                    return
                except OSError:  # the other side is gone, which whoever receives hears of
                    sent = len(self._rest)
                self._rest = self._rest[sent:]
                self.unsent_bytes -= sent
            self.unsent_bytes = 0

    def receive(self) -> Sequence[Record] | None:
        """The records that have come; None once the other side has closed, or sends what makes no sense."""
        try:
            piece = self._socket.recv(max(_RECEIVED_AT_ONCE, min(self._reader.missing, _LARGE_AT_ONCE)))
        except BlockingIOError:
            return ()
        except OSError:
            return None
        try:
            return self._reader.read(piece) if piece else None
        except BrokenRecordsError:
            logger.exception("what came cannot be what the other process sends")
            return None

    def freed(self, places: Sequence[int]) -> None:
        """The other side needs these messages no more.

        Raises:
            KeyError: there is none at one of these places.
        """
        if self._outgoing is not None:
            for place in places:
                self._outgoing.give_back(place)

    def close(self) -> None:
        """Send and receive no more."""
        with self._sending:
            self._socket.close()

    def _gather(self) -> bool:
        """Take what is to be sent next, what is small joined; returns whether there is anything."""
        pieces: list[bytes] = []
        if self._gone and self._incoming is not None:
            pieces.append(records.write(records.FREED, 0, records.write_places(self._incoming.freed())))
        unsent, size = self._unsent, 0
        while unsent and size < _SENT_AT_ONCE:
            is_large = len(unsent[0]) >= LARGE_BYTES
            if is_large and pieces:
                break
            pieces.append(unsent.popleft())
            size += len(pieces[-1])
            if is_large:  # which is sent as it is
                break
        self._rest = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        return bool(pieces)


class Wake:
    """Wakes a thread that polls. Any thread may call it; calls before it wakes count as one."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._called = False

    def fileno(self) -> int:
        """What to poll: readable once it was called."""
        return self._read

    def __call__(self) -> None:
        """Wake the thread."""
        if not self._called:
            self._called = True
            with contextlib.suppress(BlockingIOError):
                os.write(self._write, b"!")

    def clear(self) -> None:
        """The thread is awake, and looks at everything after this: calls that come from then on wake it again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 16)
        self._called = False  # after it was read: the byte of a call in between would be lost

    def is_set(self) -> bool:
        """Whether it was called, and not cleared since."""
        return bool(select.select([self._read], [], [], 0)[0])

    def close(self) -> None:
        """It is called no more."""
        os.close(self._read)
        os.close(self._write)
