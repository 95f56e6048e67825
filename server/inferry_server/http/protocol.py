"""One HTTP connection, with bounds: clients that send or read slowly, or send nothing, are not waited for.

uvicorn waits for a request as long as it takes, and for a client that does not read. Here each wait has a deadline,
which `HttpServer` looks at once a second: timers would be set and cancelled for every request.
"""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inferry_server.http.direct import DirectInfer
from inferry_server.http.direct_calls import DirectCall, Head, RawHeaders
from inferry_server.security.certificate_names import names_of_peer

HEADERS_S = 10.0
"""For a client to send the headers of a request, from its first byte or from connecting."""

READ_S = 10.0
"""For the body beyond the time that `LEAST_BYTES_PER_S` gives it."""

LEAST_BYTES_PER_S = 64 << 10
WRITE_S = 30.0
"""For a client to read what the system does not buffer for it."""

MOST_HEADER_BYTES = 64 << 10
_MOST_KNOWN_BYTES = 4 << 10  # of headers that a connection remembers


_EXPECTED = (
    "this is no HTTP/1.1 request that is understood here; expected a method and a path in ASCII (percent-encode the "
    f"rest), headers of {MOST_HEADER_BYTES >> 10} KiB at most, with exactly one valid Host (HTTP/1.1), one "
    "content-length or chunks, no Upgrade with a body, and no TLS or HTTP/2 where the port speaks HTTP/1.1"
)


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers)


_HOST = re.compile(rb"(\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z!$%&'()*+,.;=_~-]*)(:[0-9]*)?")


def _has_its_host(headers: list[tuple[bytes, bytes]], version: str) -> bool:
    """Whether it names one host, as RFC 9112 (3.2) wants it; requests of HTTP/1.0 may name none."""
    hosts = [value for name, value in headers if name == b"host"]
    if not hosts:
        return version == "1.0"
    return len(hosts) == 1 and _HOST.fullmatch(hosts[0].strip()) is not None


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]  # uvicorn is an extra, and not looked into
    """Ends its connection where the client is too slow, or the headers too long; see `expire`.

    Args:
        most_connections: open at a time.
        closed: told why the server closed a connection: `crowded`, `slow`, `idle` between two requests, or `invalid`
            for what is no request. Of a handshake that fails, `HttpTls` tells.

    Attributes:
        deadline: on the loop's clock, of what the client is waited for; None while it waits for an answer.
        now: when the latest bytes came, on the loop's clock.
        cycle: uvicorn's of the last request whose head has come; of one that goes the direct way, its call.
    """

    cycle: Any

    def __init__(
        self,
        *arguments: Any,
        most_connections: int,
        direct: DirectInfer | None = None,
        closed: Callable[[str], object] = lambda _: None,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        self._most_connections = most_connections
        self._direct = direct
        self._call: DirectCall | None = None  # that has no reply yet
        self._known: Head | None = None  # of the last request that was looked at for it
        self._closed = closed
        self._rests = False  # between two requests
        self._header_bytes = 0
        self._in_body = False
        self.now = 0.0
        self.deadline: float | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it owes its client nothing: no request of it has come whole."""
        return self.deadline is not None and self._is_between_requests()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Take a connection; where there are too many, the one that has been idle for longest makes room."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = None if tls is None else tls.getpeercert()
        self.app_state = {"has_certificate": bool(certificate), "certificate_names": names_of_peer(certificate)}
        self._wait_for_client(HEADERS_S)
        if len(self.connections) > self._most_connections:  # guard: http-connections-bounded
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, and wants no reply any more."""
        super().connection_lost(exc)
        call, self._call = self._call, None
        if isinstance(self.cycle, DirectCall):
            self.cycle = None  # they would keep one another, until all objects are looked at
        if call is not None:
            call.disconnected = True
            call.cancelled()  # guard: direct-cancelled

    def data_received(self, data: bytes) -> None:
        """Parse what came; more of a body gives the rest more time."""
        if self._in_body and self.deadline is not None:
            self.deadline += len(data) / LEAST_BYTES_PER_S
        self.now = self.loop.time()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """A request has begun to come."""
        super().on_message_begin()
        self._header_bytes = 0
        self._in_body = self._rests = False
        self.deadline = self.now + HEADERS_S

    def on_url(self, url: bytes) -> None:
        """A piece of the path has come."""
        self._header_bytes += len(url)
        self._check_length()
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come; behind a body, it is a trailer, and says nothing here (RFC 9110, 6.5.1)."""
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MOST_HEADER_BYTES:
            self._check_length()
        if not self._in_body:  # guard: http-trailers
            name = name.lower()
            if name == b"expect":
                super().on_header(name, value)  # uvicorn heeds it
            else:
                self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The body comes next, and has time of its own."""
        self._in_body = True
        self.deadline = self.now + READ_S
        known = self._known
        # What was looked at once holds wherever it comes again: the one Host, and that it goes the direct way.
        if known is None or not known.fits(self.url, self.headers):  # guard: direct-same-head
            self._check_head()
            known = None
        if not self._begin_direct(known):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        if self._call is not None and self.cycle is self._call:
            self._call.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The client waits for the answer now."""
        self._in_body = False
        self.deadline = None
        if self._direct is not None and self._call is not None and self.cycle is self._call:
            self._direct.came(self._call)
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The client has its answer, and may ask again."""
        super().on_response_complete()
        self._rest()

    def answer(self, code: int, headers: RawHeaders, body: bytes) -> None:
        """Send the whole reply to the direct call."""
        call, self._call = self._call, None
        assert call is not None  # noqa: S101 - it alone calls
        call.response_complete = True
        pieces = [STATUS_LINE[code]]
        for name, value in (*self.server_state.default_headers, *headers):
            pieces += (name, b": ", value, b"\r\n")
        closes = not call.keep_alive
        pieces += (b"connection: close\r\n\r\n" if closes else b"\r\n", body)
        self.transport.write(b"".join(pieces))
        if closes:
            self.transport.close()
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:  # as it does, without a timer for each request
            self.server_state.total_requests += 1
            self._rests = True
            self._wait_for_client(self.timeout_keep_alive)

    def send_400_response(self, _msg: str) -> None:
        """Tell in JSON, as every error is told, what was expected; then close."""
        self._closed("invalid")
        text = json.dumps({"error": _EXPECTED}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + text)
        self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read as fast as it is answered."""
        super().pause_writing()
        self._wait_for_client(WRITE_S)

    def resume_writing(self) -> None:
        """The client has read."""
        super().resume_writing()
        self.deadline = None
        self._rest()

    def expire(self, now: float) -> None:
        """End the connection if its client is too late, or does not read the rest of a connection that closes."""
        if self.deadline is None and self.transport.is_closing():
            self.deadline = now + WRITE_S
        elif self.deadline is not None and now >= self.deadline:  # guard: http-clients-late
            if self.transport.is_closing():
                self.transport.abort()
                return
            self._closed("idle" if self._rests else "slow")
            if self._rests:  # guard: http-idle-closes
                self.transport.close()  # TLS says goodbye; who does not read that is cut off at the next look
            else:
                self.transport.abort()

    def _check_head(self) -> None:
        """Look at what uvicorn would let pass. Raises ValueError; httptools makes it a 400."""
        # The parser gives up a body behind `Upgrade`, and the request would be answered without it.
        if self.parser.should_upgrade() and _has_body(self.headers):  # guard: http-upgrade-body
            raise ValueError("Upgrade with a body")
        if not self.url.startswith(b"/"):
            self._take_host_of_target()
        if not _has_its_host(self.headers, self.parser.get_http_version()):  # guard: http-one-host
            raise ValueError("no Host, or more than one")

    def _begin_direct(self, known: Head | None) -> bool:
        """Whether the request whose head has come goes the direct way; `known` where its head came before."""
        direct, parser = self._direct, self.parser
        if direct is None or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        # One that is behind another, or whose client does not read its replies, waits as uvicorn has it.
        is_next = self.cycle is None or self.cycle.response_complete
        if not is_next or self.flow.write_paused or not parser.should_keep_alive():  # guard: direct-in-order
            return False
        if known is None and self._header_bytes <= _MOST_KNOWN_BYTES:
            known = self._known = direct.head(self.url, self.headers, self.app_state)
        call = None if known is None else direct.begin(known, self.headers, self)
        if call is not None:
            self.cycle = self._call = call
        return call is not None

    def _wait_for_client(self, seconds: float) -> None:
        self.deadline = self.loop.time() + seconds

    def _rest(self) -> None:
        """Wait for the next request, if none is there; uvicorn itself closes after `timeout_keep_alive`."""
        if self._is_between_requests():
            self._rests = True
            self._wait_for_client(self.timeout_keep_alive + HEADERS_S)

    def _is_between_requests(self) -> bool:
        return (self.cycle is None or self.cycle.response_complete) and not self.pipeline

    def _take_host_of_target(self) -> None:
        """A target like `http://host/path` decides, and not the header Host (RFC 9112, 3.2.2)."""
        target = urlsplit(self.url)
        if target.netloc and sum(name == b"host" for name, _ in self.headers) == 1:
            self.headers[:] = [(name, target.netloc if name == b"host" else value) for name, value in self.headers]

    def _make_room(self) -> None:
        idle = [one for one in self.connections if one is not self and one.is_idle]
        longest = min(idle, key=lambda one: one.deadline, default=self)
        self.connections.discard(longest)
        self._closed("crowded")
        longest.transport.abort()

    def _check_length(self) -> None:
        if self._header_bytes > MOST_HEADER_BYTES:  # guard: http-headers-bounded
            raise ValueError(f"headers of more than {MOST_HEADER_BYTES} bytes")  # httptools makes it a 400
