"""Calls of the completion queue that wait for their clients, and how those that wait for too long are ended.

`open_calls.py` and `half_sent.py` decide which they are; `aio_handler.py` ends those of the other transport.
"""

from collections.abc import Callable, Iterator
from itertools import takewhile

from inferry_server.errors import (
    MemoryShortError,
    RequestNotReceivedError,
    ShuttingDownError,
    StreamIdleError,
    TooManyOpenCallsError,
)
from inferry_server.rpc.call import fail
from inferry_server.rpc.router import Router
from inferry_server.transport.half_sent import HalfSent, giving_way, is_memory_short
from inferry_server.transport.open_calls import idle, longest_waiting, unread
from inferry_server.transport.options import TransportOptions
from inferry_server.transport.queue_calls import QueueCall, QueueStreamCall
from inferry_server.transport.revoking import Revoking

_SILENT_EVERY_S = 1.0  # streams are looked at: there may be ten thousand


class WaitingCalls:
    """Knows the open calls, and ends those whose clients neither send nor read, or may not make them any more.

    The watchdog's thread calls `due`; the reading thread calls everything else, and enters and removes calls. Replies
    enter `unread` from any thread. Nothing blocks, and no lock is held.

    Args:
        router: counts the replies that are given up, and decides who may still make a call.
        options: have the limits.
        half_sent: is told of each call that may have brought half of a message.
        clock: tells when the reading thread had its latest event, in monotonic seconds.

    Attributes:
        streams: that are open.
        unasked: unary calls whose request has not come yet, and since when; the oldest first.
        unread: unary calls whose replies are on their way, and since when.
    """

    def __init__(
        self, router: Router, options: TransportOptions, half_sent: HalfSent, *, clock: Callable[[], float]
    ) -> None:
        self._router = router
        self._options = options
        self._revoking = Revoking(router, options.certificates_of_clients)
        self._half_sent = half_sent
        self._clock = clock
        self._silent_again_at = 0.0
        self.streams: set[QueueStreamCall] = set()
        self.unasked: dict[QueueCall, float] = {}
        self.unread: dict[QueueCall, float] = {}

    def due(self, now: float) -> Iterator[Callable[[], None]]:
        """What the reading thread is to call; the watchdog asks every quarter of a second.

        Args:
            now: in monotonic seconds.
        """
        if self.unasked:
            yield self.end_overdue
        if self.unread:
            yield self.give_up_unread
        if self._revoking.is_due():
            yield self.end_revoked
        if now >= self._silent_again_at and (self.streams or self.unasked):
            self._silent_again_at = now + _SILENT_EVERY_S
            yield self.end_silent
            if self.unasked and is_memory_short(self._options.max_message_bytes):
                yield self.give_way

    def turn_away(self) -> None:
        """Wait no longer for the requests of calls that were opened: the server is shutting down."""
        while self.unasked:
            fail(self.unasked.popitem()[0], ShuttingDownError())  # guard: drain-calls-ask

    def end_overdue(self) -> None:
        """End the unary calls whose request has not come in time.

        About some calls that are reset as they are opened, gRPC reports nothing more: they would stay for good, each
        with its connection.
        """
        limit_s = self._options.request_read_timeout_s
        due = self._clock() - limit_s
        for call in list(takewhile(lambda call: self.unasked[call] <= due, self.unasked)):
            del self.unasked[call]
            fail(call, RequestNotReceivedError(limit_s=limit_s))  # guard: requests-overdue
            self._half_sent.ended()  # guard: overdue-trimmed

    def end_revoked(self) -> None:
        """End the streams, and the unary calls whose request has not come, whose callers may not make them any more."""
        self._revoking.begin()
        self._revoking.review(self.streams)
        for call in self._revoking.review(self.unasked):  # guard: unasked-revoked
            del self.unasked[call]
            self._half_sent.ended()

    def end_silent(self) -> None:
        """End streams whose clients neither send nor read, and what waits for longest where too many calls do."""
        options, streams, now = self._options, list(self.streams), self._clock()
        for stream in unread(streams, now - options.reply_read_timeout_s):
            self._router.reply_given_up()
            stream.give_up()
            self._half_sent.ended()
        for stream in idle(streams, now - options.stream_idle_timeout_s):
            fail(stream, StreamIdleError(limit_s=options.stream_idle_timeout_s))
            self._half_sent.ended()
        if len(self.unasked) + len(self.streams) > options.max_open_calls:
            self._end_longest_waiting(options.max_open_calls)

    def give_way(self) -> None:
        """End calls whose requests come slowly: memory is short."""
        for call in giving_way(self.unasked, self._clock()):
            del self.unasked[call]
            fail(call, MemoryShortError())
            self._half_sent.ended()

    def give_up_unread(self) -> None:
        """Free the replies that their clients have not read in time: gRPC would keep them as long as the connection."""
        since = self._clock() - self._options.reply_read_timeout_s
        for call, at in list(self.unread.items()):
            if at <= since:  # guard: replies-unread
                del self.unread[call]
                self._router.reply_given_up()
                call.give_up()

    def _end_longest_waiting(self, most: int) -> None:
        """End the calls that are more than may be open."""
        for call in longest_waiting(self.unasked, list(self.streams), most):
            if isinstance(call, QueueCall):
                del self.unasked[call]
            elif call.ended:  # and its client does not read how
                call.give_up()
            fail(call, TooManyOpenCallsError(limit=most))
            self._half_sent.ended()
