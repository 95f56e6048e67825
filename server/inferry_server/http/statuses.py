"""What gRPC's statuses are over HTTP."""

import math

import grpc

from inferry_server.errors import RequestTooLargeError, UnsupportedEncodingError
from inferry_server.rpc.statuses import Status

_CODES = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,  # nobody reads it: the client has gone
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
FOREIGN_HOST = "foreign_host"
"""The reason of a request that names another host than this server."""

_REASONS = {  # before the code
    FOREIGN_HOST: 421,
    RequestTooLargeError.kind: 413,  # coming back later does not help
    UnsupportedEncodingError.kind: 415,
}
_PUSHBACK = "grpc-retry-pushback-ms"


def http_code(status: Status) -> int:
    """The HTTP status code; 500 for what the table does not have."""
    return _REASONS.get(status.reason) or _CODES.get(status.code, 500)


def retry_headers(status: Status) -> dict[str, str]:
    """When to come back: in whole seconds, as HTTP has it, and in milliseconds, as gRPC's clients are told."""
    return {
        name: value
        for key, text in status.trailing_metadata
        if key == _PUSHBACK
        for name, value in ((key, text), ("retry-after", str(math.ceil(int(text) / 1e3))))
    }
