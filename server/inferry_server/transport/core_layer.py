"""The one module that touches grpcio's private Cython layer.

grpcio's public servers spend a thread or a task on every call; the layer below them does not. It is
private, so what is used of it stands here alone, and `check_layer` looks at every piece of it before
a server relies on it:

- `Server`: `register_completion_queue`, `add_http2_port`, `start`, `request_call`, `shutdown`,
  `cancel_all_calls`;
- `CompletionQueue`: `poll` until a time on the wall clock; events have `tag`, `success` and
  `completion_type`;
- events of new calls: `call`, `call_details` (`method`, `deadline`), `invocation_metadata`;
- `Call`: `start_server_batch` from any thread, `cancel`, `peer`;
- `auth_context` and `peer_identities`, what is known of a call's client;
- the operations that a server sends and receives.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc

from inferry_server.rpc.statuses import Status
from inferry_server.security.certificate_names import AuthContext, names_of

try:
    from grpc._cython import cygrpc
except ImportError:  # a grpcio that is built in another way
    cygrpc = None

peer_identities: Callable[["Handle"], list[bytes] | None] = getattr(cygrpc, "peer_identities", lambda _: None)
"""What the client's certificate names, for a tenth of the time that `auth_context` takes; None where it has none."""

OnEvent = Callable[[Any], object]
Trailers = tuple[tuple[str, bytes], ...]
Handle = Any  # a `cygrpc.Call`

_NO_FLAGS = 0
_BUFFER_HINT = 1  # grpc/grpc.h: GRPC_WRITE_BUFFER_HINT; another message follows at once
_PROBE_S = 5.0

REFUSED = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="message_refused")
"""How a call is counted whose message gRPC refused: nearly always it is above the limit.

gRPC tells the client why, INTERNAL where the message cannot be decompressed. Servers get the same event for both.
"""

_PIECES = {
    "Server": (
        "register_completion_queue", "add_http2_port", "start", "request_call", "shutdown", "cancel_all_calls",
    ),
    "CompletionQueue": ("poll", "shutdown"),
    "Call": ("start_server_batch", "cancel", "peer"),
    "ReceiveMessageOperation": ("message",),
    "ReceiveCloseOnServerOperation": ("cancelled",),
    "SendInitialMetadataOperation": (),
    "SendMessageOperation": (),
    "SendStatusFromServerOperation": (),
    "auth_context": (),
    "peer_identities": (),
    "CompletionType": ("queue_timeout", "queue_shutdown"),
}  # fmt: skip


class LayerChangedError(Exception):
    """This grpcio's private layer is not the one that was tested; says what differs."""


def check_layer(layer: Any = cygrpc) -> None:
    """See whether the layer is what this module takes it for: its names, and the life of a server.

    Raises:
        LayerChangedError: names what is missing or behaves in another way.
    """
    if layer is None:
        raise LayerChangedError("grpc._cython.cygrpc is missing")
    for name, attributes in _PIECES.items():
        piece = getattr(layer, name, None)
        if piece is None:
            raise LayerChangedError(f"grpc._cython.cygrpc.{name} is missing")
        for attribute in attributes:
            if not hasattr(piece, attribute):
                raise LayerChangedError(f"grpc._cython.cygrpc.{name}.{attribute} is missing")
    try:
        _probe(layer)
    except LayerChangedError:
        raise
    except Exception as error:
        raise LayerChangedError(f"a server of grpc._cython.cygrpc fails: {error!r}") from error


def _probe(layer: Any) -> None:
    """Start a server that listens nowhere, ask for a call, and see both ends come in."""
    server, queue = layer.Server((), False), layer.CompletionQueue()
    server.register_completion_queue(queue)
    server.start()
    server.request_call(queue, queue, "call")
    server.shutdown(queue, "stopped")
    seen = {}
    for _ in range(2):
        event = queue.poll(time.time() + _PROBE_S)
        seen[event.tag] = event.success
    if seen != {"call": False, "stopped": True}:
        raise LayerChangedError(f"a server of grpc._cython.cygrpc that is stopped tells {seen}")
    queue.shutdown()
    if queue.poll(time.time() + _PROBE_S).completion_type != layer.CompletionType.queue_shutdown:
        raise LayerChangedError("a queue of grpc._cython.cygrpc does not tell that it was shut down")


class CoreServer:
    """A gRPC server without threads: the thread that polls gets its events. Any thread may call anything.

    Attributes:
        poll: returns the next event; at the time `until`, on the wall clock, one whose tag is None.
    """

    def __init__(self, options: Sequence[tuple[str, int | str]]) -> None:
        self._queue = cygrpc.CompletionQueue()
        self.poll: Callable[[float], Any] = self._queue.poll
        self._server = cygrpc.Server(tuple((name.encode(), value) for name, value in options), False)
        self._server.register_completion_queue(self._queue)

    def listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        """The port that was bound; 0 where none could be."""
        try:
            if credentials is None:
                return int(self._server.add_http2_port(address.encode()))
            return int(self._server.add_http2_port(address.encode(), credentials._credentials))  # type: ignore[attr-defined]  # grpcio's stubs leave it out
        except RuntimeError:
            return 0

    def start(self) -> None:
        """Accept connections."""
        self._server.start()

    def request_call(self, on_event: OnEvent) -> None:
        """Ask for one new call; `on_event` gets it, or an event without success once the server stops.

        Does nothing on a server that stops.
        """
        with suppress(ValueError):  # what the layer raises then
            self._server.request_call(self._queue, self._queue, on_event)

    def shutdown(self, on_event: OnEvent) -> None:
        """Accept no more calls; `on_event` is told when the last one has ended."""
        self._server.shutdown(self._queue, on_event)

    def cancel_all_calls(self) -> None:
        """End what is left; only after `shutdown`."""
        self._server.cancel_all_calls()


def receive_message(call: Handle, on_event: OnEvent) -> None:
    """Read the client's next message: `message_of` the event."""
    call.start_server_batch((cygrpc.ReceiveMessageOperation(_NO_FLAGS),), on_event)


def message_of(event: Any) -> bytes | None:
    """The message of a `receive_message`; None where no more will come."""
    message: bytes | None = event.batch_operations[0].message()
    return message


def was_refused(event: Any) -> bool:
    """Whether there is no message because gRPC refused it, and has ended the call; else no more will come."""
    return not event.success


def watch_close(call: Handle, on_event: OnEvent) -> None:
    """Learn how the call ended: `was_cancelled` of the event."""
    call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),), on_event)


def was_cancelled(event: Any) -> bool:
    """Whether a watched call ended before its reply was sent."""
    return bool(event.batch_operations[0].cancelled())


def send_reply(
    call: Handle, message: bytes, on_event: OnEvent, *, close_watched: bool, trailers: Trailers | None = None
) -> None:
    """Reply to a unary call, all in one operation. It also asks how the call ended, if that is not watched yet."""
    operations: tuple[Any, ...] = (
        cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS),
        cygrpc.SendMessageOperation(message, _NO_FLAGS),
        cygrpc.SendStatusFromServerOperation(trailers, cygrpc.StatusCode.ok, b"", _NO_FLAGS),
    )
    if not close_watched:
        operations += (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
    call.start_server_batch(operations, on_event)


def cancel(call: Handle) -> None:
    """End a call whatever it still has to send: its operations fail, and their memory is freed."""
    call.cancel(grpc.StatusCode.DEADLINE_EXCEEDED.value[0], "the reply was not read in time")


def send_message(call: Handle, message: bytes, on_event: OnEvent, *, first: bool, more_follow: bool) -> None:
    """Send one message of a stream; the next one only after its event."""
    operations: tuple[Any, ...] = (cygrpc.SendMessageOperation(message, _BUFFER_HINT if more_follow else _NO_FLAGS),)
    if first:
        operations = (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), *operations)
    call.start_server_batch(operations, on_event)


def send_status(call: Handle, status: Status, on_event: OnEvent, *, first: bool, close_watched: bool = True) -> None:
    """End a call, after the messages that were sent."""
    operations: tuple[Any, ...] = (
        cygrpc.SendStatusFromServerOperation(
            status.trailing_metadata or None, status.code.value[0], status.message.encode(errors="replace"), _NO_FLAGS
        ),
    )
    if first:
        operations = (cygrpc.SendInitialMetadataOperation(None, _NO_FLAGS), *operations)
    if not close_watched:
        operations += (cygrpc.ReceiveCloseOnServerOperation(_NO_FLAGS),)
    call.start_server_batch(operations, on_event)


def certificate_names(call: Handle) -> list[str]:
    """What the client's verified certificate says: `DNS:name` and the like; nothing where there is none."""
    return names_of(auth_context(call))


def auth_context(call: Handle) -> AuthContext:
    """What gRPC tells of the client: of its verified certificate, among other things."""
    context: AuthContext = cygrpc.auth_context(call)
    return context
