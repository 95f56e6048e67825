"""inferry.v1.ImageClassifier: pictures in, labels out."""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto import classifier_pb2 as pb
from inferry_proto.datatypes import Arrays
from inferry_proto.services import IMAGE_CLASSIFIER
from inferry_proto.variants import Accepted
from inferry_server.batching.request import DeadlinePolicy, InferenceRequest, Timing
from inferry_server.errors import (
    DeadlineExceededError,
    InferenceError,
    InvalidRequestError,
    PictureTooCostlyError,
    ServingError,
    ShedError,
    ShuttingDownError,
    TooManyTextsError,
)
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Call, Cancel, Outcome, StreamCall, StreamHandler, UnaryHandler
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.degrading import CAPACITY, Degrading
from inferry_server.services.pictures import PictureLimits
from inferry_server.services.pixels import pixels_of
from inferry_server.services.streams import OrderedStream, StreamFormat
from inferry_server.signature import signature_to_manifest
from inferry_server.trace import NoTracer, RequestTrace, Tracer
from inferry_server.wire.classification import label_of, top_classes
from inferry_server.wire.decode import accepted_by
from inferry_server.wire.encode import submessage
from inferry_server.wire.inputs import MOST_TEXTS
from inferry_server.wire.messages import parse


class ClassifierService:
    """Prepares pictures as the model's manifest says and names what they show. Thread-safe."""

    def __init__(
        self,
        registry: ModelRegistry,
        deadlines: DeadlinePolicy,
        pool: DecodingPool,
        tracer: Tracer | None = None,
        *,
        limits: PictureLimits | None = None,
        most_texts: int = MOST_TEXTS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._degrading = Degrading(registry)
        self._deadlines = deadlines
        self._pool = pool
        self._limits = limits or PictureLimits()
        self._most_texts = most_texts
        self._tracer = tracer or NoTracer()
        self._clock = clock

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {
            IMAGE_CLASSIFIER["Classify"].path: self.classify,
            IMAGE_CLASSIFIER["DescribeModel"].path: self.describe_model,
        }

    def stream_handlers(self) -> dict[str, StreamHandler]:
        """Handlers by path."""
        return {IMAGE_CLASSIFIER["ClassifyStream"].path: self.classify_stream}

    def describe_model(self, call: Call, message: bytes) -> None:
        """What a model takes and gives, and how pictures become its input."""
        request = parse(pb.DescribeModelRequest, message)
        model = self._registry.find(request.model_name, request.model_version)
        response = pb.DescribeModelResponse(
            model_name=model.model,
            model_version=model.version,
            signature=signature_to_manifest(model.signature),
            labels=model.score_labels,
            preprocessing=model.preprocessing,
            max_batch_size=model.max_request_rows,
            model_sha256=model.model_sha256,
        )
        call.reply(response.SerializeToString())

    def classify(self, call: Call, message: bytes) -> Cancel:
        """Check a request and hand its pictures to the decoding threads."""
        return self.submit(message, call, call_deadline=call.deadline, trace=call.trace, waited_s=call.waited_s)

    def classify_stream(self, call: StreamCall) -> OrderedStream:
        """Classify request after request; replies leave in the order of the requests."""
        return OrderedStream(call, STREAM_FORMAT, self.submit, self._tracer)

    def submit(
        self,
        message: bytes,
        outcome: Outcome,
        *,
        call_deadline: float | None,
        trace: RequestTrace | None,
        waited_s: float = 0.0,
    ) -> Cancel:
        """Check a request and decode its pictures, here if they are small, else on the decoding threads.

        Arguments are as of `InferenceService.submit`.

        Returns:
            What forgets the request, if nobody wants the reply any more.

        Raises:
            ServingError: the request was refused; `outcome` will not be called.
        """
        request = parse(pb.ClassifyRequest, message)
        incoming = _Incoming(request, request.id, self._clock() - waited_s, trace)
        return self._with_version(
            incoming, lambda model: self._check_and_decode(model, incoming, outcome, call_deadline)
        )

    def _check_and_decode(
        self,
        model: ServedVersion,
        incoming: "_Incoming",
        outcome: Outcome,
        call_deadline: float | None,
    ) -> Cancel:
        request = incoming.request
        if incoming.trace is not None:
            incoming.trace.concerns(model.model, model.version)
        model.require_preprocessing()
        count, limit = len(request.images), model.max_request_rows
        if not 1 <= count <= limit:
            raise InvalidRequestError(f"the request has {count} images; model {model.model!r} takes 1 to {limit}")
        if not 0 <= request.min_probability <= 1:
            raise InvalidRequestError(f"min_probability is {request.min_probability}; expected 0 to 1")
        _accepted(request)
        if (labels := _label_count(request, model)) > self._most_texts:  # guard: pictures-labels-counted
            raise TooManyTextsError(f"the reply to {count} pictures", limit=self._most_texts, actual=labels)
        deadline = self._deadlines.deadline(
            incoming.arrived_at,
            call_deadline=call_deadline,
            timeout_s=None,
            model_objective_s=model.latency_objective_s,
        )
        if model.batcher.relief.active:
            model.batcher.relief.count(count, incoming.arrived_at, model.batcher.capacity_rows_per_s)
        shed_s = self._sheds_s(model, request, deadline)
        if shed_s and not self._variants(model, request):  # guard: shed-pictures
            raise ShedError(retry_after_s=shed_s)
        cancellation, nbytes = _Cancellation(), request.ByteSize()
        small = self._limits.small(model.require_preprocessing(), count=count, nbytes=nbytes)
        if small is not None:
            with suppress(PictureTooCostlyError):  # one is not, and was not decoded
                return self._submit_to(model, incoming, outcome, deadline, cancellation, small)
        self._pool.submit(lambda: self._decode_and_submit(incoming, outcome, deadline, cancellation), nbytes=nbytes)
        return cancellation.cancel

    def _decode_and_submit(
        self,
        incoming: "_Incoming",
        outcome: Outcome,
        deadline: float | None,
        cancellation: "_Cancellation",
    ) -> None:
        try:
            cancel = self._with_version(
                incoming,
                lambda model: self._submit_to(model, incoming, outcome, deadline, cancellation, self._limits),
            )
        except Exception as error:  # noqa: BLE001 - on this thread nobody else would answer
            outcome.fail(error)
            return
        cancellation.queued(cancel)

    def _submit_to(
        self,
        model: ServedVersion,
        incoming: "_Incoming",
        outcome: Outcome,
        deadline: float | None,
        cancellation: "_Cancellation",
        limits: PictureLimits,
    ) -> Cancel:
        request, started = incoming.request, self._clock()
        preprocessing = model.require_preprocessing()
        pictures = []
        go_on = partial(self._check_wanted, deadline, cancellation, started)
        try:
            for position, image in enumerate(request.images):
                go_on()
                pictures.append(pixels_of(image, preprocessing, position, limits, go_on))
        except _CancelledError:
            model.observer.request_cancelled()
            return _nothing
        images = np.stack(pictures)
        model.check_reply_size({model.signature.inputs[0].name: images})
        reply = _Reply(outcome, request, model, decode_s=self._clock() - started)
        queued = incoming.queued = InferenceRequest(
            inputs={model.signature.inputs[0].name: images},
            rows=len(images),
            reply=reply,
            deadline=deadline,
            trace=incoming.trace,
            request_id=incoming.request_id,
            arrived_at=incoming.arrived_at,
        )
        try:
            shed_s = self._sheds_s(model, request, deadline)
            if shed_s and self._variants(model, request):  # else it came before, and is judged by its deadline
                raise ShedError(retry_after_s=shed_s)
            model.batcher.submit(queued)
        except CAPACITY as refusal:
            return self._degrade(request, queued, reply, refusal)
        return lambda: model.batcher.cancel(queued)

    def _sheds_s(self, model: ServedVersion, request: pb.ClassifyRequest, deadline: float | None) -> float:
        """Seconds after which the client may send a request again that the version does not take; 0 if it takes it."""
        left_s = 0.0
        if model.batcher.relief.active:
            rows = len(request.images)
            left_s = self._degrading.left_s(
                model, partial(_accepted, request), rows=rows, deadline=deadline, now=self._clock()
            )
        return left_s or model.batcher.shedding.retry_after_s

    def _variants(self, model: ServedVersion, request: pb.ClassifyRequest) -> Sequence[ServedVersion]:
        """The variants that may classify the pictures of a request where its version has no room for it."""
        return self._degrading.variants(model, partial(_accepted, request))

    def _degrade(
        self, request: pb.ClassifyRequest, refused: InferenceRequest, reply: "_Reply", refusal: ServingError
    ) -> Cancel:
        """Queue a request that its version has refused for one of the version's variants, or pass the refusal on."""

        def reply_of(variant: ServedVersion, precision: str) -> _Reply:
            return replace(reply, model=variant, variant=precision)

        variants = self._variants(reply.model, request)
        cancel = self._degrading.submit(refused, variants, reply_of, instead_of=reply.model)
        if cancel is None:
            raise refusal
        return cancel

    def _check_wanted(self, deadline: float | None, cancellation: "_Cancellation", started: float) -> None:
        """Raise if decoding is of no use: the request was cancelled, is late, or decoding takes too long.

        Called while decoding, too.
        """
        if self._pool.is_closed:
            raise ShuttingDownError
        if (took_s := self._clock() - started) > self._limits.timeout_s:  # guard: pictures-timeout
            raise PictureTooCostlyError(
                f"decoding the pictures has taken {took_s:.1f} s; at most {self._limits.timeout_s:g} s are given to a "
                "request (setting decode_timeout_s)"
            )
        if cancellation.cancelled:  # guard: pictures-none-decoded
            raise _CancelledError
        if deadline is not None and (late_s := self._clock() - deadline) >= 0:  # guard: pictures-none-decoded-too
            raise DeadlineExceededError(late_s=late_s, needed_s=0.0, stage="in_decoding")

    def _with_version(self, incoming: "_Incoming", use: Callable[[ServedVersion], Cancel]) -> Cancel:
        request = incoming.request
        return self._registry.with_version(request.model_name, request.model_version, use, origin=incoming)


STREAM_FORMAT = StreamFormat(
    request_id=lambda message: parse(pb.ClassifyRequest, message).id,
    reply=submessage(pb.ClassifyStreamResponse.DESCRIPTOR.fields_by_name["response"].number),
    error=lambda status, request_id: pb.ClassifyStreamResponse(
        error_code=status.code.value[0], error_message=status.message, response=pb.ClassifyResponse(id=request_id)
    ),
)


@dataclass
class _Incoming:
    """A request from its arrival on; see `Origin`."""

    request: pb.ClassifyRequest
    request_id: str
    arrived_at: float
    trace: RequestTrace | None
    queued: InferenceRequest | None = None


class _CancelledError(Exception):
    """Nobody wants the reply any more."""


class _Cancellation:
    """Forgets a request wherever it is: before its pictures are decoded, or in the model's queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancel: Cancel | None = None
        self.cancelled = False

    def cancel(self) -> None:
        with self._lock:
            self.cancelled = True
            cancel = self._cancel
        if cancel is not None:
            cancel()

    def queued(self, cancel: Cancel) -> None:
        with self._lock:
            self._cancel = cancel
            cancelled = self.cancelled
        if cancelled:
            cancel()


@dataclass(frozen=True)
class _Reply:
    """Takes a request's probabilities from the batcher and makes its reply."""

    outcome: Outcome
    request: pb.ClassifyRequest
    model: ServedVersion
    decode_s: float
    variant: str = ""

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        probabilities = outputs[self.model.signature.outputs[0].name]
        if len(probabilities) != len(self.request.images):  # guard: alone-row-each-picture
            raise InferenceError(f"{len(probabilities)} rows of scores came for {len(self.request.images)} pictures")
        response = pb.ClassifyResponse(
            model_name=self.model.model,
            model_version=self.model.version,
            variant=self.variant,
            id=self.request.id,
            results=[_result(row, self.model.score_labels, self.request) for row in probabilities],
            timing=pb.Timing(
                decode_us=_microseconds(self.decode_s),
                queue_us=_microseconds(timing.queue_s),
                compute_us=_microseconds(timing.compute_s),
            ),
        )
        return partial(self.outcome.reply, response.SerializeToString())

    def fail(self, error: Exception) -> None:
        self.outcome.fail(error)


def _accepted(request: pb.ClassifyRequest) -> Accepted | None:
    """The precisions whose variants may answer; None where the request does not say."""
    return accepted_by(request.accept_variant) if request.accept_variant else None


def _label_count(request: pb.ClassifyRequest, model: ServedVersion) -> int:
    """Labels of a reply; where nobody knows how many classes there are, one for each picture."""
    return len(request.images) * max(1, min(request.top_k, model.signature.outputs[0].shape[-1]))


def _nothing() -> None:
    """Nothing is left to forget."""


def _result(probabilities: NDArray[Any], labels: Sequence[str], request: pb.ClassifyRequest) -> pb.ImageResult:
    best = top_classes(probabilities, request.top_k or 1)
    return pb.ImageResult(
        classifications=[
            pb.Classification(index=index, label=label_of(labels, index), probability=float(probabilities[index]))
            for index in best
            if not probabilities[index] < request.min_probability
        ]
    )


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
