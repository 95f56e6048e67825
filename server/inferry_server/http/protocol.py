"""One HTTP connection, with bounds: clients that send or read slowly, or send nothing, are not waited for.

uvicorn waits for a request as long as it takes, and for a client that does not read. Here each wait has a deadline,
which `HttpServer` looks at once a second: timers would be set and cancelled for every request.
"""

import asyncio
import math
import ssl
import time
from collections.abc import Callable, Sized
from typing import Any
from urllib.parse import urlsplit

from uvicorn.protocols.http.flow_control import FlowControl

from inferry_server.http.crowd import Crowd, peer_of
from inferry_server.http.direct_protocol import DirectProtocol
from inferry_server.http.handshakes import Handshakes
from inferry_server.http.heads import (
    asks_for_health,
    has_body,
    has_its_host,
    last_reply,
    no_request,
)
from inferry_server.http.limits import HttpLimits
from inferry_server.security.certificate_names import names_of_peer
from inferry_server.security.client_certificates import end_of_peer

LEAST_BYTES_PER_S = 64 << 10
"""Of a body: for each that comes, the rest has more time."""

MOST_PIPELINED = 64
"""Requests of one connection that wait for earlier ones to be answered."""


class _OrderlyFlow(FlowControl):  # type: ignore[misc]  # uvicorn is an extra, and not looked into
    """Reads no further while requests wait in the pipeline: uvicorn reads on whenever it begins to answer one.

    Args:
        transport: of the connection.
        pipeline: requests that wait for earlier ones; all of what these sent has come.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Read on, unless requests wait."""
        if not self._pipeline:  # guard: http-pipeline-first
            super().resume_reading()


class BoundedProtocol(DirectProtocol):
    """Ends its connection where the client is too slow, or the headers too long; see `expire`.

    Args:
        limits: of each connection.
        crowd: all connections of the port.
        handshakes: those that are no connections yet; None where there is no TLS.
        closed: told why the server closed a connection: `crowded`, `slow`, `idle` between two requests, `invalid`
            for what is no request, or `expired` after the end of the client's certificate or its authority. Of a
            handshake that fails, `HttpTls` tells.
        trusts: whether the client of an encrypted connection would still be verified.

    Attributes:
        peer: whom it comes from.
    """

    def __init__(
        self,
        *arguments: Any,
        limits: HttpLimits,
        crowd: Crowd,
        handshakes: Handshakes | None = None,
        closed: Callable[[str], object] = lambda _: None,
        trusts: Callable[[ssl.SSLObject], bool] = lambda _: True,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._crowd = crowd
        self._certificate_end = math.inf
        self._handshakes = handshakes
        self._may_ask = True  # for more than health
        self._is_deaf = False  # what comes is not looked at any more
        self._closed = closed
        self._trusts = trusts
        self._shown: ssl.SSLObject | None = None  # with a client's certificate
        self._header_bytes = self._unended_bytes = 0
        self._in_body = False
        self._in_head = self._got_on = False
        self.peer = ""

    @property
    def standing(self) -> tuple[int, float] | None:
        """How soon it makes room for another one: first where nothing is owed, as no request of it has come whole.

        Then the connection whose client is slowest to send a body, or to read; then streams like the live page's,
        which have no end. Never one whose client waits for a reply that is being made.
        """
        if self.deadline is not None:
            return (0 if self._is_between_requests() else 1), self.deadline  # guard: http-slow-makes-room
        if getattr(self.cycle, "response_started", False) and not self.cycle.response_complete:
            return 2, self.now
        return None

    def make_room(self) -> None:
        """Close at once."""
        self.connections.discard(self)
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a connection; where there are too many, another one makes room, or this may only ask for health."""
        super().connection_made(transport)
        self.flow = _OrderlyFlow(transport, self.pipeline)
        tls = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert()
        self._certificate_end = end_of_peer(certificate)
        self._shown = tls if certificate else None
        self.app_state = {
            "has_certificate": bool(certificate),
            "certificate_names": names_of_peer(certificate),
            "certificate_end": self._certificate_end,
        }
        if self._handshakes is not None:
            self._handshakes.ended(transport.get_extra_info("socket").fileno())
        self._wait_for_client(self._limits.read_s)
        self.peer = peer_of(self.client[0]) if self.client else ""
        self._may_ask = self._crowd.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, and makes room for others."""
        super().connection_lost(exc)
        self._crowd.leave(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; more of a body gives the rest more time."""
        if self._is_deaf:
            return
        if self._in_body and self.deadline is not None:
            self.deadline += len(data) / LEAST_BYTES_PER_S
        self._got_on = False
        super().data_received(data)
        if (self._in_head or self._in_body) and not self._got_on:  # guard: http-trailer-unended
            self._check_unended_header(len(data))

    def on_message_begin(self) -> None:
        """A request has begun to come; what the application is told of it is made when it is to answer it.

        Raises ValueError where too many wait already; see `send_400_response`.
        """
        if self.pipeline and len(self.pipeline) >= MOST_PIPELINED:  # guard: http-pipelined-bounded
            raise ValueError("too many requests in the pipeline")
        self.url, self.expect_100_continue = b"", False
        self.headers: list[tuple[bytes, bytes]] = []
        self._header_bytes = self._unended_bytes = 0
        self._in_head = self._got_on = True
        self._in_body = self._rests = False
        self.deadline = self.now + self._limits.read_s

    def on_url(self, url: bytes) -> None:
        """A piece of the path has come."""
        self._header_bytes += len(url)
        self._check_length()
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come; behind a body, it is a trailer, and says nothing here (RFC 9110, 6.5.1)."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._limits.header_bytes:
            self._check_length()
        if not self._in_body:  # guard: http-trailers
            name = name.lower()
            if name == b"expect":
                super().on_header(name, value)  # uvicorn heeds it
            else:
                self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The body comes next, and has time of its own."""
        if not self._may_ask and not asks_for_health(self.url):  # guard: http-health-alone
            raise ValueError("too many connections")
        known = self._known
        # What was looked at once holds wherever it comes again: the one Host, and that it goes the direct way.
        if known is None or not known.fits(self.url, self.headers):  # guard: direct-same-head
            self._check_head()
            known = None
        self._in_body, self._in_head = True, False
        self.deadline = self.now + self._limits.read_s
        if not self._begin_direct(known):
            self._make_scope()
            super().on_headers_complete()
        if not self._may_ask:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        self._got_on, self._unended_bytes = True, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The client waits for the reply now."""
        self._in_body = False
        self.deadline = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The client has its reply, and may ask again."""
        super().on_response_complete()
        self._rest()

    def send_400_response(self, _msg: str) -> None:
        """Tell what was expected, then close; replies that are owed to earlier requests come first, and alone."""
        self._is_deaf = True
        self._closed("invalid" if self._may_ask else "crowded")
        owes = self.cycle is not None and not self.cycle.response_complete
        if owes and not self._in_body:  # guard: http-owed-first
            self.deadline = None
            self.cycle.keep_alive = False
            return
        if self._may_ask:
            self.transport.write(last_reply(400, no_request(self._limits.header_bytes)))
        else:
            self.transport.write(last_reply(503, self._crowd.refusal, {"retry-after": "1"}))
        self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._wait_for_client(self._limits.write_s)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self.deadline = None
        self._rest()

    def expire(self, now: float) -> None:
        """End the connection if its client is too late, or does not read the rest of a connection that closes.

        So is one whose client's certificate or its authority has ended, once it has the reply that it waits for.
        """
        if self._shown is not None and not self._trusts(self._shown):
            self._end_certificate()
        if time.time() >= self._certificate_end and not self.transport.is_closing():  # guard: http-certificate-ended
            self._end_after_reply()
        if self.deadline is None and self.transport.is_closing():
            self.deadline = now + self._limits.write_s
        elif self.deadline is not None and now >= self.deadline:  # guard: http-clients-late
            if self.transport.is_closing():
                self.transport.abort()
                return
            self._closed("idle" if self._rests else "slow")
            if self._rests:  # guard: http-idle-closes
                self.transport.close()  # TLS says goodbye; who does not read that is cut off at the next look
            else:
                self.transport.abort()

    def _make_scope(self) -> None:
        """Make what uvicorn makes when a request begins, and keep what has come since."""
        url, headers, expects_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects_continue
        self.headers += headers  # the list is the scope's

    def _end_certificate(self) -> None:
        """Take the client's certificate for one that has ended, also in a request that is being answered."""
        self._shown, self._certificate_end = None, -math.inf
        for state in (self.app_state, (self.scope or {}).get("state", {})):
            state["certificate_end"] = self._certificate_end

    def _end_after_reply(self) -> None:
        if not self._is_between_requests():
            self.cycle.keep_alive = False
            return
        self._closed("expired")
        self.transport.close()

    def _check_head(self) -> None:
        """Look at what uvicorn would let pass. Raises ValueError; httptools makes it a 400."""
        # The parser gives up a body behind `Upgrade`, and the request would be answered without it.
        if self.parser.should_upgrade() and has_body(self.headers):  # guard: http-upgrade-body
            raise ValueError("Upgrade with a body")
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        if not has_its_host(self.headers, self.parser.get_http_version()):  # guard: http-one-host
            raise ValueError("no Host, or more than one")

    def _wait_for_client(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def _rest(self) -> None:
        """Wait for the next request, if none is there; uvicorn itself closes after `timeout_keep_alive`."""
        if self._is_between_requests():
            self._rests = True
            self._wait_for_client(self.timeout_keep_alive + self._limits.read_s)

    def _is_between_requests(self) -> bool:
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _take_host_of_target(self) -> None:
        """A target like `http://host/path` decides, and not the header Host (RFC 9112, 3.2.2)."""
        target = urlsplit(self.url)
        if target.netloc and sum(name == b"host" for name, _ in self.headers) == 1:
            self.headers[:] = [(name, target.netloc if name == b"host" else value) for name, value in self.headers]

    def _check_unended_header(self, size: int) -> None:
        """Look at bytes of a head that has not ended, or between pieces of a body: the parser keeps them to itself.

        They may be a header, or a trailer behind the body.
        """
        self._unended_bytes += size
        if self._unended_bytes > self._limits.header_bytes and not self._is_deaf:  # guard: http-header-unended
            self.send_400_response("")

    def _check_length(self) -> None:
        most = self._limits.header_bytes
        if self._header_bytes > most:  # guard: http-headers-bounded
            raise ValueError(f"headers of more than {most} bytes")  # httptools makes it a 400
