"""Replies over HTTP: JSON, errors, and how the client wants them compressed."""

import gzip
import json
import zlib
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response

from inferry_server.http.accepting import accepts
from inferry_server.http.bodies import ENCODINGS
from inferry_server.http.statuses import http_code, retry_headers
from inferry_server.rpc.statuses import Status

_COMPRESS = {"gzip": lambda body: gzip.compress(body, 1), "deflate": lambda body: zlib.compress(body, 1)}
_TOO_LARGE, _UNSUPPORTED, _UNAUTHENTICATED = 413, 415, 401


def json_reply(value: Any, code: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON body."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Response(body, code, {"content-type": "application/json", **(headers or {})})


def refusal(status: Status) -> Response:
    """The reply for any status but OK: `error`, as the protocol has it, and when to come back."""
    code = http_code(status)
    headers = retry_headers(status)
    if code == _TOO_LARGE:
        headers["connection"] = "close"  # the rest of the body is not read
    if code == _UNSUPPORTED:
        headers["accept-encoding"] = ", ".join(ENCODINGS)  # RFC 9110, 12.5.3: what would have been taken
    if code == _UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    return json_reply({"error": status.message}, code, headers)


class Compression:
    """Compresses replies as the server's setting says, for clients that accept it.

    Args:
        algorithm: `gzip`, `deflate` or `none`.

    Attributes:
        compresses: whether it depends on the request how a reply is sent.
    """

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self.compresses = algorithm in _COMPRESS

    def apply(self, body: bytes, headers: Headers) -> tuple[bytes, dict[str, str]]:
        """The body as it is sent, and the headers for that.

        Args:
            body: not compressed.
            headers: of the request.
        """
        compress = _COMPRESS.get(self._algorithm)
        if compress is None:
            return body, {}
        if not accepts(self._algorithm, headers.getlist("accept-encoding")):
            return body, {"vary": "accept-encoding"}
        return compress(body), {"content-encoding": self._algorithm, "vary": "accept-encoding"}
