"""A front end and the owner of the models, joined by a socket pair in one process: no gRPC, no threads."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from inferry_server.errors import InvalidRequestError
from inferry_server.front_ends.calls import ForwardedCalls
from inferry_server.front_ends.channel import Channel
from inferry_server.front_ends.forwarding import Forwarding, ForwardingRouter
from inferry_server.front_ends.plan import FrontEndPlan
from inferry_server.rpc.call import Arrived, Call, Message, StreamCall
from inferry_server.rpc.router import EndingCall, Router
from inferry_server.rpc.statuses import OK, Status
from inferry_server.telemetry.load_report import LoadReport
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport.options import TransportOptions

UNARY, STREAM = "/test/Unary", "/test/Stream"
VIEWING = "/test/Viewing"  # whose handler takes views
TOGETHER = "/test/Together"  # which has a handler of calls that come together
BUSY = Status(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy", (("grpc-retry-pushback-ms", "7"),), "queue_full_rows")


class ClientCall(EndingCall):
    """A call of the front end's transport: keeps what its client would get."""

    def __init__(self, router: Router, path: str, metadata: Any = (), deadline: float | None = None) -> None:
        super().__init__(path, metadata, deadline, router.received(path, metadata))
        self.got: list[bytes] = []
        self.status: Status | None = None
        self.paused = False

    def reply(self, message: bytes) -> None:
        if self._end(OK):
            self.got.append(message)
            self.status = OK

    def send(self, message: bytes) -> None:
        self.got.append(message)

    def finish(self) -> None:
        self.abort(OK)

    def abort(self, status: Status) -> None:
        if self._end(status):
            self.status = status

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Told:
    """The owner's receiver of a stream."""

    def __init__(self, call: StreamCall) -> None:
        self.call = call
        self.messages: list[bytes] = []
        self.ends: list[str] = []

    def on_message(self, message: bytes) -> None:
        self.messages.append(message)

    def on_half_close(self) -> None:
        self.ends.append("half-close")

    def on_drain(self) -> None:
        self.ends.append("drain")


class Joined:
    """A front end's router and an owner's; `run` carries the records between them."""

    def __init__(self, most_unsent_bytes: int = 1 << 30) -> None:
        ours, its = socket.socketpair()
        self.to_front, self.to_owner = Channel(ours, lambda: None), Channel(its, lambda: None)
        self.calls: list[Call] = []
        self.messages: list[Message] = []
        self.streams: list[Told] = []
        self.cancelled: list[bool] = []
        self.shed: list[bool] = []
        self.together: list[list[bytes]] = []
        self.metrics = ServerMetrics()
        self.router = Router(self.metrics, unchecked_bytes=20)
        self.router.add_unary({UNARY: self._unary})
        self.router.add_unary({VIEWING: self._unary, TOGETHER: self._unary}, views=True)
        self.router.add_alike({TOGETHER: self._alike})
        self.router.add_streams({STREAM: self._stream})
        plan = FrontEndPlan(
            address="", transport="", options=TransportOptions(max_message_bytes=1, max_streams=1),
            unary=[UNARY, TOGETHER], streams=[STREAM], sheddable=[UNARY], most_unsent_bytes=most_unsent_bytes,
        )  # fmt: skip
        self.report = LoadReport(cores=1, instances=1)
        self.forwarding = Forwarding(self.to_owner, plan, self.report)
        self.front = ForwardingRouter(plan, self.forwarding, None)
        self.owner = ForwardedCalls(self.router, plan.paths, self.to_front.put, lambda: self.shed.append(True))

    def _unary(self, call: Call, message: bytes) -> Callable[[], object]:
        if message == b"bad":
            raise InvalidRequestError("bad")
        self.calls.append(call)
        self.messages.append(message)
        return lambda: self.cancelled.append(True)

    def _alike(self, arrived: Sequence[Arrived]) -> None:
        self.together.append([message for _, message in arrived])
        for call, message in arrived:
            if message == b"worst":
                raise ValueError("what nobody foresaw")
            call.reply(message.upper())

    def _stream(self, call: StreamCall) -> Told:
        self.streams.append(Told(call))
        return self.streams[-1]

    def ask(self, message: bytes, **of_the_call: Any) -> ClientCall:
        call = ClientCall(self.front, UNARY, **of_the_call)
        self.front.handle(call, message)
        self.run()
        return call

    def open(self) -> tuple[ClientCall, Any]:
        call = ClientCall(self.front, STREAM)
        receiver = self.front.open(call)
        self.run()
        return call, receiver

    def run(self) -> None:
        for _ in range(3):
            self.to_owner.flush_on()
            for kind, number, body, message in self.to_front.receive() or ():
                self.owner.handlers[kind](number, body, message)
            self.owner.handle_gathered()
            self.to_front.flush_on()
            for record in self.to_owner.receive() or ():
                self.forwarding.handle(record)

    def counted(self, path: str, code: str, reason: str = "") -> float:
        return self.metrics.outcomes.values().get((path, code, reason), 0)
