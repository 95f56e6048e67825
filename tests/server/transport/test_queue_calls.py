"""Calls over a scripted completion queue: what happens between two events, in every order."""

import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from inferry_server.rpc.call import Outcome, StreamCall
from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import Status
from inferry_server.services.inference import STREAM_FORMAT
from inferry_server.services.streams import OrderedStream
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.trace import NoTracer, RequestTrace
from inferry_server.transport import core_layer
from inferry_server.transport.core_layer import OnEvent
from inferry_server.transport.queue_calls import QueueCall, QueueStreamCall

UNARY, STREAM = "/test/Unary", "/test/Stream"
NEVER_S = 1e13


class Layer:
    """Plays gRPC and the thread that polls: operations wait until the test ends them."""

    def __init__(self) -> None:
        self.reads: list[OnEvent] = []
        self.watches: list[OnEvent] = []
        self.statuses: list[Status] = []
        self.due_soon: list[Callable[[], object]] = []
        self.asked: list[bytes] = []
        self.large = 0
        self.now, self.unread = 0.0, dict[QueueCall, float]()

    def receive_message(self, call: object, on_event: OnEvent) -> None:
        self.reads.append(on_event)

    def watch_close(self, call: object, on_event: OnEvent) -> None:
        self.watches.append(on_event)

    def send_status(self, call: object, status: Status, on_event: OnEvent, **_: Any) -> None:
        self.statuses.append(status)

    def send_message(self, call: object, message: bytes, on_event: OnEvent, **_: Any) -> None:
        on_event(SimpleNamespace(success=True))

    def unary_arrived(self, call: QueueCall, message: bytes) -> None:
        self.asked.append(message)

    def unary_without_request(self, call: QueueCall) -> None:
        pass

    def large_refused(self) -> None:
        self.large += 1

    def reply_was_late(self) -> None:
        pass

    def stream_ended(self, call: QueueStreamCall) -> None:
        pass

    def soon(self, callback: Callable[[], object]) -> None:
        self.due_soon.append(callback)

    def read(self, message: bytes | None, *, success: bool = True) -> None:
        """The operation that reads ends."""
        operation = SimpleNamespace(message=lambda: message)
        self.reads.pop(0)(SimpleNamespace(success=success, batch_operations=[operation]))

    def half_close(self) -> None:
        """The client has half-closed: the read ends, and so does the one that makes sure."""
        self.read(None)
        self.read(None)

    def closed(self, *, cancelled: bool) -> None:
        """The watch ends."""
        operation = SimpleNamespace(cancelled=lambda: cancelled)
        self.watches.pop(0)(SimpleNamespace(success=True, batch_operations=[operation]))

    def idle(self) -> None:
        """No event is ready."""
        while self.due_soon:
            self.due_soon.pop(0)()

    def codes(self) -> list[str]:
        return [status.code.name for status in self.statuses]


@pytest.fixture
def layer(monkeypatch: pytest.MonkeyPatch) -> Layer:
    layer = Layer()
    for name in ("receive_message", "watch_close", "send_status", "send_message"):
        monkeypatch.setattr(core_layer, name, getattr(layer, name))
    return layer


@pytest.fixture
def metrics() -> ServerMetrics:
    return ServerMetrics()


@pytest.fixture
def answers() -> list[Outcome]:
    return []


@pytest.fixture
def router(metrics: ServerMetrics, answers: list[Outcome]) -> Router:
    def submit(
        message: bytes, outcome: Outcome, *, call_deadline: float | None, trace: RequestTrace | None
    ) -> Callable[[], object]:
        answers.append(outcome)
        return lambda: None

    def open_stream(call: StreamCall) -> OrderedStream:
        return OrderedStream(call, STREAM_FORMAT, submit, NoTracer())

    router = Router(metrics)
    router.add_unary({UNARY: lambda *_: None})
    router.add_streams({STREAM: open_stream})
    return router


def arrival() -> SimpleNamespace:
    return SimpleNamespace(
        call=object(), invocation_metadata=(), call_details=SimpleNamespace(deadline=NEVER_S, method=b"")
    )


@pytest.fixture
def unary(layer: Layer, router: Router) -> QueueCall:
    call = QueueCall(arrival(), UNARY, router.received(UNARY, ()), layer)
    core_layer.receive_message(call._handle, call.received)
    return call


def opened(layer: Layer, router: Router) -> QueueStreamCall:
    call = QueueStreamCall(arrival(), STREAM, router.received(STREAM, ()), layer)
    call.begin(router.open(call))
    return call


@pytest.fixture
def stream(layer: Layer, router: Router) -> QueueStreamCall:
    return opened(layer, router)


def outcomes(metrics: ServerMetrics) -> list[tuple[str, str]]:
    samples = (sample for family in metrics.outcomes.collect() for sample in family.samples)
    return [
        (sample.labels["code"], sample.labels["reason"])
        for sample in samples
        if sample.name.endswith("_total")
        for _ in range(int(sample.value))
    ]


def test_a_call_without_a_request_whose_client_has_gone_is_cancelled_and_gets_no_status(
    unary: QueueCall, layer: Layer, metrics: ServerMetrics
) -> None:
    layer.read(None)
    layer.idle()  # gRPC's own threads may tell of the rest a little later
    layer.closed(cancelled=True)
    layer.read(None)
    assert (layer.codes(), outcomes(metrics)) == ([], [("CANCELLED", "")])


def test_a_stream_whose_client_has_gone_is_cancelled_and_gets_no_status(
    stream: QueueStreamCall, layer: Layer, metrics: ServerMetrics
) -> None:
    layer.read(None)
    layer.idle()
    layer.closed(cancelled=True)
    layer.read(None)
    assert (layer.codes(), outcomes(metrics), layer.reads) == ([], [("CANCELLED", "")], [])


def test_a_stream_whose_client_has_half_closed_ends_well(
    stream: QueueStreamCall, layer: Layer, metrics: ServerMetrics
) -> None:
    layer.half_close()
    assert (layer.codes(), outcomes(metrics), layer.reads) == (["OK"], [("OK", "")], [])


def test_a_call_without_a_request_whose_client_is_there_gets_a_status(
    unary: QueueCall, layer: Layer, metrics: ServerMetrics
) -> None:
    layer.half_close()
    layer.closed(cancelled=False)
    assert (layer.codes(), outcomes(metrics)) == (["UNIMPLEMENTED"], [("UNIMPLEMENTED", "no_message")])


@pytest.mark.parametrize("message", [b"too late", None])
def test_a_call_that_was_sent_away_hears_of_nothing_that_comes_later(
    unary: QueueCall, layer: Layer, metrics: ServerMetrics, message: bytes | None
) -> None:
    unary.abort(Status(core_layer.REFUSED.code, reason="sent_away"))
    layer.read(message)
    layer.idle()
    assert (layer.asked, layer.watches) == ([], [])
    assert outcomes(metrics) == [("RESOURCE_EXHAUSTED", "sent_away")]


@pytest.mark.parametrize("reads_before", [0, 1, 2])
def test_a_half_close_that_is_there_already_comes_before_the_drain(
    stream: QueueStreamCall, layer: Layer, answers: list[Outcome], metrics: ServerMetrics, reads_before: int
) -> None:
    layer.read(b"request")
    answers[0].reply(b"")
    for _ in range(reads_before):
        layer.read(None)
    stream.drain()
    if reads_before == 0:
        layer.read(None)
    layer.idle()
    if reads_before < 2:
        layer.read(None)
    assert (layer.codes(), outcomes(metrics)) == (["OK"], [("OK", "")])


@pytest.mark.parametrize("reads_before", [0, 1, 2])
def test_a_receiver_that_stays_after_the_half_close_is_told_to_drain_once(
    layer: Layer, router: Router, reads_before: int
) -> None:
    told: list[str] = []

    class Watching:
        def on_message(self, message: bytes) -> None: ...

        def on_half_close(self) -> None:
            told.append("half-close")

        def on_drain(self) -> None:
            told.append("drain")

    call = QueueStreamCall(arrival(), STREAM, router.received(STREAM, ()), layer)
    call.begin(Watching())
    for _ in range(reads_before):
        layer.read(None)
    call.drain()
    if reads_before == 0:
        layer.read(None)
    layer.idle()
    if reads_before < 2:
        layer.read(None)
    layer.idle()
    assert told == ["half-close", "drain"]


def test_a_half_close_behind_a_request_that_came_too_late_does_not_end_the_stream_well(
    stream: QueueStreamCall, layer: Layer, answers: list[Outcome], metrics: ServerMetrics
) -> None:
    layer.read(b"request")
    stream.drain()
    layer.idle()
    layer.read(b"too late")
    assert (layer.reads, len(answers)) == ([], 1)  # nothing more is read, the half-close neither
    answers[0].reply(b"")
    assert (layer.codes(), outcomes(metrics)) == (["UNAVAILABLE"], [("UNAVAILABLE", "shutting_down")])


def test_a_stream_that_is_refused_a_message_is_counted_once(
    stream: QueueStreamCall, layer: Layer, metrics: ServerMetrics
) -> None:
    layer.read(None, success=False)
    layer.closed(cancelled=True)
    stream.drain()
    layer.idle()
    assert (layer.codes(), outcomes(metrics)) == ([], [("RESOURCE_EXHAUSTED", "message_refused")])


@pytest.mark.parametrize("cancelled", [True, False])
@pytest.mark.usefixtures("no_collection")
def test_a_stream_that_has_ended_is_free_without_a_garbage_collection(
    layer: Layer, router: Router, *, cancelled: bool
) -> None:
    call = opened(layer, router)
    handle = weakref.ref(call)
    if not cancelled:
        layer.half_close()
    layer.closed(cancelled=cancelled)
    layer.reads.clear()  # gRPC ends it with the call
    del call
    assert handle() is None


@pytest.mark.parametrize(("size", "told"), [(4 << 20, 1), ((4 << 20) - 1, 0)])
def test_memory_of_a_large_message_that_ends_its_stream_is_to_go_back(
    layer: Layer, router: Router, size: int, told: int
) -> None:
    class Refusing:
        def __init__(self, call: StreamCall) -> None:
            self._call = call

        def on_message(self, message: bytes) -> None:
            self._call.finish()

        def on_half_close(self) -> None: ...

        def on_drain(self) -> None: ...

    call = QueueStreamCall(arrival(), STREAM, router.received(STREAM, ()), layer)
    call.begin(Refusing(call))
    layer.read(bytes(size))
    assert layer.large == told


def test_memory_of_a_large_message_that_is_answered_stays(layer: Layer, router: Router) -> None:
    opened(layer, router)
    layer.read(bytes(4 << 20))
    assert layer.large == 0
