"""What the synchronous and the asynchronous client have in common: settings, and the calls' session."""

import inspect
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeAlias, TypeVar

import grpc

from inferry_client.calling.calls import Send, Session
from inferry_client.calling.joining import Batching
from inferry_client.connecting.addresses import DEFAULT_SERVER, names_several, parse_servers
from inferry_client.connecting.channels import ChannelSettings, error_from_rpc
from inferry_client.connecting.forks import heed_forks
from inferry_client.connecting.security import Security, security_from_environment
from inferry_client.errors import InferryError, InvalidRequestError, error_from_closing
from inferry_client.limits import check_kind, check_seconds
from inferry_client.messages.call import Call, check_metadata
from inferry_client.messages.reply_plans import read_wire
from inferry_client.retries import DEFAULT_RETRIES, RetryPolicy
from inferry_proto.services import OPEN_INFERENCE, Method

P = ParamSpec("P")
Client = TypeVar("Client")
Answer = TypeVar("Answer")

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_AUTHORIZATION = "authorization"
_READ: dict[str, Callable[[bytes], Any]] = {OPEN_INFERENCE["ModelInfer"].path: read_wire}
READY_TIMEOUT_S = 60.0  # a large model may take that long to load
READY_INTERVAL_S = 0.1
_PAUSE_S = 0.05  # how long a fork waits for a thread that opens connections


@dataclass(frozen=True)
class BareChannel:
    """A channel that is to be opened, and what every call on it carries."""

    address: str
    settings: ChannelSettings
    credentials: grpc.ChannelCredentials | None
    metadata: Metadata = field(repr=False)


class Connection:
    """Settings of a client, checked, and what its calls share. Opens nothing.

    Args:
        address: HOST:PORT, several as a sequence or separated by commas, or `dns:///HOST:PORT`;
            None: $INFERRY_SERVER, else 127.0.0.1:8001. Requests go round several servers, and
            leave out those that are away, silent or not serving.
        timeout_s: of every call that carries none of its own, retries included; up to a day.
        retries: what to do while a server is away (UNAVAILABLE, and CANCELLED where it stops) or
            full (RESOURCE_EXHAUSTED); a server's own wish when to come back is heeded. A client
            that has never reached a server gives up after 2.5 s: the address may be wrong.
        connect_timeout_s: how long one attempt to connect may take.
        max_message_bytes: both ways; -1 leaves the limit to the server.
        metadata: sent with every call.
        batching: join the small requests of many callers into larger ones; None sends each alone.
            What carries an id, parameters or metadata of its own always travels alone.
        tls: encrypt, and trust the authorities that gRPC brings; $INFERRY_TLS=1. False: do not encrypt,
            whatever the environment says.
        ca: PEM file of the authorities to trust instead; $INFERRY_CA.
        certificate: PEM file with the client's own certificate chain; $INFERRY_CERTIFICATE.
        private_key: PEM file with its key; $INFERRY_PRIVATE_KEY.
        token: sent as `authorization: Bearer TOKEN`; $INFERRY_TOKEN. An authorization in the metadata of
            client or call is sent instead.
        server_name: the name that the server's certificate has, where it is not the address's;
            $INFERRY_SERVER_NAME.

    Raises:
        InvalidRequestError: not an address, or settings that cannot be followed; where a number is out of its range,
            also a ValueError.
    """

    _open_channel: ClassVar[Callable[..., Any]]  # `open_channel` of channels.py, or its asyncio's

    def __init__(
        self,
        address: str | Sequence[str] | None = None,
        *,
        timeout_s: float = 10.0,
        retries: RetryPolicy = DEFAULT_RETRIES,
        connect_timeout_s: float = 2.0,
        max_message_bytes: int = -1,
        metadata: Mapping[str, str | bytes] | None = None,
        batching: Batching | None = None,
        tls: bool | None = None,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        private_key: str | Path | None = None,
        token: str | None = None,
        server_name: str | None = None,
    ) -> None:
        timeout_s = check_seconds("timeout_s", timeout_s)
        check_kind("retries", retries, RetryPolicy, "a RetryPolicy")
        check_kind("batching", batching, (Batching, type(None)), "a Batching, like Batching(max_rows=64), or None")
        servers = parse_servers(os.environ.get("INFERRY_SERVER") or DEFAULT_SERVER if address is None else address)
        security = security_from_environment(
            Security(
                tls=tls, ca=ca, certificate=certificate, private_key=private_key, token=token, server_name=server_name
            )
        )
        self.address = ",".join(servers)
        self.timeout_s = timeout_s
        self.retries = retries
        # The client asks again by itself. gRPC, to be able to, would take 15 us of CPU more for every call.
        resend = retries.max_attempts == 1
        self._settings = ChannelSettings(connect_timeout_s, max_message_bytes, resend=resend, security=security)
        self._credentials = security.credentials()
        self._session = Session(servers, timeout_s=timeout_s, retries=retries, clock=time.monotonic)
        self._several = len(servers) > 1 or names_several(servers[0])
        given = check_metadata(metadata or {})
        if token is not None and _AUTHORIZATION in dict(given):
            raise InvalidRequestError(
                "metadata has the key 'authorization', and there is a token; expected one of the two"
            )
        self._metadata = override(security.metadata(), given)
        self._batching = batching
        self._channels: list[tuple[Any, Any]] = []  # for requests, and for questions about the server itself
        self._methods: dict[tuple[int, str], Any] = {}
        self._paused: dict[tuple[int, str], Any] = {}  # the methods, while the process forks
        self._closing = threading.Event()
        self._opening = threading.Lock()
        self._learning = threading.Lock()
        self._pausing = False
        heed_forks(self)

    def __reduce__(self) -> Any:
        raise TypeError(
            f"a {type(self).__name__} cannot be pickled, since its connections cannot; "
            "give the other process the address, and make a client there"
        )

    def _before_fork(self) -> None:
        self._pausing = self._opening.acquire(timeout=_PAUSE_S)
        if self._pausing:
            self._paused, self._methods = self._methods, {}  # so every call asks for its method, behind the lock

    def _in_parent(self) -> None:
        if self._pausing:
            self._methods = self._paused
            self._opening.release()

    def _in_child(self) -> Any:
        of_parent = self._channels, self._methods, self._paused
        self._channels, self._methods, self._paused = [], {}, {}
        closed, self._closing = self._closing.is_set(), threading.Event()
        if closed:
            self._closing.set()
        self._opening, self._learning = threading.Lock(), threading.Lock()
        self._settings = replace(self._settings, own_connection=True)  # gRPC would share the parent's
        self._session.begin_anew()
        return of_parent

    def bare_channel(self, number: int) -> BareChannel:
        """What a load test needs to open a connection of its own, without retries: the servers in turn."""
        return BareChannel(
            address=self._session.servers[number % len(self._session.servers)],
            settings=replace(self._settings, own_connection=True, resend=False),
            credentials=self._credentials,
            metadata=self._metadata,
        )

    def _stub(self, server: int, called: Method, *, asked: str, control: bool = False) -> Any:
        """What makes calls of an RPC to a server, opened once; all channels open with the first.

        A unary RPC takes the request as it travels, a stream takes messages.

        Raises:
            RequestCancelledError: the client was closed.
        """
        known = self._methods.get((server, called.path))
        if known is not None:
            return known
        with self._opening:
            known = self._methods.get((server, called.path))  # another thread opened it, or the process forked
            if known is not None:
                return known
            if self._closing.is_set():
                raise error_from_closing(address=self.address, asked=asked)
            if not self._channels:
                self._channels = [self._open(server) for server in self._session.servers]
            channel = self._channels[server][control]
            read = called.response_type.FromString
            if called.client_streaming:
                write = called.request_type.SerializeToString
                opened = channel.stream_stream(called.path, request_serializer=write, response_deserializer=read)
            else:
                opened = channel.unary_unary(called.path, response_deserializer=_READ.get(called.path, read))
            self._methods[(server, called.path)] = opened
            return opened

    def _open(self, server: str) -> tuple[Any, Any]:
        """Channels for requests, and for questions about the server itself; they share a connection."""
        plain = type(self)._open_channel(server, self._settings, self._credentials)
        if not self._several:
            return plain, plain
        return type(self)._open_channel(server, self._settings, self._credentials, health=True), plain

    def _error_of(self, error: Any, step: Send) -> InferryError:
        """What an attempt that gRPC ended with an error means to the caller."""
        return error_from_rpc(
            error,
            address=self._session.servers[step.server],
            asked=step.call.asked,
            timeout_s=step.within_s,
            closed=self._closing.is_set(),
            encrypted=self._credentials is not None,
        )

    def _explain(self, error: BaseException, step: Send) -> InferryError:
        """What ended a stream, as an error of ours."""
        if isinstance(error, InferryError):
            return error
        if isinstance(error, grpc.RpcError):
            return self._error_of(error, step)
        return error_from_closing(address=self.address, asked=step.call.asked)

    def _all_metadata(self, call: Call[Any]) -> Metadata | None:
        return override(self._metadata, call.metadata) if self._metadata or call.metadata else None


def override(metadata: Metadata, more: Metadata) -> Metadata:
    """Metadata with more; a caller has one authorization, the latter."""
    if any(key == _AUTHORIZATION for key, _ in more):  # guard: client-one-authorization
        metadata = tuple([(key, value) for key, value in metadata if key != _AUTHORIZATION])
    return (*metadata, *more)


def document(
    method: Callable[Concatenate[Client, P], Answer], build: Callable[P, Call[Any]]
) -> Callable[Concatenate[Client, P], Answer]:
    """Give a client's method the name, the docstring and the parameters of what builds its calls."""
    signature = inspect.signature(build)
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    returned = inspect.signature(method).return_annotation
    vars(method)["__signature__"] = signature.replace(
        parameters=[me, *signature.parameters.values()], return_annotation=returned
    )
    method.__name__, method.__doc__ = build.__name__, build.__doc__
    return method
