"""What can go wrong with a call, and what each gRPC status becomes: below a class, further right, its kinds.

    InferryError
        ServerUnavailableError
            CertificateError
        OverloadedError, DeadlineExceededError, RequestCancelledError
        ModelNotFoundError, NotAllowedError, UnsupportedError
        InvalidRequestError
            InvalidSettingError
        ServerError, ReplyError

Callers never see an error of gRPC's: `error_from_status` makes these of its statuses.
"""

import re


class InferryError(Exception):
    """A call that got no answer; the message names the server, what was asked and what to do.

    Attributes:
        address: of the server; empty where the request never left.
        asked: what the caller wanted (`classify 2 pictures with model 'mnist'`).
        details: the server's or the transport's own words.
        retryable: whether the same request may succeed later.
        retry_after_s: when the server wants to be asked again; None where it did not say.
        request_id: as the caller gave it; empty where it gave none.
    """

    retryable: bool = False
    retry_after_s: float | None = None
    request_id: str = ""

    def __init__(self, message: str, *, address: str = "", asked: str = "", details: str = "") -> None:
        super().__init__(message)
        self.address = address
        self.asked = asked
        self.details = details


class ServerUnavailableError(InferryError):
    """No server answers at the address, or it is starting, draining, stopped or has no version ready.

    Attributes:
        unreached: no server was there to see the request.
        unseen: the connection ended in good order before the server looked at the request.
    """

    retryable = True
    unreached: bool = False
    unseen: bool = False


class CertificateError(ServerUnavailableError):
    """A server is there, but TLS was not agreed upon: a certificate, a name or a setting is wrong."""

    retryable = False


class OverloadedError(InferryError):
    """The server is up, but its queue is full; it may say when to ask again (`retry_after_s`)."""

    retryable = True


class DeadlineExceededError(InferryError):
    """No answer within the timeout, or the server saw that it could not be met.

    Attributes:
        silent: no word came from the server.
    """

    retryable = True
    silent: bool = False


class ModelNotFoundError(InferryError):
    """The server has no such model or version."""


class InvalidRequestError(InferryError):
    """The request can never succeed: a wrong shape, an unreadable picture, a message too large."""


class InvalidSettingError(InvalidRequestError, ValueError):
    """An argument that is no such value, or out of its range; nothing was sent."""


class NotAllowedError(InferryError):
    """The server's settings or the caller's credentials forbid it."""


class UnsupportedError(InferryError):
    """The server does not have this RPC."""


class RequestCancelledError(InferryError):
    """The client was closed before the request was answered."""


class ServerError(InferryError):
    """The server failed while answering; its log says more."""


class ReplyError(InferryError):
    """The reply does not follow the protocol."""


# Status code -> class, and what to do about it where the server's own words do not say.
_ADVICE: dict[str, tuple[type[InferryError], str]] = {
    "NOT_FOUND": (ModelNotFoundError, "`inferry models --server {address}` lists what it serves"),
    "INVALID_ARGUMENT": (InvalidRequestError, ""),
    "OUT_OF_RANGE": (InvalidRequestError, ""),
    "FAILED_PRECONDITION": (NotAllowedError, "change the server's settings"),
    "UNAUTHENTICATED": (NotAllowedError, "give valid credentials"),
    "PERMISSION_DENIED": (NotAllowedError, "ask for the permission"),
    "UNIMPLEMENTED": (UnsupportedError, "check that an Inferry server listens there"),
    "CANCELLED": (ServerUnavailableError, "it was stopped; ask again when it is back"),
    "UNAVAILABLE": (ServerUnavailableError, "ask again when it is ready"),
    "RESOURCE_EXHAUSTED": (OverloadedError, "ask again later, or for less at a time"),
}
_OTHERS = (ServerError, "the server's log says more")

_WRAPPED = re.compile(r"Stream removed \((.*)\)", re.DOTALL)  # gRPC's words, where it does not send again itself
_MILLISECONDS = re.compile(r"[0-9]{1,8}")  # up to some 28 hours; who asks for more is not believed

# How gRPC itself begins its words where no server was reached or looked; a server's own words never do.
_NO_TARGET = ("Failed to create channel to", "Illegal status code from resolver")
_UNSEEN = "GOAWAY received"
_UNREACHED = ("failed to connect", "errors resolving", "DNS resolution failed", "connections to all backends failing")


def error_from_status(
    code: str,
    details: str,
    *,
    address: str,
    asked: str,
    timeout_s: float,
    pushback: str | None = None,
    closed: bool = False,
    encrypted: bool = False,
) -> InferryError:
    """The error that a call ends with.

    A server that stops ends calls that arrived, but were not handed to it yet, as CANCELLED: the
    same as UNAVAILABLE to a client that did not cancel them.

    Args:
        code: the name of the gRPC status (`NOT_FOUND`).
        details: the status's message.
        address: of the server.
        asked: what was wanted, as an infinitive without `to`.
        timeout_s: what the call was given.
        pushback: `grpc-retry-pushback-ms` as it came: when to ask again. What is no number of
            milliseconds (-1 above all) forbids it, as gRPC has it.
        closed: whether the client was closed, which cancels its calls.
        encrypted: whether the client used TLS.
    """
    if wrapped := _WRAPPED.fullmatch(details):  # guard: client-unwrapped
        details = wrapped[1]
    error = _find_error(code, details, address=address, asked=asked, timeout_s=timeout_s, closed=closed)
    if isinstance(error, ServerUnavailableError) and error.unreached:
        error = _explain_tls(error, encrypted=encrypted)
    if pushback is not None and error.retryable:
        error.retryable = _MILLISECONDS.fullmatch(pushback) is not None  # guard: client-forbidden
        error.retry_after_s = int(pushback) / 1000 if error.retryable else None
    return error


def _find_error(code: str, details: str, *, address: str, asked: str, timeout_s: float, closed: bool) -> InferryError:
    known = {"address": address, "asked": asked, "details": details}
    if code == "CANCELLED" and closed:
        return error_from_closing(address=address, asked=asked)
    if code == "DEADLINE_EXCEEDED":
        said = "" if details in ("", "Deadline Exceeded") else f" ({details})"
        late = DeadlineExceededError(
            f"{address} did not {asked} within {timeout_s:g} s{said}; allow more time or send less", **known
        )
        late.silent = not said
        return late
    if code == "UNAVAILABLE" and "Failed parsing HTTP/2" in details:
        return _unreached(f"what answers at {address} does not speak gRPC; check the port", **known)
    if code == "INTERNAL" and details == "Exception deserializing response!":  # what gRPC says of bytes it cannot read
        return error_from_reply("it is no message of this protocol", address=address, asked=asked)
    if details.startswith(_NO_TARGET):
        return InvalidRequestError(f"{address} is no address that gRPC can use: {details}; check the address", **known)
    if code == "UNAVAILABLE" and details.startswith(_UNREACHED):
        message = f"no server answers at {address}: {_last_cause(details)}; check the address and that it is running"
        return _unreached(message, **known)
    error_class, advice = _ADVICE.get(code, _OTHERS)
    if code == "RESOURCE_EXHAUSTED" and "larger than max" in details:  # a size limit is no overload
        error_class, advice = InvalidRequestError, "send less at a time"
    said = details or f"status {code} without a message"
    todo = f"; {advice.format(address=address)}" if advice else ""
    error = error_class(f"{address} could not {asked}: {said}{todo}", **known)
    if isinstance(error, ServerUnavailableError):
        error.unseen = details.startswith(_UNSEEN)
    return error


def error_from_closing(*, address: str, asked: str) -> RequestCancelledError:
    """The error of a call that the client's end cut short or came before."""
    message = f"the client of {address} was closed before it could {asked}; ask with an open one"
    return RequestCancelledError(message, address=address, asked=asked)


def error_from_other_loop(*, address: str, asked: str) -> InvalidRequestError:
    """The error of a call on another event loop than the client's."""
    message = f"the AsyncClient of {address} cannot {asked} on this event loop: it belongs to that of its first call"
    return InvalidRequestError(f"{message}; make one for each loop", address=address, asked=asked)


def error_from_fork(*, address: str, asked: str) -> InvalidRequestError:
    """The error of an AsyncClient's call in the child of a process that had one open."""
    message = (
        f"the AsyncClient of {address} cannot {asked} in this process: its parent forked while gRPC's asyncio was in "
        "use there, which the child lacks; fork before the first AsyncClient opens or after the last is closed, "
        "start processes by multiprocessing's 'spawn' or 'forkserver', or use Client"
    )
    return InvalidRequestError(message, address=address, asked=asked)


def error_from_silence(*, asked: str, timeout_s: float) -> DeadlineExceededError:
    """The error of a call whose time was up while it waited in the client."""
    message = f"the server did not {asked} within {timeout_s:g} s; allow more time or send less"
    error = DeadlineExceededError(message, asked=asked)
    error.silent = True
    return error


def error_from_reply(problem: str, *, address: str, asked: str) -> ReplyError:
    """The error of a reply that cannot be read."""
    message = f"{address} answered the request to {asked} wrongly: {problem}; check that it speaks this protocol"
    return ReplyError(message, address=address, asked=asked, details=problem)


def _unreached(message: str, **known: str) -> ServerUnavailableError:
    error = ServerUnavailableError(message, **known)
    error.unreached = True
    return error


# What gRPC says where TLS fails, and what that means.
_TLS_PROBLEMS = {
    "CERTIFICATE_VERIFY_FAILED": (
        "the certificate of {address} is not trusted ({cause}); give with `ca` the authority that issued it"
    ),
    "Hostname Verification Check failed": (
        "the certificate of {address} is for another name; give with `server_name` the name that it is for"
    ),
    "WRONG_VERSION_NUMBER": (
        "{address} answers without TLS; leave TLS out (`tls`, `ca`, `certificate`), or check the port"
    ),
    "Failed to create security handshaker": (
        "the client's certificate cannot be used; give the `private_key` that belongs to `certificate`"
    ),
}
_VERIFICATION = re.compile(r"CERTIFICATE_VERIFY_FAILED: ([^:]+)")


def _explain_tls(error: ServerUnavailableError, *, encrypted: bool) -> ServerUnavailableError:
    known = {"address": error.address, "asked": error.asked, "details": error.details}
    for words, meaning in _TLS_PROBLEMS.items():
        if words in error.details:
            found = _VERIFICATION.search(error.details)
            wrong = CertificateError(meaning.format(address=error.address, cause=found[1] if found else ""), **known)
            wrong.unreached = True
            return wrong
    if error.details.endswith("Socket closed"):  # it hung up, which may mean this, or only that it was stopped
        guess = "it may not accept the client's certificate" if encrypted else "it may expect TLS (`tls` or `ca`)"
        return _unreached(f"{error}; {guess}", **known)
    return error


def _last_cause(details: str) -> str:
    """`Connection refused` out of gRPC's chain of causes, each introduced by a colon."""
    return details.rsplit(": ", 1)[-1].rsplit(":", 1)[-1].strip("[] ") or details
