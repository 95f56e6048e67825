"""More calls than can be computed: those that have no chance are refused before they are read."""

from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from inferry_server.batching.shedding import Shedding
from inferry_server.executing.inline import InlineWork
from inferry_server.rpc.router import Router
from inferry_server.rpc.statuses import Status
from inferry_server.telemetry.metrics import ServerMetrics
from inferry_server.transport import unread_calls
from inferry_server.transport.completion_queue import CompletionQueueTransport
from inferry_server.transport.options import TransportOptions

INFER, HEALTH = "/test/Infer", "/test/Health"


class Overloaded:
    """A transport over calls that the test lets come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statuses: list[Status] = []
        self.read = self.counted = 0
        self.one_version = True
        self.inline, self.metrics = InlineWork(), ServerMetrics()
        router = Router(self.metrics)
        router.add_unary({INFER: lambda *_: None}, sheddable=lambda: self.one_version)
        router.add_unary({HEALTH: lambda *_: None})
        options = TransportOptions(max_message_bytes=1000, max_streams=10)
        self._transport = CompletionQueueTransport(router, options, inline=self.inline)
        self._transport._intake.caught_up(0.0)

        def send_status(call: object, status: Status, *_: object, **__: object) -> None:
            self.statuses.append(status)

        monkeypatch.setattr(unread_calls, "send_status", send_status)

    def start_server_batch(self, operations: object, on_event: object) -> None:
        self.read += 1

    def comes(self, path: str) -> None:
        details = SimpleNamespace(method=path.encode(), deadline=float("inf"))
        event: Any = SimpleNamespace(success=True, call=self, call_details=details, invocation_metadata=())
        self._transport._called(event)

    def ended(self, path: str) -> dict[tuple[str, str], float]:
        """How many calls ended, by code and reason."""
        return {
            (sample.labels["code"], sample.labels["reason"]): sample.value
            for family in self.metrics.outcomes.collect()
            for sample in family.samples
            if sample.labels["method"] == path
        }

    def sheds(self, batch_s: float) -> Shedding:
        """A queue begins to shed."""
        shedding = self.inline.shedding = Shedding(self.count)
        shedding.refused(0.0)
        shedding.begin(batch_s)
        return shedding

    def count(self) -> None:
        self.counted += 1


def test_calls_are_refused_unread_while_a_full_batch_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Overloaded(monkeypatch)
    shedding = server.sheds(0.012)
    for _ in range(3):
        server.comes(INFER)
    assert server.read == 0
    assert [status.code for status in server.statuses] == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 3
    assert server.statuses[0].trailing_metadata == (("grpc-retry-pushback-ms", "12"),)
    assert server.ended(INFER) == {("RESOURCE_EXHAUSTED", "shed"): 3}
    assert server.counted == 3  # among the refusals of the model
    shedding.end()
    server.comes(INFER)
    assert server.read == 1
    assert len(server.statuses) == 3


def test_what_is_no_inference_gets_its_reply_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Overloaded(monkeypatch)
    server.sheds(0.012)
    server.comes(HEALTH)
    assert server.read == 1
    assert server.statuses == []


def test_a_call_that_may_be_for_another_model_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Overloaded(monkeypatch)
    server.sheds(0.012)
    server.one_version = False
    server.comes(INFER)
    assert server.read == 1
    assert server.statuses == []
