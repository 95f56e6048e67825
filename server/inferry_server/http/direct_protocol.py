"""One HTTP connection whose usual infer requests are answered without ASGI: `DirectInfer` as uvicorn's protocol has it.

Where a client sends one request after another with the same head, each of them whole, the parser looks at the first
ones alone (`repeated_heads.py`).
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from inferry_server.http.direct import DirectInfer
from inferry_server.http.direct_calls import DirectCall, Head, RawHeaders
from inferry_server.http.heads import header_lines
from inferry_server.http.repeated_heads import RepeatedHead, repeated_head

_MOST_KNOWN_BYTES = 4 << 10  # of headers that a connection remembers


class DirectProtocol(HttpToolsProtocol):  # type: ignore[misc]  # uvicorn is an extra, and not looked into
    """Gives requests to `DirectInfer` where that takes them, and sends its replies.

    Args:
        direct: as that of `HttpOptions`.

    Attributes:
        cycle: uvicorn's of the last request whose head has come; of one that goes the direct way, its call.
        deadline: on the loop's clock, of what the client is waited for; None while it waits for a reply.
        now: when the latest bytes came, on the loop's clock.
    """

    cycle: Any

    def __init__(self, *arguments: Any, direct: DirectInfer | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._direct = direct
        self._call: DirectCall | None = None  # that has no reply yet
        self._known: Head | None = None  # of the last request that was looked at for it
        self._looked_at: Head | None = None  # of the last one that came whole and alone, perhaps with others
        self._repeated: RepeatedHead | None = None  # of that
        self._came_alone = b""  # what is parsed now, if nothing of a request had come before it
        self._rests = False  # between two requests
        self._default_headers: RawHeaders = ()
        self._default_lines = b""
        self.now = 0.0
        self.deadline: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, and wants no reply any more."""
        super().connection_lost(exc)
        call, self._call = self._call, None
        if isinstance(self.cycle, DirectCall):
            self.cycle = None  # they would keep one another, until all objects are looked at
        if call is not None and self._direct is not None:
            call.disconnected = True
            self._direct.gone(call)

    def data_received(self, data: bytes) -> None:
        """Begin the request that came, or parse what came."""
        if self._rests and self._repeated is not None and self._begin_again(self._repeated, data):
            return
        self.now = self.loop.time()
        self._came_alone = data if self._rests else b""
        super().data_received(data)
        self._came_alone = b""

    def on_body(self, body: bytes) -> None:
        """A piece of the body has come."""
        if self._call is not None and self.cycle is self._call:
            self._call.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The client waits for the reply now."""
        call = self._call
        if self._direct is None or call is None or self.cycle is not call:
            super().on_message_complete()
            return
        if self._came_alone and self._looked_at is not call.head:
            self._looked_at = call.head
            self._repeated = repeated_head(self._came_alone, call.head, self.headers)
        self._direct.came(call)

    def reply(self, code: int, lines: bytes, body: bytes) -> None:
        """Send the whole reply to the direct call."""
        call, self._call = self._call, None
        assert call is not None  # noqa: S101 - it alone calls
        call.response_complete = True
        state, closes = self.server_state, not call.keep_alive
        if state.default_headers is not self._default_headers:  # uvicorn makes others each second, for the date
            self._default_headers, self._default_lines = state.default_headers, header_lines(state.default_headers)
        last = b"connection: close\r\n\r\n" if closes else b"\r\n"
        length = b"content-length: %d\r\n" % len(body)
        self.transport.write(b"".join((STATUS_LINE[code], self._default_lines, lines, length, last, body)))
        if closes:
            self.transport.close()
        if self.pipeline or self.flow.read_paused:
            self.on_response_complete()
        else:  # as it does, without a timer for each request
            state.total_requests += 1
            self._rests = True
            self.deadline = self.loop.time() + self.timeout_keep_alive

    def _begin_direct(self, known: Head | None) -> bool:
        """Whether the request whose head has come goes the direct way; `known` where its head came before."""
        direct, parser = self._direct, self.parser
        if direct is None or parser.get_method() != b"POST" or parser.get_http_version() != "1.1":
            return False
        # One that is behind another, or whose client does not read its replies, waits as uvicorn has it.
        is_next = self.cycle is None or self.cycle.response_complete
        if not is_next or self.flow.write_paused or not parser.should_keep_alive():  # guard: direct-in-order
            return False
        if known is None and sum(map(len, map(b"".join, self.headers))) + len(self.url) <= _MOST_KNOWN_BYTES:
            known = self._known = direct.head(self.url, self.headers, self.app_state)
        if known is None:
            return False
        call = direct.begin(known, int(self.headers[known.length_at][1]), self)
        if call is not None:
            self.cycle = self._call = call
        return call is not None

    def _begin_again(self, repeated: RepeatedHead, data: bytes) -> bool:
        """Whether the next request has come, whole and alone, with the head of one that went the direct way.

        It goes there, and the parser does not learn of it; else the parser is to look at what came.
        """
        body = repeated.body(data)
        if body is None or self._direct is None or self.flow.write_paused:  # guard: repeated-in-order
            return False
        self.now = self.loop.time()
        call = self._direct.begin(repeated.head, len(body), self)
        if call is None:
            return False
        self._unset_keepalive_if_required()
        self._rests, self.deadline = False, None
        self.cycle = self._call = call
        call.pieces.append(body)
        self._direct.came(call)
        return True
