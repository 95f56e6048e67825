"""The body of a request, within its limit also where it comes compressed."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers

from inferry_server.errors import DecodingError, QueueFullError, RequestTooLargeError, UnsupportedEncodingError

Receive = Callable[[], Awaitable[Any]]

ENCODINGS = ("gzip", "deflate")
"""How bodies may be compressed."""

_GZIP = 16 + zlib.MAX_WBITS
_WINDOWS = {"gzip": _GZIP, "deflate": zlib.MAX_WBITS, "x-gzip": _GZIP}  # RFC 9110: x-gzip is gzip
_MOST_DIGITS = 19
_LONGEST_NAME = 200
_RETRY_BODIES_S = 0.1
_PIECE_BYTES = 1 << 20  # decompressed at once; other requests are looked at in between


class ClientGoneError(Exception):
    """The client has gone before its request was whole."""


class BodyBudget:
    """Bytes of bodies that are being read, of all connections together. For the loop's thread.

    Without it, as many bodies as there are connections could each be as large as a message may be.

    Args:
        limit: bytes of one body, compressed and decompressed.
        most: bytes of all of them.
    """

    def __init__(self, *, limit: int, most: int) -> None:
        self.limit = limit
        self._most = most
        self._taken = 0

    def take(self, size: int) -> None:
        """Bytes have come. Raises QueueFullError where there is no room for them."""
        if self._taken + size > self._most:  # guard: http-bodies-bounded
            raise QueueFullError(
                "body bytes", limit=self._most, actual=self._taken + size, retry_after_s=_RETRY_BODIES_S
            )
        self._taken += size

    def give_back(self, size: int) -> None:
        """They are read, or given up."""
        self._taken -= size


class _Account:
    """What one body has taken of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.size = 0

    def take(self, size: int) -> None:
        self._budget.take(size)
        self.size += size

    def give_back(self) -> None:
        self._budget.give_back(self.size)


async def read_body(headers: Headers, receive: Receive, budget: BodyBudget) -> bytes:
    """The body of a request, decompressed.

    Args:
        headers: of the request.
        receive: tells what came on its connection.
        budget: what it may have, and all bodies together.

    Raises:
        QueueFullError: other bodies take all the room there is.
        RequestTooLargeError: more bytes come, or would.
        DecodingError: bytes that are not as they are said to be compressed.
        UnsupportedEncodingError: a compression that this server does not know; nothing is read.
        ClientGoneError: it has not come whole.
    """
    stated = read_length(headers.get("content-length", ""))
    if stated is not None and stated > budget.limit:  # guard: http-body-stated
        raise _too_large(f"{stated} bytes are announced", budget.limit)
    encoding = _encoding(headers)
    account = _Account(budget)
    try:
        body = await _read(receive, budget.limit, account)
        return await _decompress(body, encoding, budget.limit, account) if encoding else body
    finally:
        account.give_back()


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
