"""The body of a request, within its limit also where it comes compressed."""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from inferry_server.errors import DecodingError, InvalidRequestError, RequestTooLargeError

Receive = Callable[[], Awaitable[Any]]

_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_MOST_DIGITS = 19
_PIECE_BYTES = 1 << 20  # decompressed at once; other requests are looked at in between


class ClientGoneError(Exception):
    """The client has gone before its request was whole."""


async def read_body(headers: Mapping[str, str], receive: Receive, *, limit: int) -> bytes:
    """The body of a request, decompressed.

    Args:
        headers: of the request.
        receive: tells what came on its connection.
        limit: bytes that it may have, compressed and decompressed.

    Raises:
        RequestTooLargeError: more bytes come, or would.
        DecodingError: bytes that are not as they are said to be compressed.
        InvalidRequestError: a compression that this server does not know.
        ClientGoneError: it has not come whole.
    """
    stated = read_length(headers.get("content-length", ""))
    if stated is not None and stated > limit:  # guard: http-body-stated
        raise _too_large(f"{stated} bytes are announced", limit)
    body = await _read(receive, limit)
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in _WINDOWS:
        raise InvalidRequestError(
            f"content-encoding {encoding!r} is not known here; expected {', '.join(_WINDOWS)} or none"
        )
    return await _decompress(body, encoding, limit)


def read_length(text: str) -> int | None:
    """A number of bytes as headers state it; None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


async def _read(receive: Receive, limit: int) -> bytes:
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
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _decompress(body: bytes, encoding: str, limit: int) -> bytes:
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
