"""One end of the socket between a front end and the owner: it never blocks, and sends what has gathered at once."""

import contextlib
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence

from inferry_server.front_ends.records import Record, RecordReader

_RECEIVED_AT_ONCE = 1 << 18  # bytes
_SENT_AT_ONCE = 1 << 20  # bytes; more are joined in several steps, as each is copied once


class Channel:
    """Sends and receives records. Any thread may `put` and `flush`; one thread polls the socket and receives.

    Args:
        end: of a pair of stream sockets; closed by `close`.
        wake: wakes the thread that polls, where what was put does not fit into the socket.

    Attributes:
        wants_room: something was put for which the socket has no room; the thread that polls waits for it, and calls
            `flush_on`.
        unsent_bytes: of what was put and has not been sent, about: threads that put at the same time may be counted
            as one, until everything has been sent.
    """

    def __init__(self, end: socket.socket, wake: Callable[[], object]) -> None:
        end.setblocking(False)
        self._socket = end
        self._wake = wake
        self._reader = RecordReader()
        self._unsent: deque[bytes] = deque()
        self._rest = memoryview(b"")  # of what was joined to be sent
        self._sending = threading.Lock()
        self.unsent_bytes = 0
        self.wants_room = False

    def fileno(self) -> int:
        """The socket's, to poll it; -1 once it is closed."""
        return self._socket.fileno()

    def put(self, record: bytes) -> None:
        """Send a record with the next `flush`, after those that were put before."""
        self._unsent.append(record)
        self.unsent_bytes += len(record)

    def flush(self) -> None:
        """Send what was put, if there is anything and the socket has room. Nothing happens once it is closed."""
        if self._unsent and not self.wants_room:
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
        """The records that have come; None once the other side has closed."""
        try:
            piece = self._socket.recv(_RECEIVED_AT_ONCE)
        except BlockingIOError:
            return ()
        except OSError:
            return None
        return self._reader.read(piece) if piece else None

    def close(self) -> None:
        """Send and receive no more."""
        with self._sending:
            self._socket.close()

    def _gather(self) -> bool:
        """Join what was put; returns whether there is anything to send."""
        records: list[bytes] = []
        size = 0
        while self._unsent and size < _SENT_AT_ONCE:
            records.append(self._unsent.popleft())
            size += len(records[-1])
        self._rest = memoryview(records[0] if len(records) == 1 else b"".join(records))
        return bool(records)


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
