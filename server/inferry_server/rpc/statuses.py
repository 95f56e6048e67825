"""The one table from errors to gRPC statuses."""

from dataclasses import dataclass, field
from functools import lru_cache

import grpc

from inferry_server import errors

Metadata = tuple[tuple[str, str], ...]

# The first class that matches decides, so subclasses come before their bases.
CODES: tuple[tuple[type[errors.ServingError], grpc.StatusCode], ...] = (
    (errors.InvalidRequestError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotAllowedError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.UnsupportedModelError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.NotOfferedError, grpc.StatusCode.UNIMPLEMENTED),
    (errors.RegionNotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ModelNotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.ModelNotReadyError, grpc.StatusCode.UNAVAILABLE),
    (errors.ShuttingDownError, grpc.StatusCode.UNAVAILABLE),
    (errors.RequestTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.ShedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.QueueFullError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.DeadlineExceededError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.ModelLoadError, grpc.StatusCode.INTERNAL),
    (errors.DeviceOutOfMemoryError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.DeviceLostError, grpc.StatusCode.UNAVAILABLE),
    (errors.InferenceError, grpc.StatusCode.INTERNAL),
    (errors.StartError, grpc.StatusCode.INTERNAL),
    (errors.UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (errors.PermissionDeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.RequestNotReceivedError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.StreamIdleError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.TooManyOpenCallsError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.MemoryShortError, grpc.StatusCode.RESOURCE_EXHAUSTED),
)


@dataclass(frozen=True)
class Status:
    """How an RPC ended: code, message for the caller, trailing metadata.

    Attributes:
        reason: the kind of error, for metrics and traces; empty where there was none.
        code_name: the code's, which an enum takes its time to tell.
    """

    code: grpc.StatusCode
    message: str = ""
    trailing_metadata: Metadata = ()
    reason: str = ""
    code_name: str = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "code_name", self.code.name)


OK = Status(grpc.StatusCode.OK)
CANCELLED = Status(grpc.StatusCode.CANCELLED)


def status_of(error: Exception) -> Status:
    """The status a caller gets for an error; what is not a ServingError stays inside as `internal error`."""
    for error_type, code in CODES:
        if isinstance(error, error_type):
            return Status(code, _shortened(str(error)), _pushback(error), error.kind)
    return Status(
        grpc.StatusCode.INTERNAL, "internal error; the server's log has the details", reason="unexpected_error"
    )


def unknown_method(path: str) -> Status:
    """For a method that no service has."""
    return Status(
        grpc.StatusCode.UNIMPLEMENTED,
        f"there is no method {path}; reflection lists those there are",
        reason="unknown_method",
    )


@lru_cache(maxsize=64)  # it is asked for where every microsecond counts, and always with the time of one batch
def shed(retry_after_s: float) -> Status:
    """For a call that was refused unread: as one that is refused for its queue, with the same advice."""
    return Status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "more requests come than can be computed; this one was not read",
        _retry_after(retry_after_s),
        errors.ShedError.kind,
    )


def no_message(path: str) -> Status:
    """For a unary call whose client sent no message; the code is the one that gRPC's list of statuses has for it."""
    return Status(
        grpc.StatusCode.UNIMPLEMENTED, f"{path} takes exactly one request message; none came", reason="no_message"
    )


def _shortened(message: str) -> str:
    """Names may be as long as a message; clients refuse a status above some 8 KiB, and tell of that instead."""
    if len(message) <= _LONGEST_MESSAGE:
        return message
    half = _LONGEST_MESSAGE // 2  # what was expected stands at the end
    return f"{message[:half]} ... {message[-half:]}"


_LONGEST_MESSAGE = 1024  # characters, up to four bytes each


_WITH_ADVICE = (
    errors.QueueFullError,
    errors.OverloadedError,
    errors.ShedError,
    errors.DeviceOutOfMemoryError,
    errors.TooManyOpenCallsError,
    errors.MemoryShortError,
)


def _pushback(error: errors.ServingError) -> Metadata:
    """What gRPC clients with a retry policy wait before they try again (gRFC A6)."""
    if isinstance(error, _WITH_ADVICE):  # guard: overload-caller-hears
        return _retry_after(error.retry_after_s)
    return ()


def _retry_after(seconds: float) -> Metadata:
    return (("grpc-retry-pushback-ms", str(max(1, round(seconds * 1e3)))),)
