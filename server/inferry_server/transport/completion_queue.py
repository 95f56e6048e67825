"""The transport over grpcio's completion queue: one thread polls, and no call has a thread or task."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from inferry_server.addresses import A, bound
from inferry_server.rpc.router import Router
from inferry_server.transport.between_events import BetweenEvents, Nothing
from inferry_server.transport.core_layer import CoreServer, receive_message
from inferry_server.transport.drain import drain
from inferry_server.transport.half_sent import HalfSent
from inferry_server.transport.intake import Intake
from inferry_server.transport.options import TransportOptions, cannot_bind, refuse_taken
from inferry_server.transport.peers import PeerBound, peer_bound
from inferry_server.transport.queue_calls import QueueCall, QueueStreamCall, ReportingCall
from inferry_server.transport.reading_thread import ReadingThread
from inferry_server.transport.tls_connections import TlsConnections
from inferry_server.transport.unread_calls import UnreadCalls
from inferry_server.transport.waiting_calls import WaitingCalls

logger = logging.getLogger(__name__)

_IDLE_POLL_S = 0.2  # gRPC wakes as often by itself
_WATCH_AFTER_S = 0.01  # of waiting: most calls get their reply sooner and need no watch
_LONGEST_READ_S = 0.02  # while inline work is pending: callers that send without a pause must not hold it up
# One event, or one short batch, takes less. More means that the process stood still, as may callers beside it.
_STALL_S = 0.1
_AT_ONCE = 0.0  # a time that is past
# After so many polls without an event none is ready: each poll looks at one connection. With one poll, batches had 10
# rows when 32 requests came at a time; with four they had 29, and with more no more.
_EMPTY_POLLS = 4
_LONGEST_GATHER_S = 0.001  # while other events come
_GATHERED = 16  # requests that are handled without looking for more: those that compute them may wait
# A thread that computed since it slept polls so many times more before it sleeps: some 150 us, in which a caller who
# waited for the reply sends the next request. Waking a thread that sleeps takes as long, and more CPU.
_AWAKE_POLLS = 75
_LONG_S = 0.001  # of a batch: waking costs little beside it, and polling takes cores from callers on the same machine
_SLEPT_S = 0.001  # if a poll took so long, no event was ready when it began
_SOON_S = 0.002  # in which a busy server has seen every event that was ready before
_STOP_SLACK_S = 2.0
_MOST_FAILURES = 10  # of polling, in a row: one event may cause one, not ten


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
        self._unread_calls = UnreadCalls(router, self._certificates)
        self._options = options
        self._inline_work = inline or Nothing()
        report = options.report
        self._new_call: Callable[..., QueueCall] = QueueCall if report is None else partial(ReportingCall, report)
        self._intake = Intake()
        self._failed = failed
        self._server: CoreServer | None = None
        self._reading = ReadingThread(
            "grpc-queue", self._poll, self._inline_work, stopped=lambda: self._stopped, relieved=relieved
        )
        self._paths: dict[bytes, tuple[str, bool]] = {}  # as text, and whether its calls are unary
        self._half_sent = HalfSent()
        self._waiting = WaitingCalls(router, options, self._half_sent, clock=lambda: self.now)
        self._streams, self._unasked = self._waiting.streams, self._waiting.unasked
        self._young: deque[tuple[float, QueueCall]] = deque()  # unary calls that nobody watches yet
        self._soon: deque[tuple[float, Callable[[], object]]] = deque()
        self._held: list[tuple[QueueCall, bytes]] = []
        self._gathered: list[tuple[QueueCall, bytes]] = []
        self._gathered_since = 0.0
        self._peers: PeerBound | None = None
        self._tls: TlsConnections | None = None
        self._holding = self._stopping = self._stopped = False
        self.now = 0.0  # when the latest event came
        self.unread = self._waiting.unread
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
        self.soon(self._waiting.turn_away)

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
        for end_calls in self._waiting.due(time.monotonic()):
            self.soon(end_calls)
        return still_s

    def unary_arrived(self, call: QueueCall, message: bytes) -> None:
        """Handle a request, unless the server is about to close."""
        self._unasked.pop(call, None)
        if self._holding:
            self.last_arrival = self.now
            self._held.append((call, message))
        elif len(message) <= self._router.together.get(call.method, -1):
            call.gathered_at = self.now
            if not self._gathered:
                self._gathered_since = self.now
            self._gathered.append((call, message))
            if len(self._gathered) >= _GATHERED:  # guard: gathered-bounded
                self._handle_gathered()
        else:
            self._router.handle(call, message)
        self._young.append((self.now + _WATCH_AFTER_S, call))

    def _handle_gathered(self) -> None:
        """Nothing more is ready: handle the requests that came meanwhile."""
        gathered, self._gathered = self._gathered, []
        for call, _ in gathered:
            call.waited_s += self.now - call.gathered_at  # guard: gathered-waited
        self._router.handle_alike(gathered)

    def unary_without_request(self, call: QueueCall) -> None:
        """The request of a call will not come: wait for it no longer."""
        self._unasked.pop(call, None)
        self._half_sent.ended()  # guard: half-sent-trimmed

    def large_refused(self) -> None:
        """A stream was refused for a large message: have its memory given back to the system."""
        self._half_sent.ended()

    def soon(self, callback: Callable[[], object]) -> None:
        """Call back once all events that are ready now have been handled."""
        self._soon.append((time.monotonic() + _SOON_S, callback))

    def stream_ended(self, call: QueueStreamCall) -> None:
        """Forget a stream."""
        self._streams.discard(call)

    def _poll(self, reader: int) -> None:
        """Read what is ready; compute when nothing is, or reading has taken long. Ends once another thread reads."""
        assert self._server is not None  # noqa: S101 - the thread starts after it
        inline, reading = self._inline_work, self._reading
        poll, work = self._server.poll, inline.pending
        young, soon = self._young, self._soon
        now = read_since = time.monotonic()
        failures = empty = 0  # polls that failed, and polls without an event while something is to be done
        awake = 0  # polls until it sleeps
        while not self._stopped and reading.current == reader:
            reading.turns += 1
            has_work, asleep_since = bool(work) or bool(self._gathered), math.inf  # guard: wait-was-ready
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
                if self._gathered and now - self._gathered_since > _LONGEST_GATHER_S:  # guard: gathered-briefly
                    self._handle_gathered()
                if not has_work:
                    read_since = now
                elif is_idle or now - read_since > _LONGEST_READ_S:
                    if self._gathered:
                        self._handle_gathered()
                    read_since = now
                    if work:
                        reading.computing = True  # as `ReadingThread.compute`, without a call more for each batch
                        try:
                            work.popleft()()
                        finally:
                            with reading.handover:
                                if reading.current == reader:
                                    reading.computing = False
                        read_since = time.monotonic()
                        is_long = read_since - now > _LONG_S
                        stays = inline.stays_awake and not is_long  # guard: cost-computed, cost-long, cost-cores
                        awake = _AWAKE_POLLS if stays else 0
            except Exception:  # no call may take the others' thread away
                logger.exception("an event of the transport could not be handled")
            # No variable may keep a call in memory during the next poll.
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
        """Take a new call; an event without success says that no more will come."""
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
                self._unread_calls.refuse_method(event, path)
                return
            known = self._paths[method] = (path, self._router.is_unary(path))
        path, is_unary = known
        if self._certificates is not None and self._unread_calls.refuse_connection(event, path, self._certificates):
            return
        access = self._access
        if access is not None and self._unread_calls.refuse_caller(event, path, access):  # guard: access-unread
            return
        shedding = self._inline_work.shedding
        if shedding is not None and shedding.retry_after_s and self._router.is_sheddable(path):  # guard: shed-unread
            self._unread_calls.shed(event, path, shedding)
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

    def reply_was_late(self) -> None:
        """A reply that its client did not read for long was freed: have its memory given back to the system."""
        self._half_sent.ended()

    def _was_shut_down(self, event: Any) -> None:  # noqa: ARG002 - that it comes is what it tells
        self._stopped = True
