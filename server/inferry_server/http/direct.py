"""Infer requests that are answered without ASGI: as gRPC's calls are, by plain calls and without a task each.

The application answers everything. Of a request that is like most, a short POST to a model's infer whose head says
nothing unusual, only the way is shorter: from the connection to the router's handler and back, with the checks, the
messages and the replies of the long one. `DirectInfer` decides from a request's head which way it takes.

Requests that come in one round of the event loop are handled at its end, together: whoever computes is woken once and
finds all of them, and their replies come back to the loop by one wake-up.
"""

import asyncio
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from starlette.datastructures import Headers

from inferry_server.errors import InvalidRequestError, ServingError
from inferry_server.http.direct_calls import INFER, Connection, DirectCall, Head, RawHeaders
from inferry_server.http.heads import header_lines
from inferry_server.http.infer_plans import InferRequests
from inferry_server.http.infer_request import HEADER_LENGTH
from inferry_server.http.infer_response import reply_lines
from inferry_server.http.replies import Compression, refusal
from inferry_server.http.response_plans import InferResponses
from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import OK, Status, status_of
from inferry_server.security.access import Access

logger = logging.getLogger(__name__)

MOST_BYTES = 64 << 10
"""Of a body that comes this way: as much as uvicorn holds of any body before the application takes it."""

_PATH = re.compile(rb"/v2/models/([A-Za-z0-9._~-]+)(?:/versions/([A-Za-z0-9._~-]+))?/infer")
_MOST_ROUNDS = 4  # of the loop that requests wait for others while more of them come
_MOST_TOGETHER = 32  # that wait so
_SHORT_S = 0.1  # for a body: only where it takes longer is it looked whether the caller's token has expired meanwhile
_UNUSUAL = frozenset({b"expect", b"upgrade", b"transfer-encoding", b"content-encoding"})
_INTERNAL = b'{"error":"internal error; the server\'s log has the details"}'


class DirectInfer:
    """Answers infer requests that come without ASGI. For the loop's thread, but for replies.

    Args:
        router: finds the handler.
        refuses: why an HTTP request is refused, by its path, its headers and the state of its connection; None: it
            is not. The application tells those.
        requests: reads requests.
        responses: writes replies.
        compression: of replies.
        limit: bytes of a body.
    """

    def __init__(
        self,
        router: Router,
        refuses: Callable[[str, RawHeaders, Any], object | None],
        requests: InferRequests,
        responses: InferResponses,
        compression: Compression,
        *,
        limit: int,
    ) -> None:
        self._router = router
        self._refuses = refuses
        self._requests = requests
        self._responses = responses
        self._compression = compression
        self._most_bytes = min(limit, MOST_BYTES)
        self._thread = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: list[DirectCall] = []
        self._waited = self._rounds = 0
        self._round_ends = False  # it is to be told
        self._replies: deque[tuple[DirectCall, Status, bytes]] = deque()
        self._loop_told = False

    def head(self, url: bytes, headers: RawHeaders, state: Any) -> Head | None:
        """What is known of requests with this path and these headers; None where the application answers them.

        Args:
            url: of a POST in HTTP/1.1 whose connection is to go on.
            headers: names in lower case.
            state: of the connection.
        """
        path = _PATH.fullmatch(url)
        names = [name for name, _ in headers]
        if path is None or names.count(b"content-length") != 1 or not _UNUSUAL.isdisjoint(names):
            return None
        if self._refuses(url.decode("ascii"), headers, state) is not None:  # guard: direct-refused
            return None
        named = [(name, value) for name, value in headers if name != b"content-length"]
        metadata = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in named]
        return Head(
            url,
            list(headers),
            names.index(b"content-length"),
            path[1].decode(),
            (path[2] or b"").decode(),
            next((value for name, value in metadata if name == HEADER_LENGTH), None),
            metadata,
        )

    def begin(self, head: Head, size: int, connection: Connection) -> DirectCall | None:
        """The call of a request whose head has come; None where the application answers it.

        It does where the body is too long for this way, and where the caller may not infer: then it does not wait for
        the body.

        Args:
            head: of it.
            size: of its body.
            connection: that brought it.
        """
        if size > self._most_bytes:  # guard: direct-short
            return None
        if self._loop is None:
            self._loop, self._thread = connection.loop, threading.get_ident()
        access = self._router.access
        policy = None if access is None else access.policy  # first: another one may decide from the next moment on
        if access is not None and not self._may_infer(head, connection, access):  # guard: direct-access
            return None
        call = DirectCall(head, connection, self._router.received(INFER, head.metadata), self._replied)
        call.policy, call.began_at = policy, connection.now
        return call

    def _may_infer(self, head: Head, connection: Connection, access: Access) -> bool:
        try:
            access.check(INFER, head.metadata, partial(_certificate_names, connection))
        except ServingError:  # which the application tells, and counts
            return False
        return True

    def _refuses_late(self, call: DirectCall) -> Status | None:
        """The status for a call whose caller may not infer any more, now that the body is there; None where it may.

        A body may take seconds: another policy may decide by now, and a token may have expired.
        """
        access = self._router.access
        if access is None or (access.policy is call.policy and call.came_at - call.began_at < _SHORT_S):
            return None
        return self._router.refuses_still(INFER, call.metadata, partial(_certificate_names, call.connection))

    def came(self, call: DirectCall) -> None:
        """The request has come whole: it is handled with those that come in the same round of the loop."""
        call.came_at = call.connection.now
        waiting = self._waiting
        waiting.append(call)
        if len(waiting) >= _MOST_TOGETHER:
            self._handle_waiting()
        elif not self._round_ends:
            self._round_ends = True
            call.connection.loop.call_soon(self._end_of_round)

    def gone(self, call: DirectCall) -> None:
        """The client of a call that has no reply yet has gone."""
        call.cancelled()  # guard: direct-cancelled

    def _end_of_round(self) -> None:
        """Handle what waits, unless more has come in this round: the next may bring the rest of a burst."""
        count = len(self._waiting)
        if 1 < count != self._waited and self._rounds < _MOST_ROUNDS:
            self._waited, self._rounds = count, self._rounds + 1
            self._waiting[0].connection.loop.call_soon(self._end_of_round)
        else:
            self._round_ends = False
            self._handle_waiting()

    def _handle_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._waited = self._rounds = 0
        for call in waiting:
            if not call.disconnected:
                self._handle(call)

    def _handle(self, call: DirectCall) -> None:
        head, pieces = call.head, call.pieces
        call.pieces = []  # the connection keeps its last call, and should not keep what that sent
        if self._router.access is not None and (late := self._refuses_late(call)):  # guard: direct-late-revoked
            call.abort(late)
            return
        try:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            message, call.wanted = self._requests.read(body, head.stated, model=head.model, version=head.version)
        except Exception as error:
            if not isinstance(error, ServingError):
                logger.error("unexpected error in an HTTP request for %s", INFER, exc_info=error)
            call.fail(error)
        else:
            call.waited_s = time.monotonic() - call.came_at  # guard: direct-waited
            self._router.handle(call, message)

    def _replied(self, call: DirectCall, status: Status, message: bytes) -> None:
        """Take an outcome to the loop's thread; one wake-up does for all that are there when it comes."""
        if threading.get_ident() == self._thread:
            self._reply(call, status, message)
            return
        self._replies.append((call, status, message))
        if not self._loop_told and self._loop is not None:
            self._loop_told = True
            with suppress(RuntimeError):  # the loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(self._reply_to_all)

    def _reply_to_all(self) -> None:
        self._loop_told = False  # first: what is added from now on may come too late for this
        while self._replies:
            self._reply(*self._replies.popleft())

    def _reply(self, call: DirectCall, status: Status, message: bytes) -> None:
        if call.disconnected:
            return
        try:
            code, lines, body = self._response(call, status, message)
        except Exception:
            logger.exception("a reply to an HTTP request could not be written")
            code, lines, body = 500, reply_lines(None), _INTERNAL
        call.connection.reply(code, lines, body)

    def _response(self, call: DirectCall, status: Status, message: bytes) -> tuple[int, bytes, bytes]:
        """The code of the reply, the lines of its headers but for the length, and its body."""
        if status is not OK or call.wanted is None:
            return _refused(status)
        try:
            body, json_bytes = self._responses.write(message, call.wanted)
        except InvalidRequestError as error:
            return _refused(status_of(error))
        lines = reply_lines(json_bytes)
        if self._compression.compresses:
            body, more = self._compression.apply(body, Headers(raw=list(call.head.headers)))
            lines += header_lines([(name.encode("latin-1"), value.encode("latin-1")) for name, value in more.items()])
        return 200, lines, body


def _certificate_names(connection: Connection) -> Iterable[str]:
    """What the verified certificate of a connection says."""
    names: Iterable[str] = connection.app_state.get("certificate_names", ())
    return names


def _refused(status: Status) -> tuple[int, bytes, bytes]:
    response = refusal(status)
    lines = header_lines([one for one in response.raw_headers if one[0] != b"content-length"])
    return response.status_code, lines, response.body
