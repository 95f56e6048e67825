"""The transport over grpcio's completion queue: one thread polls, and no call has a thread or task."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import Any

from inferry_server.addresses import A, bound
from inferry_server.errors import (
    MemoryShortError,
    RequestNotReceivedError,
    ShuttingDownError,
    StreamIdleError,
    TooManyOpenCallsError,
)
from inferry_server.rpc.call import fail
from inferry_server.rpc.router import UNKNOWN_METHOD, Router
from inferry_server.rpc.statuses import shed, unknown_method
from inferry_server.security.client_certificates import ClientCertificates
from inferry_server.transport.between_events import BetweenEvents, Nothing, Shedding
from inferry_server.transport.core_layer import (
    CoreServer,
    auth_context,
    peer_identities,
    receive_message,
    send_status,
)
from inferry_server.transport.drain import drain
from inferry_server.transport.half_sent import HalfSent, giving_way, is_memory_short
from inferry_server.transport.intake import Intake
from inferry_server.transport.open_calls import idle, longest_waiting, unread
from inferry_server.transport.options import TransportOptions, cannot_bind, refuse_taken
from inferry_server.transport.peers import PeerBound, peer_bound
from inferry_server.transport.queue_calls import QueueCall, QueueStreamCall, ReportingCall
from inferry_server.transport.reading_thread import ReadingThread
from inferry_server.transport.revoking import Revoking
from inferry_server.transport.tls_connections import TlsConnections

logger = logging.getLogger(__name__)

_IDLE_POLL_S = 0.2  # gRPC wakes as often by itself
_WATCH_AFTER_S = 0.01  # of waiting: most calls get their reply sooner and need no watch
_LONGEST_READ_S = 0.02  # while inline work is pending: callers that send without a pause must not hold it up
# One event, and one short batch, take less: the process stood still, and callers on the same machine with it.
_STALL_S = 0.1
_AT_ONCE = 0.0  # a time that is past
# So many polls without an event say that none is ready: each of them looks at one connection. With one, batches of
# 32 requests at a time had 10 rows; with four 29, and with more no more.
_EMPTY_POLLS = 4
# A thread that computed since it slept polls so many times more before it sleeps: some 150 us, in which a caller who
# waited for the reply sends the next request. Waking a thread that sleeps takes as long, and more CPU.
_AWAKE_POLLS = 75
_LONG_S = 0.001  # of a batch: waking costs little beside it, and polling takes cores from callers on the same machine
_SLEPT_S = 0.001  # if a poll took so long, no event was ready when it began
_SOON_S = 0.002  # in which a busy server has seen every event that was ready before
_STOP_SLACK_S = 2.0
_SILENT_EVERY_S = 1.0  # streams are looked at: there may be ten thousand
_MOST_FAILURES = 10  # of polling, one after another: one event may be at fault, ten are not


class CompletionQueueTransport:
    """A gRPC server whose handlers run on its reading thread, which polls; replies may come from any thread.

    `start` and `stop` are called once each, by one thread, and block until done.

    Args:
        router: finds the handlers.
        options: of the connections.
        failed: called on the reading thread if it has to end: no call will get a reply any more.
        inline: what that thread runs whenever no event is ready.
        relieved: called by `look` when another thread polls from now on.
    """

    def __init__(
        self,
        router: Router,
        options: TransportOptions,
        failed: Callable[[], object] = lambda: None,
        *,
        inline: BetweenEvents | None = None,
        relieved: Callable[[], object] = lambda: None,
    ) -> None:
        self._router = router
        self._access = router.access
        self._certificates = options.certificates_of_clients
        self._revoking = Revoking(router, self._certificates)
        self._options = options
        self._inline = inline or Nothing()
        report = options.report
        self._new_call: Callable[..., QueueCall] = QueueCall if report is None else partial(ReportingCall, report)
        self._intake = Intake()
        self._failed = failed
        self._server: CoreServer | None = None
        self._reading = ReadingThread(
            "grpc-queue", self._poll, self._inline, stopped=lambda: self._stopped, relieved=relieved
        )
        self._paths: dict[bytes, tuple[str, bool]] = {}  # as text, and whether its calls are unary
        self._streams: set[QueueStreamCall] = set()
        self._unasked: dict[QueueCall, float] = {}  # unary calls whose request has not come yet, and since when
        self._young: deque[tuple[float, QueueCall]] = deque()  # unary calls that nobody watches yet
        self._soon: deque[tuple[float, Callable[[], object]]] = deque()
        self._held: list[tuple[QueueCall, bytes]] = []
        self._half_sent = HalfSent()
        self._peers: PeerBound | None = None
        self._tls: TlsConnections | None = None
        self._silent_again_at = 0.0
        self._holding = self._stopping = self._stopped = False
        self.now = 0.0  # when the latest event was had
        self.unread: dict[QueueCall, float] = {}  # unary calls whose replies are on their way, and since when
        self.last_arrival = 0.0  # of a request that is held

    def start(self, address: A) -> A:
        """Listen.

        Returns:
            The address, with the port that was bound.

        Raises:
            StartError: the address cannot be bound.
        """
        refuse_taken(address)
        server = CoreServer(self._options.arguments())
        tls = self._options.open_tls()
        port = server.listen(str(address), None if tls is None else tls.credentials())
        if port == 0:
            raise cannot_bind(address)
        server.start()
        self._server = server
        began = time.monotonic()
        while more := self._intake.caught_up(began):
            self._ask_for_calls(more)
        self._reading.start()
        address = bound(address, port)
        self._peers = peer_bound(self._options, address, self._router.cut_off)
        if tls is not None:
            self._tls = TlsConnections(tls, self._certificates, self._router.tls_connections)
        return address

    def stop(self, grace_s: float) -> bool:
        """Accept no more calls, let those under way finish (`drain.py`), and cancel what is left after `grace_s`.

        Does nothing where `start` was not called.

        Returns:
            Whether every call ended by itself.
        """
        if self._server is None:
            return True
        for pause_s in drain(self, grace_s, time.monotonic):
            self._reading.join(pause_s)
        if self._stopped:
            return True
        self._server.cancel_all_calls()
        self._reading.join(_STOP_SLACK_S)
        return False

    def hold(self) -> None:
        """As `Draining.hold`."""
        self._holding = True

    def owes_replies(self) -> bool:
        """As `Draining.owes_replies`."""
        return self._router.unary_in_flight() > len(self._held) + len(self._unasked)

    def has_ended(self) -> bool:
        """As `Draining.has_ended`: nobody polls."""
        return not self._reading.is_alive()

    def close(self) -> None:
        """As `Draining.close`: wakes the reading thread, which releases what was held."""
        assert self._server is not None  # noqa: S101 - it was started
        self._server.shutdown(self._was_shut_down)

    def turn_away(self) -> None:
        """As `Draining.turn_away`: on the reading thread, after the requests that are there."""
        self.soon(self._turn_away)

    def look(self) -> float:
        """See whether calls are read, and have another thread read where the one that does computes for long.

        The watchdog looks every quarter of a second.

        Returns:
            Seconds for which nothing was read, though the thread polled, or should have.
        """
        still_s = self._reading.look()
        self._half_sent.look()
        if self._peers is not None:
            self._peers.look()
        if self._tls is not None:
            self._tls.look()
        if self._unasked:
            self.soon(self._end_overdue)
        if self.unread:
            self.soon(self._give_up_unread)
        if self._revoking.is_due():
            self.soon(self._end_revoked)
        if time.monotonic() >= self._silent_again_at and (self._streams or self._unasked):
            self._silent_again_at = time.monotonic() + _SILENT_EVERY_S
            self.soon(self._end_silent)
            if self._unasked and is_memory_short(self._options.max_message_bytes):
                self.soon(self._give_way)
        return still_s

    def unary_arrived(self, call: QueueCall, message: bytes) -> None:
        """Handle a request, unless the server is about to close."""
        self._unasked.pop(call, None)
        if self._holding:
            self.last_arrival = self.now
            self._held.append((call, message))
        else:
            self._router.handle(call, message)
        self._young.append((self.now + _WATCH_AFTER_S, call))

    def unary_without_request(self, call: QueueCall) -> None:
        """The request of a call will not come: wait for it no longer."""
        self._unasked.pop(call, None)
        self._half_sent.ended()  # guard: half-sent-trimmed

    def large_refused(self) -> None:
        """A stream was refused for a large message: what that took goes back to the system."""
        self._half_sent.ended()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back once no event is ready, or those that were are past."""
        self._soon.append((time.monotonic() + _SOON_S, callback))

    def stream_ended(self, call: QueueStreamCall) -> None:
        """Forget a stream."""
        self._streams.discard(call)

    def _poll(self, reader: int) -> None:
        """Read what is ready; compute when nothing is, or reading has taken long. Ends when it was relieved."""
        assert self._server is not None  # noqa: S101 - the thread starts after it
        poll, work, reading = self._server.poll, self._inline.pending, self._reading
        young, soon = self._young, self._soon
        now = read_since = time.monotonic()
        failures = empty = 0  # polls that failed, and polls without an event while something is to be done
        awake = 0  # polls until it sleeps
        while not self._stopped and reading.current == reader:
            reading.turns += 1
            has_work, asleep_since = bool(work), math.inf  # guard: wait-was-ready
            try:
                if has_work or soon:
                    event = poll(_AT_ONCE)
                elif awake:
                    awake -= 1  # guard: cost-nothing-do
                    event = poll(_AT_ONCE)
                    if event.tag is None:
                        if awake == _AWAKE_POLLS - _EMPTY_POLLS:  # guard: wait-finds-nothing
                            self._ask_for_calls(self._intake.caught_up(time.monotonic()))
                        continue
                    awake = _AWAKE_POLLS
                else:
                    asleep_since = time.monotonic()
                    event = poll(time.time() + (_WATCH_AFTER_S if young else _IDLE_POLL_S))
            except Exception:  # noqa: BLE001 - it is logged there
                failures += 1
                if self._gives_up(failures):
                    return
                continue
            failures, before = 0, now
            on_event, now = event.tag, time.monotonic()
            if now - before > _STALL_S and asleep_since == math.inf:
                self._intake.stalled(now - before)  # guard: intake-stalls
            self.now = now
            is_idle = on_event is None
            if is_idle and (has_work or soon) and (empty := empty + 1) < _EMPTY_POLLS:  # guard: cost-empty-poll
                continue
            empty = 0
            try:
                if is_idle or now - asleep_since > _SLEPT_S:
                    self._ask_for_calls(self._intake.caught_up(now))
                if not is_idle:
                    on_event(event)
                if soon or (young and young[0][0] <= now):
                    self._look_around(now, idle=is_idle)
                if not has_work:
                    read_since = now
                elif is_idle or now - read_since > _LONGEST_READ_S:
                    reading.computing = True  # as `ReadingThread.compute`, without a call more for each batch
                    try:
                        work.popleft()()
                    finally:
                        with reading.handover:
                            if reading.current == reader:
                                reading.computing = False
                    read_since = time.monotonic()
                    awake = 0 if read_since - now > _LONG_S else _AWAKE_POLLS  # guard: cost-computed-stays, cost-long
            except Exception:  # no call may take the others' thread away
                logger.exception("an event of the transport could not be handled")
            # A call must be free to go before the next poll.
            event = on_event = None

    def _gives_up(self, failures: int) -> bool:
        """Whether so many failures of polling, one after another, are the end of the transport. Tells of them."""
        logger.exception("gRPC's completion queue could not be polled (%d of %d)", failures, _MOST_FAILURES)
        if failures < _MOST_FAILURES:  # guard: polling-errors-end
            return False
        logger.critical("the transport ends: no call gets a reply any more")
        self._failed()
        return True

    def _look_around(self, now: float, *, idle: bool) -> None:
        """Do what is due between two events."""
        young, soon = self._young, self._soon
        while young and young[0][0] <= now:
            call = young.popleft()[1]
            if not call.ended:
                call.watch()
        while soon and (idle or soon[0][0] <= now):
            soon.popleft()[1]()

    def _called(self, event: Any) -> None:
        """A new call; or none will come any more."""
        if not event.success:
            self._release()
            return
        waited_s, more = self._intake.came(self.now)
        self._ask_for_calls(more)
        method = event.call_details.method
        known = self._paths.get(method)
        if known is None:
            path = method.decode(errors="replace")
            if not (self._router.is_unary(path) or self._router.is_stream(path)):
                self._refuse(event, path)
                return
            known = self._paths[method] = (path, self._router.is_unary(path))
        path, is_unary = known
        if self._certificates is not None and self._refuse_connection(event, path, self._certificates):
            return
        if self._access is not None and self._refuse_caller(event, path):  # guard: access-unread
            return
        shedding = self._inline.shedding
        if shedding is not None and shedding.retry_after_s and self._router.is_sheddable(path):  # guard: shed-unread
            self._shed(event, path, shedding)
            return
        account = self._router.received(path, event.invocation_metadata)
        if is_unary:
            call = self._new_call(event, path, account, self, waited_s)
            self._unasked[call] = self.now
            receive_message(event.call, call.received)
        else:
            self._open(QueueStreamCall(event, path, account, self))

    def _ask_for_calls(self, more: int) -> None:
        if self._server is None or self._stopping:
            return
        for _ in range(more):
            self._server.request_call(self._called)

    def _open(self, call: QueueStreamCall) -> None:
        self._streams.add(call)
        call.begin(self._router.open(call))
        if self._stopping:
            call.drain()

    def _shed(self, event: Any, path: str, shedding: Shedding) -> None:
        """Refuse a call unread, for half of what it costs to read it and refuse it then."""
        status = shed(shedding.retry_after_s)
        self._router.shed(path, status)
        shedding.count()
        send_status(event.call, status, _ignore, first=True, close_watched=False)

    def _refuse_connection(self, event: Any, path: str, certificates: ClientCertificates) -> bool:
        """Refuse a call unread on a connection whose client's certificate holds no more."""
        call = event.call
        peer = call.peer()
        if certificates.holds(peer, peer_identities(call)):  # guard: cost-connection-known
            return False
        status = self._router.refuses_connection(path, certificates, auth_context(call), peer)
        if status is None:
            return False
        send_status(event.call, status, _ignore, first=True, close_watched=False)
        return True

    def _refuse_caller(self, event: Any, path: str) -> bool:
        """Refuse a call unread whose caller may not make it."""
        call, certificates = event.call, self._certificates
        if certificates is None:
            status = self._router.refuses(path, event.invocation_metadata, tuple)
        else:  # a closure is called in less time than a method with its argument
            status = self._router.refuses(
                path, event.invocation_metadata, lambda: certificates.names(auth_context(call))
            )
        if status is None:
            return False
        send_status(call, status, _ignore, first=True, close_watched=False)
        return True

    def _refuse(self, event: Any, path: str) -> None:
        status = unknown_method(path)
        self._router.received(UNKNOWN_METHOD, ()).ended(status)
        send_status(event.call, status, _ignore, first=True, close_watched=False)

    def _release(self) -> None:
        """The server accepts no more: handle what was held, and let streams end."""
        if self._stopping:
            return
        self._stopping = True
        self._holding = False
        for call, message in self._held:
            self._router.handle(call, message)
        self._held.clear()
        for stream in list(self._streams):
            stream.drain()

    def _turn_away(self) -> None:
        """Wait no longer for requests of calls that were opened."""
        while self._unasked:
            fail(self._unasked.popitem()[0], ShuttingDownError())  # guard: drain-calls-ask

    def _end_overdue(self) -> None:
        """End the unary calls whose request has not come in time.

        Of some calls that are reset as they are opened, gRPC says nothing any more: they would stay for good, each
        with its connection.
        """
        limit_s = self._options.request_read_timeout_s
        overdue = list(takewhile(lambda call: self._unasked[call] <= self.now - limit_s, self._unasked))
        for call in overdue:
            del self._unasked[call]
            fail(call, RequestNotReceivedError(limit_s=limit_s))  # guard: requests-overdue
            self._half_sent.ended()  # guard: overdue-trimmed

    def _end_revoked(self) -> None:
        """End the streams, and the unary calls whose request has not come, whose callers may not make them any more."""
        self._revoking.begin()
        self._revoking.review(self._streams)
        for call in self._revoking.review(self._unasked):  # guard: unasked-revoked
            del self._unasked[call]
            self._half_sent.ended()

    def _end_silent(self) -> None:
        """End streams whose clients neither send nor read, and what waits for longest where too many calls do."""
        options, streams = self._options, list(self._streams)
        for stream in unread(streams, self.now - options.reply_read_timeout_s):
            self._router.reply_given_up()
            stream.give_up()
            self._half_sent.ended()
        for stream in idle(streams, self.now - options.stream_idle_timeout_s):
            fail(stream, StreamIdleError(limit_s=options.stream_idle_timeout_s))
            self._half_sent.ended()
        if len(self._unasked) + len(self._streams) > options.max_open_calls:
            for call in longest_waiting(self._unasked, list(self._streams), options.max_open_calls):
                if isinstance(call, QueueCall):
                    del self._unasked[call]
                elif call.ended:  # and its client does not read how
                    call.give_up()
                fail(call, TooManyOpenCallsError(limit=options.max_open_calls))
                self._half_sent.ended()

    def _give_way(self) -> None:
        """End calls whose requests come slowly: memory is short."""
        for call in giving_way(self._unasked, self.now):
            del self._unasked[call]
            fail(call, MemoryShortError())
            self._half_sent.ended()

    def _give_up_unread(self) -> None:
        """Free the replies that their clients have not read in time: gRPC would keep them as long as the connection."""
        since = self.now - self._options.reply_read_timeout_s
        for call, at in list(self.unread.items()):
            if at <= since:  # guard: replies-unread
                del self.unread[call]
                self._router.reply_given_up()
                call.give_up()

    def reply_was_late(self) -> None:
        """A reply that its client did not read for long is freed: what it took goes back to the system."""
        self._half_sent.ended()

    def _was_shut_down(self, event: Any) -> None:  # noqa: ARG002 - that it comes is what it tells
        self._stopped = True


def _ignore(event: Any) -> None:
    """Nothing is left to do."""
