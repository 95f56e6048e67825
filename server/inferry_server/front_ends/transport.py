"""In the owner: the transport whose calls come from front ends."""

import errno
import logging
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from inferry_server.addresses import A, Address, bound
from inferry_server.errors import StartError
from inferry_server.front_ends import records
from inferry_server.front_ends.calls import ForwardedCalls
from inferry_server.front_ends.channel import Channel, Wake
from inferry_server.front_ends.plan import FrontEndPlan, write_plan
from inferry_server.front_ends.records import Send
from inferry_server.front_ends.slot import Slot
from inferry_server.front_ends.used_files import UsedFiles, write_used_files
from inferry_server.rpc.router import Router
from inferry_server.transport.between_events import BetweenEvents, Nothing
from inferry_server.transport.options import TransportOptions, cannot_bind
from inferry_server.transport.reading_thread import ReadingThread
from inferry_server.transport.tls import ServerTls

logger = logging.getLogger(__name__)

_IDLE_POLL_MS = 200
_LONGEST_READ_S = 0.02  # while inline work is pending, as in `completion_queue.py`
_START_S = 60.0  # for a front end to listen: on a busy machine, importing takes its time
_STOP_SLACK_S = 3.0
_LONGEST_TELL_S = 5.0
_HEARS_S = 1.0  # for which the reading thread may stand still, and yet have heard of front ends
_TRIES = 10  # to hold a free port
_MOST_BODY_BYTES = 64 << 20  # of a record, beside its message: metadata have up to 16 MB, twice that as digits


class FrontEndsTransport:
    """A gRPC server whose connections are held by front ends; handlers run on one thread of this process.

    `start` and `stop` are called once each, by one thread, and block until done.

    Args:
        router: finds the handlers.
        options: of the connections.
        plan: of a front end; address, options and methods are filled in here.
        count: of the front ends.
        inline: what the reading thread runs whenever nothing has come.
        relieved: called when another thread reads from now on, because the one that did computes for long.
        ended: called when a front end has ended that should not have.
    """

    def __init__(
        self,
        router: Router,
        options: TransportOptions,
        plan: FrontEndPlan,
        count: int,
        *,
        inline: BetweenEvents | None = None,
        relieved: Callable[[], object] = lambda: None,
        ended: Callable[[], object] = lambda: None,
    ) -> None:
        self._router = router
        self._options = options
        self._plan = plan
        self._count = count
        self._inline_work = inline or Nothing()
        self._ended = ended
        self._wake = Wake()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._reading = ReadingThread(
            "front-ends", self._read, self._inline_work, stopped=lambda: self._stopped, relieved=relieved
        )
        self._slots: list[Slot] = []
        self._polled: dict[int, Slot] = {}  # by descriptor
        self._begun: deque[tuple[Slot, Channel]] = deque()  # to be polled
        self._dead: deque[Slot] = deque()  # to be told of
        self._reader: int | None = None  # as `threading.get_ident` numbers it
        self._stopping = self._stopped = False
        self._told_shed_s = 0.0
        self._deaf_since: float | None = None
        self._grace_s = 0.0
        self._held: list[socket.socket] = []
        self._tls: ServerTls | None = None

    @property
    def listening(self) -> int:
        """Front ends that take connections now."""
        return sum(slot.is_listening for slot in self._slots)

    @property
    def cpu_s(self) -> float:
        """CPU seconds that the front ends have had."""
        return sum(slot.cpu_s for slot in self._slots)

    def start(self, address: A) -> A:
        """Start the front ends, and return once all of them listen.

        Returns:
            The address, with the port that was bound.

        Raises:
            StartError: the address cannot be bound, or a front end cannot start; names the reason.
        """
        if not isinstance(address, Address):
            raise StartError(
                f"gRPC address {address} has one listener, and front ends share a port; expected HOST:PORT, or "
                "front_ends 0"
            )
        self._tls = self._options.open_tls()  # says what is wrong with its files, and has them watched
        self._held, port = _hold_port(address)
        options = self._options
        plan = self._plan = replace(
            self._plan,
            address=str(bound(address, port)),
            options=replace(
                options,
                max_connections=-(-options.max_connections // self._count),
                max_open_calls=-(-options.max_open_calls // self._count),
                max_connections_per_peer=-(-options.max_connections_per_peer // self._count),
            ),
            most_unsent_bytes=-(-self._plan.most_unsent_bytes // self._count),
            unary=self._router.unary_paths(),
            streams=self._router.stream_paths(),
            sheddable=self._router.sheddable_paths(),
            reports_load=self._options.report is not None,
        )
        make_calls = partial(self._make_calls, plan)
        most_bytes = options.max_message_bytes + _MOST_BODY_BYTES
        self._slots = [Slot(number, self._wake, make_calls, most_bytes=most_bytes) for number in range(self._count)]
        try:
            for slot in self._slots:
                self._begin(slot)
            self._reading.start()
            for slot in self._slots:
                if not slot.settled.wait(_START_S):
                    slot.failure = f"front end {slot.number} does not listen after {_START_S:g} s"
                if slot.failure is not None:
                    raise StartError(slot.failure)
        except StartError:
            self._close()
            raise
        return bound(address, port)

    def look(self) -> float:
        """See whether calls are read; replace front ends that have ended, and end those that hang.

        Returns:
            Seconds for which calls were not read, here or in a front end, although they should have been.
        """
        still_s = self._reading.look()
        if self._stopping:
            return still_s
        now = time.monotonic()
        while self._dead:
            slot = self._dead.popleft()
            logger.error("front end %d has ended (%s), and is started again", slot.number, slot.reap())
            self._ended()
        for slot in self._slots:
            slot.end_if_it_hangs(is_heard=still_s < _HEARS_S)
            if slot.is_due(now):
                self._begin_again(slot, now)
        if self.listening:
            self._deaf_since = None
        elif self._deaf_since is None:
            self._deaf_since = now
        deaf_s = 0.0 if self._deaf_since is None else now - self._deaf_since
        if self._options.report is not None:
            self._tell_all(records.REPORT, records.write_metadata(self._options.report.metadata))
        return max([still_s, deaf_s, *(slot.still_s for slot in self._slots)])

    def tell_files(self) -> None:
        """Have the front ends use the access policy and the files of TLS that are used here; returns when they do."""
        for slot in self._slots:
            slot.uses_files.clear()
        self._tell_all(records.FILES, write_used_files(self._used_files()))
        until = time.monotonic() + _LONGEST_TELL_S
        for slot in self._slots:
            if slot.channel is not None and not slot.uses_files.wait(max(0.0, until - time.monotonic())):
                logger.warning("front end %d does not yet use files that have changed", slot.number)

    def stop(self, grace_s: float) -> bool:
        """Have the front ends accept no more calls and let those under way finish, for `grace_s` at most.

        Does nothing where `start` was not called.

        Returns:
            Whether every call ended by itself.
        """
        if self._stopped or not self._slots:
            return True
        self._grace_s = grace_s
        self._stopping = True
        self._tell_all(records.STOP, records.write_seconds(grace_s))
        until = time.monotonic() + grace_s + _STOP_SLACK_S
        answered = [slot.gone.wait(max(0.0, until - time.monotonic())) and slot.answered for slot in self._slots]
        self._close()
        return all(answered)

    def _close(self) -> None:
        self._stopping = self._stopped = True
        self._wake()
        if self._reading.is_alive():
            self._reading.join(_STOP_SLACK_S)
        for slot in self._slots:
            if slot.channel is not None:
                slot.channel.close()  # which ends a process that has not ended yet
        for slot in self._slots:
            slot.reap()
        for held in self._held:
            held.close()

    def _make_calls(self, plan: FrontEndPlan, put: Send) -> ForwardedCalls:
        return ForwardedCalls(self._router, plan.paths, partial(self._send, put), self._count_shed)

    def _used_files(self) -> UsedFiles:
        access, tls = self._router.access, self._tls
        return UsedFiles(None if access is None else access.policy.text, {} if tls is None else tls.contents)

    def _begin(self, slot: Slot) -> None:
        files = self._used_files()
        channel = slot.begin(write_plan(replace(self._plan, files=files)))
        if (used := self._used_files()) != files:  # it began before it could be told with the others
            channel.put(records.FILES, 0, write_used_files(used))
        if self._told_shed_s:
            channel.put(records.SHED, 0, records.write_seconds(self._told_shed_s))
        if self._stopping:  # it began before it could be told with the others
            channel.put(records.STOP, 0, records.write_seconds(self._grace_s))
        self._begun.append((slot, channel))
        self._wake()

    def _begin_again(self, slot: Slot, now: float) -> None:
        try:
            self._begin(slot)
        except StartError as error:
            slot.put_off(now)
            logger.error("front end %d: %s", slot.number, error)

    def _send(self, put: Send, kind: int, number: int, body: bytes = b"", message: bytes = b"") -> None:
        """Send a record soon: whoever reads sends what has gathered, before it waits or computes."""
        put(kind, number, body, message)
        if threading.get_ident() == self._reader:
            return
        if self._reading.computing:
            self._flush()
        else:
            self._wake()

    def _tell_all(self, kind: int, body: bytes) -> None:
        for slot in self._slots:
            channel = slot.channel
            if channel is not None:
                self._send(channel.put, kind, 0, body)

    def _flush(self) -> None:
        for slot in self._slots:
            channel = slot.channel
            if channel is not None:
                channel.flush()

    def _count_shed(self) -> None:
        if (shedding := self._inline_work.shedding) is not None:
            shedding.count()

    def _read(self, reader: int) -> None:
        """Read what has come; compute when nothing has, or reading has taken long. Ends when it was relieved."""
        self._reader = threading.get_ident()
        reading, work = self._reading, self._inline_work.pending
        read_since = time.monotonic()
        while not self._stopped and reading.current == reader:
            reading.turns += 1
            has_work = bool(work)
            ready = self._poll.poll(0 if has_work else _IDLE_POLL_MS)
            for descriptor, _ in ready:
                self._look_at(descriptor)
            now = time.monotonic()
            if not has_work:
                read_since = now
            elif not ready or now - read_since > _LONGEST_READ_S:
                reading.compute(reader, partial(self._compute, work.popleft()))
                read_since = time.monotonic()
            self._tell_shedding()
            self._flush()

    def _compute(self, work: Callable[[], None]) -> None:
        self._flush()  # here: what other threads put from now on they send themselves
        try:
            work()
        except Exception:  # no batch may take the others' thread away
            logger.exception("inline work failed")
        self._flush()  # also where another thread reads by now

    def _look_at(self, descriptor: int) -> None:
        slot = self._polled.get(descriptor)
        if slot is None:
            self._wake.clear()
            while self._begun:
                self._watch(*self._begun.popleft())
            for other in self._polled.values():
                self._set_interest(other)
            return
        channel = slot.channel
        if channel is not None and channel.wants_room:
            channel.flush_on()
            self._set_interest(slot)
        if not slot.receive():
            del self._polled[descriptor]
            self._poll.unregister(descriptor)
            self._dead.append(slot)  # first: `look` starts another process as soon as this one has ended
            slot.ended(time.monotonic())

    def _watch(self, slot: Slot, channel: Channel) -> None:
        self._polled[channel.fileno()] = slot
        self._poll.register(channel, select.POLLIN)
        channel.flush()

    def _set_interest(self, slot: Slot) -> None:
        channel = slot.channel
        if channel is not None:
            self._poll.modify(channel, select.POLLIN | (select.POLLOUT if channel.wants_room else 0))

    def _tell_shedding(self) -> None:
        shedding = self._inline_work.shedding
        retry_after_s = 0.0 if shedding is None else shedding.retry_after_s
        if retry_after_s and not any(map(self._router.is_sheddable, self._router.sheddable_paths())):
            retry_after_s = 0.0
        if retry_after_s != self._told_shed_s:
            self._told_shed_s = retry_after_s
            self._tell_all(records.SHED, records.write_seconds(retry_after_s))


def _hold_port(address: Address) -> tuple[list[socket.socket], int]:
    """Keep a port for the front ends, which share it, and from every other server.

    Returns:
        Sockets that are bound and do not listen, one for each address of the host, and the port.

    Raises:
        StartError: the address is in use, or not of this machine.
    """
    for _ in range(_TRIES):
        held: list[socket.socket] = []
        port = address.port
        try:
            for family, kind, protocol, _name, where in socket.getaddrinfo(
                address.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                with _unsupported_passed_over():
                    held.append(_hold(socket.socket(family, kind, protocol), (where[0], port, *where[2:])))
                    port = held[-1].getsockname()[1]
        except OSError:
            for one in held:
                one.close()
            if address.port:
                break
            continue
        if port:
            return held, port
    raise cannot_bind(address)


def _hold(held: socket.socket, where: tuple[Any, ...]) -> socket.socket:
    """Bind a socket that others of this server may share, if nobody else has the port."""
    try:
        # Alone first: a socket that shares the port would be let in beside another server's.
        with socket.socket(held.family, held.type, held.proto) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            where = (where[0], probe.getsockname()[1], *where[2:])
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(where)
    except OSError:
        held.close()
        raise
    return held


@contextmanager
def _unsupported_passed_over() -> Iterator[None]:
    """Pass over an address of a kind that this machine has not, as gRPC does."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
