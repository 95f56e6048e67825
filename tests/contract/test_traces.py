"""Traces of a real server, asked by real clients."""

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tritonclient.utils import InferenceServerException

from inferry_proto import classifier_pb2 as pb
from inferry_proto.services import IMAGE_CLASSIFIER
from inferry_server.app import Server
from inferry_server.batching.policy import Lane
from inferry_server.telemetry.tracing import RequestTracer
from testkit import onnx_models
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

TRACE, CALLER = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7
SAMPLED = {"traceparent": f"00-{TRACE:032x}-{CALLER:016x}-01", "tracestate": "vendor=value"}
UNSAMPLED = {"traceparent": f"00-{TRACE:032x}-{CALLER:016x}-00"}
INFER = "inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "inference.GRPCInferenceService/ModelStreamInfer"
FOR_EVER_US = 60_000_000  # what waits for a fuller batch waits for the test


class Traced:
    """A server whose spans can be looked at once it has stopped."""

    def __init__(self, server: Server, client: triton.InferenceServerClient, exporter: InMemorySpanExporter) -> None:
        self.server = server
        self.client = client
        self._exporter = exporter

    def infer(self, *numbers: int, model: str = "picky", headers: dict[str, str] | None = None, **options: Any) -> Any:
        return self.client.infer(model, [tensor(*numbers)], headers=headers, **options)

    def infer_later(self, *numbers: int, headers: dict[str, str]) -> tuple[Any, "queue.Queue[Any]"]:
        """A request under way, and where its outcome will be."""
        outcome: queue.Queue[Any] = queue.Queue()
        call = self.client.async_infer(
            "picky", [tensor(*numbers)], lambda result, error: outcome.put(error or result), headers=headers
        )
        return call, outcome

    def wait_for_queued_rows(self, rows: int) -> None:
        batcher = self.server.registry.find("picky", "").batcher
        wait_until(lambda: batcher.queued(Lane.INTERACTIVE).rows == rows, f"{rows} rows in the queue")

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def all_spans(self) -> tuple[ReadableSpan, ...]:
        return self._exporter.get_finished_spans()


def never_answered(result: Any, error: Any) -> None:
    assert result is None, error


def tensor(*numbers: int) -> triton.InferInput:
    made = triton.InferInput("index", [len(numbers)], "INT64")
    made.set_data_from_numpy(np.array(numbers, np.int64))
    return made


Serve = Callable[..., AbstractContextManager[Traced]]


@pytest.fixture
def traced(tmp_path: Path, transport: str) -> Serve:
    """Starts a server, with a `sample_ratio` and other settings."""
    onnx_models.save_picky(tmp_path)
    onnx_models.save_brightness(tmp_path)
    return partial(serving_traced, tmp_path, transport=transport)


@contextmanager
def serving_traced(repository: Path, *, sample_ratio: float = 0.0, **settings: Any) -> Iterator[Traced]:
    exporter = InMemorySpanExporter()
    tracer = RequestTracer(lambda: exporter, sample_ratio)
    with (
        running_server(repository, tracer, **settings) as server,
        triton.InferenceServerClient(str(server.grpc_address)) as client,
    ):
        yield Traced(server, client, exporter)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def context_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    return None if span.parent is None else (span.parent.trace_id, span.parent.span_id)


def linked(span: ReadableSpan) -> set[tuple[int, int]]:
    return {(link.context.trace_id, link.context.span_id) for link in span.links}


def test_a_request_continues_its_callers_trace(traced: Serve) -> None:
    with traced() as running:
        running.infer(1, headers=SAMPLED)
    (span,) = running.spans(INFER)
    assert span.kind is SpanKind.SERVER
    assert parent_of(span) == (TRACE, CALLER)
    assert span.context is not None
    assert span.context.trace_state.to_header() == "vendor=value"
    assert attributes(span) == {
        "rpc.system": "grpc",
        "rpc.service": "inference.GRPCInferenceService",
        "rpc.method": "ModelInfer",
        "rpc.grpc.status_code": 0,
        "inferry.model.name": "picky",
        "inferry.model.version": "1",
    }
    (waited,), (computed,), (batch,) = running.spans("queue"), running.spans("compute"), running.spans("batch")
    assert parent_of(waited) == parent_of(computed) == context_of(span)
    assert parent_of(batch) is None
    times = [span.start_time, waited.start_time, waited.end_time, computed.start_time, computed.end_time, span.end_time]
    assert times == sorted(times, key=lambda time: time or 0)
    assert (batch.start_time, batch.end_time) == (computed.start_time, computed.end_time)


def test_a_batch_links_its_members_and_they_point_to_it(traced: Serve) -> None:
    with traced(max_batch_size=4, max_queue_delay_us=FOR_EVER_US) as running:
        first = running.infer_later(1, headers=SAMPLED)
        running.wait_for_queued_rows(1)
        unseen = running.infer_later(2, headers=UNSAMPLED)
        running.wait_for_queued_rows(2)
        last = running.infer_later(1, 3, headers=SAMPLED)  # the batch is full with it
        for _, outcome in (first, unseen, last):
            assert isinstance(outcome.get(timeout=SOON_S), triton.InferResult)
    requests, computed, (batch,) = running.spans(INFER), running.spans("compute"), running.spans("batch")
    assert len(requests) == len(computed) == 2
    assert linked(batch) == {context_of(request) for request in requests}
    assert attributes(batch)["inferry.batch.requests"] == 3
    assert attributes(batch)["inferry.batch.rows"] == 4
    assert {parent_of(span) for span in computed} == linked(batch)
    assert all(linked(span) == {context_of(batch)} for span in computed)


def test_a_request_larger_than_a_batch_was_computed_in_several(traced: Serve) -> None:
    with traced(max_batch_size=2) as running:
        running.infer(0, 1, 2, 3, 0, headers=SAMPLED)
    batches = running.spans("batch")
    assert sorted(attributes(batch)["inferry.batch.rows"] for batch in batches) == [1, 2, 2]
    assert {link for span in running.spans("compute") for link in linked(span)} == {context_of(b) for b in batches}
    assert len(running.spans("queue")) == 1


def test_the_caller_decides_and_otherwise_the_ratio(traced: Serve) -> None:
    with traced(sample_ratio=0.0) as running:
        running.infer(1)
        running.infer(1, headers=UNSAMPLED)
    assert not running.all_spans()
    with traced(sample_ratio=1.0) as running:
        running.infer(1)
        running.infer(1, headers=UNSAMPLED)
    (span,) = running.spans(INFER)
    assert parent_of(span) is None


def test_a_request_that_fails_and_its_batch_say_why(traced: Serve) -> None:
    with traced() as running, pytest.raises(InferenceServerException):
        running.infer(99, headers=SAMPLED)
    (span,), (batch,), (computed,) = running.spans(INFER), running.spans("batch"), running.spans("compute")
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]
    assert span.status.status_code is batch.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == attributes(batch)["error.type"] == "inference_failed"
    assert linked(computed) == {context_of(batch)}


def test_a_request_refused_at_the_door_never_queued(traced: Serve) -> None:
    limits: dict[str, Any] = {"max_batch_size": 4, "max_request_rows": 4, "max_queue_size": 4}
    with traced(**limits, max_queue_delay_us=FOR_EVER_US) as running:
        _, waiting = running.infer_later(0, 1, 2, headers=UNSAMPLED)
        running.wait_for_queued_rows(3)
        with pytest.raises(InferenceServerException, match="queue is full"):
            running.infer(0, 1, headers=SAMPLED)
        with pytest.raises(InferenceServerException, match="deadline"):
            running.infer(0, headers=SAMPLED, timeout=1)
        with pytest.raises(InferenceServerException, match="not in the repository"):
            running.infer(0, headers=SAMPLED, model="nothing")
        running.infer(0, headers=UNSAMPLED)  # the batch is full with it
        assert isinstance(waiting.get(timeout=SOON_S), triton.InferResult)
    assert not running.spans("queue")
    full, late, unknown = running.spans(INFER)
    assert attributes(full)["error.type"] == "queue_full_rows"
    assert full.status.status_code is StatusCode.UNSET  # nothing is wrong with the server
    assert attributes(full)["inferry.model.name"] == "picky"
    assert attributes(late)["error.type"] == "deadline_at_admission"
    assert late.status.status_code is StatusCode.ERROR
    assert attributes(unknown)["error.type"] == "model_not_found"
    assert "inferry.model.name" not in attributes(unknown)


def test_a_request_given_up_in_the_queue_has_waited_to_its_end(traced: Serve) -> None:
    with traced(max_batch_size=4, max_queue_delay_us=FOR_EVER_US) as running:
        call, outcome = running.infer_later(1, headers=SAMPLED)
        running.wait_for_queued_rows(1)
        call.cancel()
        assert isinstance(outcome.get(timeout=SOON_S), InferenceServerException)
        running.wait_for_queued_rows(0)
    (span,), (waited,) = running.spans(INFER), running.spans("queue")
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert waited.end_time == span.end_time
    assert not running.spans("compute")


def test_each_request_of_a_stream_has_a_span_of_its_own(traced: Serve) -> None:
    with traced() as running:
        responses: queue.Queue[Any] = queue.Queue()
        running.client.start_stream(lambda result, error: responses.put(error or result), headers=SAMPLED)
        for model in ("picky", "nothing", "picky"):
            running.client.async_stream_infer(model, [tensor(1)])
        for _ in range(3):
            responses.get(timeout=SOON_S)
        running.client.stop_stream()
    spans = sorted(running.spans(STREAM_INFER), key=lambda span: span.start_time or 0)
    assert [attributes(span)["rpc.grpc.status_code"] for span in spans] == [0, 5, 0]
    assert {parent_of(span) for span in spans} == {(TRACE, CALLER)}
    assert len(running.spans("compute")) == 2


def test_requests_of_a_stream_that_is_given_up_are_ended(traced: Serve) -> None:
    with traced(max_batch_size=4, max_queue_delay_us=FOR_EVER_US) as running:
        running.client.start_stream(never_answered, headers=SAMPLED)
        running.client.async_stream_infer("picky", [tensor(1)])
        running.wait_for_queued_rows(1)
        running.client.stop_stream(cancel_requests=True)
        running.wait_for_queued_rows(0)
    (span,) = running.spans(STREAM_INFER)
    assert attributes(span)["rpc.grpc.status_code"] == grpc.StatusCode.CANCELLED.value[0]
    assert len(running.spans("queue")) == 1


def test_pictures_are_traced_and_health_checks_are_not(traced: Serve) -> None:
    image = pb.Image(pixels=pb.Pixels(height=4, width=4, channels=1, data=bytes(16)))
    request = pb.ClassifyRequest(model_name="brightness", images=[image])
    method = IMAGE_CLASSIFIER["Classify"]
    with (
        traced(sample_ratio=1.0) as running,
        grpc.insecure_channel(str(running.server.grpc_address)) as channel,
    ):
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON_S)
        stub: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method.path)
        stub(request.SerializeToString(), timeout=SOON_S)
    assert [span.name for span in running.all_spans() if span.kind is SpanKind.SERVER] == [method.path[1:]]
    assert attributes(running.spans("compute")[0])["inferry.model.name"] == "brightness"
