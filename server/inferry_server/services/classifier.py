"""inferry.v1.ImageClassifier: pictures in, labels out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_proto import classifier_pb2 as pb
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import PictureError, UInt8Array, prepare_image, prepare_pixels
from inferry_proto.services import IMAGE_CLASSIFIER
from inferry_server.batching.request import Arrays, InferenceRequest, Timing
from inferry_server.classification import top_classes
from inferry_server.errors import DecodingError, InvalidRequestError
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Call, UnaryHandler, fail
from inferry_server.services.deadlines import DeadlinePolicy
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.messages import parse
from inferry_server.signature import signature_to_manifest


class ClassifierService:
    """Prepares pictures as the model's manifest says and names what they show. Thread-safe."""

    def __init__(
        self,
        registry: ModelRegistry,
        deadlines: DeadlinePolicy,
        pool: DecodingPool,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._deadlines = deadlines
        self._pool = pool
        self._clock = clock

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        return {
            IMAGE_CLASSIFIER["Classify"].path: self.classify,
            IMAGE_CLASSIFIER["DescribeModel"].path: self.describe_model,
        }

    def describe_model(self, call: Call, message: bytes) -> None:
        """What a model takes and gives, and how pictures become its input."""
        request = parse(pb.DescribeModelRequest, message)
        model = self._registry.find(request.model_name, request.model_version)
        response = pb.DescribeModelResponse(
            model_name=model.model,
            model_version=model.version,
            signature=signature_to_manifest(model.signature),
            labels=model.labels,
            preprocessing=model.preprocessing,
            max_batch_size=model.max_request_rows,
        )
        call.reply(response.SerializeToString())

    def classify(self, call: Call, message: bytes) -> None:
        """Check a request and hand its pictures to the decoding threads."""
        request = parse(pb.ClassifyRequest, message)
        model = self._registry.find(request.model_name, request.model_version)
        preprocessing = model.require_preprocessing()
        count, limit = len(request.images), model.max_request_rows
        if not 1 <= count <= limit:
            raise InvalidRequestError(f"the request has {count} images; model {model.model!r} takes 1 to {limit}")
        deadline = self._deadlines.deadline(
            self._clock(), call_deadline=call.deadline, timeout_s=None, model_objective_s=model.latency_objective_s
        )
        self._pool.submit(lambda: self._decode_and_submit(call, request, model, preprocessing, deadline))

    def _decode_and_submit(
        self,
        call: Call,
        request: pb.ClassifyRequest,
        model: ServedVersion,
        preprocessing: Preprocessing,
        deadline: float | None,
    ) -> None:
        started = self._clock()
        try:
            images = np.stack([_pixels(image, preprocessing, i) for i, image in enumerate(request.images)])
            queued = InferenceRequest(
                inputs={model.signature.inputs[0].name: images},
                rows=len(images),
                reply=_ClassifyReply(call, request, model, decode_s=self._clock() - started),
                deadline=deadline,
            )
            model.batcher.submit(queued)
        except Exception as error:  # noqa: BLE001 - on this thread nobody else would answer the call
            fail(call, error)
            return
        call.on_cancel(lambda: model.batcher.cancel(queued))


@dataclass(frozen=True)
class _ClassifyReply:
    call: Call
    request: pb.ClassifyRequest
    model: ServedVersion
    decode_s: float

    def complete(self, outputs: Arrays, timing: Timing) -> None:
        probabilities = outputs[self.model.signature.outputs[0].name]
        response = pb.ClassifyResponse(
            model_name=self.model.model,
            model_version=self.model.version,
            id=self.request.id,
            results=[_result(row, self.model.labels, self.request.top_k or 1) for row in probabilities],
            timing=pb.Timing(
                decode_us=_microseconds(self.decode_s),
                queue_us=_microseconds(timing.queue_s),
                compute_us=_microseconds(timing.compute_s),
            ),
        )
        self.call.reply(response.SerializeToString())

    def fail(self, error: Exception) -> None:
        fail(self.call, error)


def _result(probabilities: NDArray[Any], labels: Sequence[str], top_k: int) -> pb.ImageResult:
    return pb.ImageResult(
        classifications=[
            pb.Classification(
                index=index, label=labels[index] if labels else "", probability=float(probabilities[index])
            )
            for index in top_classes(probabilities, top_k)
        ]
    )


def _pixels(image: pb.Image, preprocessing: Preprocessing, position: int) -> UInt8Array:
    try:
        if image.WhichOneof("content") == "pixels":
            return prepare_pixels(_raw_pixels(image.pixels), preprocessing)
        return prepare_image(image.encoded, preprocessing)
    except PictureError as error:
        raise DecodingError(f"image {position}: {error}") from error


def _raw_pixels(pixels: pb.Pixels) -> UInt8Array:
    expected = pixels.height * pixels.width * pixels.channels
    if len(pixels.data) != expected:
        raise PictureError(
            f"{len(pixels.data)} bytes came for {pixels.height}x{pixels.width}x{pixels.channels} pixels; "
            f"expected {expected}"
        )
    return np.frombuffer(pixels.data, np.uint8).reshape(pixels.height, pixels.width, pixels.channels)


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
