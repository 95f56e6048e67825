"""The body of a request, within its limit also where it comes compressed."""

import asyncio
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers

from inferry_server.errors import (
    DecodingError,
    QueueFullError,
    RequestTooLargeError,
    SlowBodyError,
    UnsupportedEncodingError,
)

Receive = Callable[[], Awaitable[Any]]

ENCODINGS = ("gzip", "deflate")
"""How bodies may be compressed."""

_GZIP = 16 + zlib.MAX_WBITS
_WINDOWS = {"gzip": _GZIP, "deflate": zlib.MAX_WBITS, "x-gzip": _GZIP}  # RFC 9110: x-gzip is gzip
_MOST_DIGITS = 19
_LONGEST_NAME = 200
_RETRY_BODIES_S = 0.1
_SLOW_AFTER_S, _STEADY_BYTES_PER_S = 2.0, 1 << 20
_PIECE_BYTES = 1 << 20  # decompressed at once; other requests are looked at in between


class ClientGoneError(Exception):
    """The client has gone before its request was whole."""


class BodyBudget:
    """Bytes of bodies that are being read, of all connections together. For the loop's thread.

    Without it, as many bodies as there are connections could each be as large as a message may be. Where there is no
    room for more, a body that comes slowly is given up, the one that has held the most bytes for the longest: else a
    few clients who send nearly all of theirs, and the rest as slowly as they may, would have all others refused. Where
    all of them come fast, they will soon be gone, and the one that comes last is refused.

    Args:
        limit: bytes of one body, compressed and decompressed.
        most: bytes of all of them.
        clock: monotonic seconds.
    """

    def __init__(self, *, limit: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self.most = most
        self._clock = clock
        self._taken = 0
        self._coming: dict[_Account, None] = {}

    @contextmanager
    def account(self) -> Iterator["_Account"]:
        """What one body takes, inside."""
        account = _Account(self, self._clock())
        self._coming[account] = None
        try:
            yield account
        finally:
            self._coming.pop(account, None)
            self._taken -= account.size

    def take(self, account: "_Account", size: int) -> None:
        """Bytes of a body have come. Raises QueueFullError where there is no room for them."""
        while self._taken + size > self.most:  # guard: http-bodies-bounded
            now = self._clock()
            slow = [one for one in self._coming if one is not account and one.is_slow(now)]
            if not slow:  # guard: http-bodies-slowest
                raise QueueFullError(
                    "body bytes", limit=self.most, actual=self._taken + size, retry_after_s=_RETRY_BODIES_S
                )
            costliest = max(slow, key=lambda one: one.cost(now))
            del self._coming[costliest]
            self._taken -= costliest.size
            costliest.give_up()
        self._taken += size
        account.size += size

    def came(self, account: "_Account") -> None:
        """A body has come whole: it is not given up any more."""
        self._coming.pop(account, None)


class _Account:
    """What one body has taken of the budget, while the task that makes this waits for the rest of it.

    Attributes:
        size: bytes that it holds.
        is_given_up: whether others had more need of its room; its task is cancelled then.
    """

    def __init__(self, budget: BodyBudget, since: float) -> None:
        self.size = 0
        self.is_given_up = False
        self._budget = budget
        self._since = since
        self._task = asyncio.current_task()

    def cost(self, now: float) -> float:
        """Byte seconds that it has taken."""
        return self.size * (now - self._since)

    def is_slow(self, now: float) -> bool:
        """Whether it has come more slowly than what is worth waiting for while others have no room."""
        return now - self._since > _SLOW_AFTER_S + self.size / _STEADY_BYTES_PER_S

    def take(self, size: int) -> None:
        """Bytes have come. Raises as that of the budget."""
        self._budget.take(self, size)

    def came(self) -> None:
        """All of it has come."""
        self._budget.came(self)

    def give_up(self) -> None:
        """Have its task end: what it holds is counted no more."""
        self.size = 0
        self.is_given_up = True
        if self._task is not None:
            self._task.cancel()

    def is_told(self) -> bool:
        """Whether its task was cancelled for this reason alone, which it is told by an error instead."""
        return self.is_given_up and self._task is not None and not self._task.uncancel()


async def read_body(headers: Headers, receive: Receive, budget: BodyBudget) -> bytes:
    """The body of a request, decompressed.

    Args:
        headers: of the request.
        receive: tells what came on its connection.
        budget: what it may have, and all bodies together.

    Raises:
        QueueFullError: other bodies take all the room there is, or need that of this one, which comes too slowly.
        RequestTooLargeError: more bytes come, or would.
        DecodingError: bytes that are not as they are said to be compressed.
        UnsupportedEncodingError: a compression that this server does not know; nothing is read.
        ClientGoneError: it has not come whole.
    """
    stated = read_length(headers.get("content-length", ""))
    if stated is not None and stated > budget.limit:  # guard: http-body-stated
        raise _too_large(f"{stated} bytes are announced", budget.limit)
    encoding = _encoding(headers)
    with budget.account() as account:
        try:
            body = await _read(receive, budget.limit, account)
        except asyncio.CancelledError:
            if account.is_told():
                raise SlowBodyError(limit=budget.most, retry_after_s=_RETRY_BODIES_S) from None
            raise
        account.came()
        return await _decompress(body, encoding, budget.limit, account) if encoding else body


def _encoding(headers: Headers) -> str:
    """How the body is compressed; empty where it is not. Headers of one name are one list (RFC 9110, 5.3)."""
    codings = ",".join(headers.getlist("content-encoding")).lower().split(",")
    named = [coding for coding in map(str.strip, codings) if coding not in ("", "identity")]
    if not named:
        return ""
    if len(named) > 1 or named[0] not in _WINDOWS:  # guard: http-encoding-known
        raise UnsupportedEncodingError(
            f"content-encoding {', '.join(named)[:_LONGEST_NAME]!r} is not known here; expected one of "
            f"{', '.join(ENCODINGS)}, or none"
        )
    return named[0]


def read_length(text: str) -> int | None:
    """A number of bytes as headers state it; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


async def _read(receive: Receive, limit: int, account: _Account) -> bytes:
    pieces: list[bytes] = []
    size, more = 0, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise ClientGoneError
        pieces.append(event.get("body", b""))
        size += len(pieces[-1])
        more = event.get("more_body", False)
        if size > limit:  # guard: http-body-read
            raise _too_large("more came", limit)
        account.take(len(pieces[-1]))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _decompress(body: bytes, encoding: str, limit: int, account: _Account) -> bytes:
    stream = zlib.decompressobj(_WINDOWS[encoding])
    pieces: list[bytes] = []
    size = 0
    try:
        while not stream.eof:
            piece = stream.decompress(body, _PIECE_BYTES)
            body = stream.unconsumed_tail
            pieces.append(piece)
            size += len(piece)
            if size > limit:  # guard: http-body-decompressed
                raise _too_large(f"the {encoding} body is larger", limit)
            account.take(len(piece))
            if not piece and not body and not stream.eof:
                raise DecodingError(f"the {encoding} body is cut off after {size} decompressed bytes")
            await asyncio.sleep(0)
    except zlib.error as error:
        raise DecodingError(f"the body is not {encoding}, as content-encoding says: {error}") from error
    if stream.unused_data:
        raise DecodingError(f"{len(stream.unused_data)} bytes follow the end of the {encoding} body")
    return b"".join(pieces)


def _too_large(what: str, limit: int) -> RequestTooLargeError:
    return RequestTooLargeError(f"the request is too large: {what}, and max_message_bytes is {limit}")
