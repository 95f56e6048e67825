"""Traces by OpenTelemetry, sent by OTLP. The one module that imports it: the extra `tracing` brings it."""

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace import Tracer as OtelTracer

from inferry_server import __version__
from inferry_server.errors import ServingError
from inferry_server.telemetry.trace_context import CallerContext, caller_context
from inferry_server.trace import Metadata, TracedBatch

logger = logging.getLogger(__name__)

# The codes that are a server's fault, by OpenTelemetry's conventions for gRPC:
# UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
_SERVER_ERRORS = frozenset({2, 4, 12, 13, 14, 15})
_GIVE_UP_S = 1.0  # what the exporter may take to notice that it was shut down


def otlp_tracer(endpoint: str, sample_ratio: float) -> "RequestTracer":
    """A tracer that sends to a collector.

    Args:
        endpoint: `http://HOST:PORT`, or `https://` for TLS.
        sample_ratio: share of the requests to trace whose callers did not decide, 0 to 1.
    """
    return RequestTracer(
        lambda: OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://")), sample_ratio
    )


class RequestTracer:
    """A span for each sampled request, with its waiting and computing below it, and one for each batch.

    Whether a request is sampled is decided once, when it arrives: by its caller, or by chance. Spans
    are sent from a thread of their own; where they cannot be sent, some wait, the rest are dropped.

    Args:
        make_exporter: where spans go.
        sample_ratio: share of the requests to trace whose callers did not decide, 0 to 1.
        chance: a number from 0 up to 1.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        make_exporter: Callable[[], SpanExporter],
        sample_ratio: float,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_exporter = make_exporter
        self._sample_ratio = sample_ratio
        self._chance = chance
        self._clock = clock
        self._last_words = _LastWords()
        self._exporter: _ReportingExporter | None = None
        self._processor: BatchSpanProcessor | None = None
        self._tracer: OtelTracer | None = None

    def start(self) -> None:
        """Start the thread that sends."""
        self._exporter = _ReportingExporter(self._make_exporter(), self._last_words)
        self._processor = BatchSpanProcessor(self._exporter)  # its queue is bounded
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not sampled does not come here
            resource=Resource({"service.name": "inferry", "service.version": __version__}).merge(
                OTELResourceDetector().detect()  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
            ),
            span_limits=SpanLimits(max_links=SpanLimits.UNSET),  # a batch links every member
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("inferry_server", __version__)
        _library_logger.addHandler(self._last_words)
        _library_logger.propagate = False

    def begin(self, method: str, metadata: Metadata) -> "_RequestTrace | None":
        """A request has arrived: its trace, or None where it is not sampled."""
        caller = caller_context(metadata)
        sampled = self._chance() < self._sample_ratio if caller is None else caller.sampled
        if not sampled or self._tracer is None:
            return None
        return _RequestTrace(self._tracer, method, caller, self._clock)

    def close(self, timeout_s: float) -> None:
        """Send what is left, for no longer than that."""
        if self._processor is None or self._exporter is None:
            return
        # The library would wait for a collector that does not answer, for as long as it thinks fit.
        sending = threading.Thread(target=self._processor.shutdown, name="traces-flush", daemon=True)
        sending.start()
        sending.join(timeout_s)
        if sending.is_alive():
            logger.warning("not every trace could be sent before the end")
            self._exporter.shutdown()
            sending.join(_GIVE_UP_S)
        _library_logger.removeHandler(self._last_words)
        _library_logger.propagate = True


class _RequestTrace:
    """See `RequestTrace`. Children are made when they have ended, so that nobody waits for them."""

    def __init__(
        self, tracer: OtelTracer, method: str, caller: CallerContext | None, clock: Callable[[], float]
    ) -> None:
        self._tracer = tracer
        self._clock = clock
        began = clock()
        self._epoch_ns = time.time_ns() - round(began * 1e9)  # of the monotonic clock, on the calendar's
        service, _, name = method.removeprefix("/").partition("/")
        self._span = tracer.start_span(
            f"{service}/{name}",
            context=_parent(caller),
            kind=SpanKind.SERVER,
            attributes={"rpc.system": "grpc", "rpc.service": service, "rpc.method": name},
            start_time=self._ns(began),
        )
        self.trace_id = format(self._span.get_span_context().trace_id, "032x")
        self._model: dict[str, str] = {}
        self._lock = threading.Lock()
        self._ended = False
        self.queued_at: float | None = None
        self.taken_at: float | None = None

    def concerns(self, model: str, version: str) -> None:
        self._model = {"inferry.model.name": model, "inferry.model.version": version}
        self._span.set_attributes(self._model)

    def trace_batch(self, batch: TracedBatch) -> None:
        members = [member for member in batch.members if isinstance(member, _RequestTrace)]
        span = self._tracer.start_span(
            "batch",
            context=Context(),  # it belongs to all of them, so to the trace of none
            attributes=self._model | {"inferry.batch.rows": batch.rows, "inferry.batch.requests": batch.requests},
            links=[Link(member._span.get_span_context()) for member in members],
            start_time=self._ns(batch.began),
        )
        span.add_event("assembled", timestamp=self._ns(batch.assembled))
        if batch.error is not None:
            span.set_attribute("error.type", _kind_of(batch.error))
            span.set_status(StatusCode.ERROR, str(batch.error))
        span.end(self._ns(batch.ended))
        for member in members:
            member._child("compute", batch.began, batch.ended, links=[Link(span.get_span_context())])

    def ended(self, *, code: int, reason: str) -> None:
        with self._lock:
            if self._ended:
                return
            self._ended = True
        now = self._clock()
        if self.queued_at is not None:
            self._child("queue", self.queued_at, now if self.taken_at is None else self.taken_at)
        self._span.set_attribute("rpc.grpc.status_code", code)
        if reason:
            self._span.set_attribute("error.type", reason)
        if code in _SERVER_ERRORS:
            self._span.set_status(StatusCode.ERROR, reason)
        self._span.end(self._ns(now))

    def _child(self, name: str, began: float, ended: float, links: Sequence[Link] = ()) -> None:
        span = self._tracer.start_span(
            name,
            context=set_span_in_context(self._span, Context()),
            attributes=self._model,
            links=links,
            start_time=self._ns(began),
        )
        span.end(self._ns(ended))

    def _ns(self, at: float) -> int:
        """A time of the monotonic clock, in nanoseconds of the calendar's."""
        return self._epoch_ns + round(at * 1e9)


def _parent(caller: CallerContext | None) -> Context:
    if caller is None:
        return Context()
    span_context = SpanContext(
        caller.trace_id,
        caller.span_id,
        is_remote=True,
        trace_flags=TraceFlags(caller.flags),
        trace_state=TraceState.from_header([caller.trace_state]) if caller.trace_state else None,
    )
    return set_span_in_context(NonRecordingSpan(span_context), Context())


def _kind_of(error: Exception) -> str:
    return error.kind if isinstance(error, ServingError) else type(error).__name__


_library_logger = logging.getLogger("opentelemetry")


class _LastWords(logging.Handler):
    """Keeps what the library says to itself: it says it with every attempt and every span."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


class _ReportingExporter(SpanExporter):
    """Logs when spans no longer get through, and when they do again; once each. Used by one thread."""

    def __init__(self, exporter: SpanExporter, last_words: _LastWords) -> None:
        self._exporter = exporter
        self._last_words = last_words
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the library would log each one
            self._last_words.text = f"{type(error).__name__}: {error}"
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self._failing:
            logger.warning("traces do not get through, and are dropped until they do: %s", self._last_words.text)
        if self._failing and not failed:
            logger.info("traces get through again")
        self._failing = failed
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
