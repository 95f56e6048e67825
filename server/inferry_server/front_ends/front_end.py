"""One front end: a transport for callers, and a thread that does what the owner says."""

import logging
import select
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from inferry_server.addresses import parse_address
from inferry_server.errors import StartError
from inferry_server.front_ends import records
from inferry_server.front_ends.channel import Arenas, Channel, Wake
from inferry_server.front_ends.forwarding import Forwarding, ForwardingRouter
from inferry_server.front_ends.plan import FrontEndPlan, read_plan
from inferry_server.front_ends.records import Record
from inferry_server.front_ends.used_files import UsedFiles, read_used_files
from inferry_server.runtime.memory_keeper import MemoryKeeper
from inferry_server.security.access import Access
from inferry_server.security.policy import parse_policy
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.telemetry.logs import choose_logging, configure_logging
from inferry_server.transport.selection import Transport, make_transport
from inferry_server.transport.tls import ServerTls

logger = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.25
_LONGEST_FLUSH_S = 1.0


class FrontEnd:
    """Serves until the owner says to stop, or is gone. `run` is called once, on the main thread.

    Args:
        end: of the socket to the owner.
        arenas: for large messages; None: there are none.
    """

    def __init__(self, end: socket.socket, arenas: Arenas | None = None) -> None:
        self._wake = Wake()
        self._channel = Channel(end, self._wake, arenas)
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._poll.register(self._channel, select.POLLIN)
        self._forwarding: Forwarding | None = None
        self._access: Access | None = None
        self._tls: ServerTls | None = None
        self._stop = threading.Event()
        self._grace_s: float | None = None  # None: the owner has not said to stop
        self._listener = threading.Thread(target=self._listen, name="owner", daemon=True)

    def run(self) -> int:
        """Serve.

        Returns:
            0 after a stop that the owner asked for, 1 after anything else.
        """
        plan, early = self._read_plan()
        if plan is None:
            return 1
        configure_logging(choose_logging(log_format=plan.log_format, level=plan.log_level))
        try:
            transport = self._serve(plan)
        except StartError as error:
            self._tell(records.FAILED, str(error).encode())
            return 1
        for record in early:
            self._handle(record)
        self._listener.start()
        MemoryKeeper().start()
        self._tell(records.LISTENING)
        while not self._stop.wait(_LOOK_EVERY_S):
            self._tell(records.ALIVE, records.write_alive(transport.look(), time.process_time()))
        return 0 if self._end(transport) else 1

    def _serve(self, plan: FrontEndPlan) -> Transport:
        report = LoadReport(cores=1, instances=1) if plan.reports_load else None
        forwarding = self._forwarding = Forwarding(self._channel, plan, report)
        policy = plan.files.policy
        self._access = None if policy is None else Access(parse_policy(policy))
        router = ForwardingRouter(plan, forwarding, self._access)
        options = replace(plan.options, contents=plan.files.tls, report=report, watch=self._keep_tls, shares_port=True)
        transport = make_transport(plan.transport, router, options, inline=forwarding.gathering, failed=self._stop.set)
        transport.start(parse_address(plan.address))
        return transport

    def _end(self, transport: Transport) -> bool:
        """Stop as the owner said. Returns whether it has said so; if it is gone, there is nothing to wait for."""
        if self._grace_s is None:
            transport.stop(_LOOK_EVERY_S)
            return False
        ended = transport.stop(self._grace_s)
        self._tell(records.STOPPED, bytes([ended]))
        until = time.monotonic() + _LONGEST_FLUSH_S
        while self._channel.unsent_bytes and time.monotonic() < until:
            self._listener.join(0.01)
        return True

    def _read_plan(self) -> tuple[FrontEndPlan | None, Sequence[Record]]:
        """The first record, and those that came with it."""
        while True:
            self._poll.poll()
            received = self._channel.receive()
            if received is None:
                return None, ()
            if received:
                return read_plan(received[0][2]), received[1:]

    def _listen(self) -> None:
        """Do what the owner says, until it is gone; then every call ends, and the process with them."""
        try:
            self._do_what_comes()
        except Exception:
            logger.exception("the owner of the models cannot be heard any more")
        if not self._stop.is_set():
            logger.error("the process that owns the models is gone: this front end ends")
        if self._forwarding is not None:
            self._forwarding.close()
        self._stop.set()

    def _do_what_comes(self) -> None:
        channel = self._channel
        while True:
            self._poll.modify(channel, select.POLLIN | (select.POLLOUT if channel.wants_room else 0))
            for descriptor, _ in self._poll.poll():
                if descriptor == self._wake.fileno():
                    self._wake.clear()
            if channel.wants_room:
                channel.flush_on()
            received = channel.receive()
            if received is None:
                return
            for record in received:
                try:
                    self._handle(record)
                except Exception:  # no record may take the others' outcomes away
                    logger.exception("what the owner of the models says could not be done")
            channel.flush()

    def _handle(self, record: Record) -> None:
        kind, _, body, _ = record
        if kind == records.STOP:
            self._grace_s = records.read_seconds(body)
            self._stop.set()
        elif kind == records.FILES:
            self._use(read_used_files(body))
            self._tell(records.USES_FILES)
        elif self._forwarding is not None:
            self._forwarding.handle(record)

    def _keep_tls(self, tls: ServerTls) -> None:
        self._tls = tls

    def _use(self, files: UsedFiles) -> None:
        """Decide and encrypt by what the owner uses now."""
        if self._access is not None and files.policy is not None:
            self._access.exchange(parse_policy(files.policy))  # guard: front-end-policy
        if self._tls is not None and files.tls != self._tls.contents:
            self._tls.apply(files.tls)

    def _tell(self, kind: int, body: bytes = b"") -> None:
        self._channel.put(kind, 0, body)
        self._channel.flush()
