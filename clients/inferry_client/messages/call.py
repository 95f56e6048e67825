"""One RPC to be made, as requests build it and transports make it, and what callers may say of every one."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from google.protobuf.message import Message

from inferry_client.errors import InvalidRequestError
from inferry_client.limits import MAX_MESSAGE_BYTES, check_kind, check_seconds
from inferry_proto.services import Method

Result = TypeVar("Result")

_METADATA_KEY = re.compile(r"[0-9a-z_.-]+")


class CallOptions(TypedDict, total=False):
    """What every call may be given.

    Attributes:
        timeout_s: of this call, retries included; the client's where it is left out.
        metadata: what travels beside the request, as gRPC's keys and values.
        traceparent: the W3C trace context that the server's spans belong to.
    """

    timeout_s: float
    metadata: Mapping[str, str | bytes]
    traceparent: str


class Unbuilt(Protocol):
    """A request that is built when it is first asked for: a call that travels with others never needs its own.

    Both methods raise InvalidRequestError where it holds what the protocol cannot carry.
    """

    def build(self) -> Message:
        """The message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - as messages call it, so nobody asks which of them it is
        """The message as it travels, without being built where that costs less."""


@dataclass(frozen=True)
class Pieces(Generic[Result]):
    """How a request is cut into smaller ones where a server takes fewer rows a request.

    Attributes:
        model: its name.
        version: as asked for.
        count: rows or pictures of the request.
        cut: the call of some of them (start, stop, version).
        join: one result out of those of the parts, in order.
    """

    model: str
    version: str
    count: int
    cut: "Callable[[int, int, str], Call[Result]]"
    join: Callable[[Sequence[Result]], Result]


@dataclass(frozen=True, slots=True, eq=False)  # by identity: each joined call looks up the calls that wait with it
class Joint:
    """How requests are joined: those of calls that have the same object may travel together.

    Attributes:
        merge: the call of several calls' messages, in order, with its timeout.
        split: a result for each, in order, out of the one of all: how many rows each has.
    """

    merge: "Callable[[Sequence[Any], float], Call[Any]]"
    split: Callable[[Any, Sequence[int]], Sequence[Any]]


@dataclass(slots=True)  # not frozen, which would cost every call a microsecond; nobody changes one
class Call(Generic[Result]):
    """One RPC to be made, on whatever transport.

    Attributes:
        method: where it is called.
        message: what is sent.
        read: turns the reply message into the result; ValueError: it breaks the protocol.
        asked: what the caller wants, for messages (`describe model 'mnist'`).
        timeout_s: None for the client's.
        metadata: keys and values beside the request.
        pieces: how to cut it; None where it is one row, or cannot be cut.
        joint: how to join it with others; None where it must travel alone.
        model: that is asked, and its version as asked for; where calls are joined.
        rows: that the message carries; where calls are joined.
        control: a question about the server itself, which is asked whether or not it is ready.
        waited_s: of its timeout, before it is made: for others to travel with.
        wire: the message as it travels, once it has been asked for.
    """

    method: Method
    message: Message | Unbuilt
    read: Callable[[Any], Result]
    asked: str
    timeout_s: float | None = None
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    pieces: Pieces[Result] | None = None
    joint: Joint | None = None
    model: tuple[str, str] = ("", "")
    rows: int = 0
    control: bool = False
    waited_s: float = 0.0
    wire: bytes | None = None

    @property
    def request(self) -> Message:
        """What is sent, as the message of a stream; whoever changes it does so before it is serialized.

        Raises:
            InvalidRequestError: it holds what the protocol cannot carry.
        """
        if not isinstance(self.message, Message):
            self.message = self.message.build()
        return self.message

    def serialize(self) -> bytes:
        """What is sent, as it travels.

        Raises:
            InvalidRequestError: it holds what the protocol cannot carry, or more than gRPC can.
        """
        wire = self.wire
        if wire is None:
            wire = self.message.SerializeToString()
            if len(wire) > MAX_MESSAGE_BYTES:  # guard: client-message-size
                raise InvalidRequestError(
                    f"the request to {self.asked} takes {len(wire)} bytes; expected at most {MAX_MESSAGE_BYTES}",
                    asked=self.asked,
                    details=f"larger than max ({len(wire)} vs. {MAX_MESSAGE_BYTES})",  # as gRPC says it: cut it
                )
            self.wire = wire
        return wire


def check_metadata(metadata: Mapping[str, str | bytes]) -> tuple[tuple[str, str | bytes], ...]:
    """Keys and values as gRPC carries them; keys become lower case.

    Raises:
        InvalidRequestError: a key or a value that no header can be.
    """
    check_kind("metadata", metadata, Mapping, "keys with their values")
    checked = tuple((str(key).lower(), value) for key, value in metadata.items())
    for key, value in checked:
        binary = key.endswith("-bin")
        if not _METADATA_KEY.fullmatch(key) or key.startswith("grpc-"):
            raise InvalidRequestError(f"metadata has the key {key!r}; expected letters, digits, '-', '_' and '.'")
        if not isinstance(value, bytes if binary else str):
            raise InvalidRequestError(
                f"metadata {key!r} is a {type(value).__name__}; expected {'bytes' if binary else 'text'} "
                "(bytes where the key ends with -bin)"
            )
        if isinstance(value, str) and not (value.isascii() and (value.isprintable() or not value)):
            raise InvalidRequestError(f"metadata {key!r} holds what a header cannot carry; expected printable ASCII")
    return checked


def read_options(options: CallOptions) -> tuple[float | None, tuple[tuple[str, str | bytes], ...]]:
    """The timeout of a call, and its metadata as `check_metadata` gives it.

    Raises:
        TypeError: an option that is none.
        InvalidRequestError: a value that cannot be meant.
    """
    if unknown := options.keys() - CallOptions.__annotations__.keys():
        raise TypeError(f"{min(unknown)!r} is no option of a call; known are {', '.join(CallOptions.__annotations__)}")
    timeout_s = options.get("timeout_s")
    if timeout_s is not None:
        timeout_s = check_seconds("timeout_s", timeout_s)
    metadata = options.get("metadata") or {}
    if options.get("traceparent"):
        check_kind("metadata", metadata, Mapping, "keys with their values")
        metadata = {**metadata, "traceparent": options["traceparent"]}
    return timeout_s, check_metadata(metadata)


def name_model(model: str, version: str) -> str:
    """A model and its version, for messages."""
    return f"model {model!r} version {version!r}" if version else f"model {model!r}"
