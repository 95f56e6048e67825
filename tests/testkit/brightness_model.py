"""Scripts of a server with one model, `brightness`: dark, grey or bright, by a picture's mean level."""

from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from inferry_proto import classifier_pb2, open_inference_pb2
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import PictureError, prepare_image, prepare_pixels
from testkit.pictures import encode_picture
from testkit.scripted_server import Refusal, Script

MODEL, VERSION, LABELS = "brightness", "3", ("dark", "grey", "bright")
PREPROCESSING = Preprocessing(color_mode=Preprocessing.GRAYSCALE, height=8, width=8, filter=Preprocessing.BILINEAR)
MAX_BATCH_SIZE = 64


def scripts() -> dict[str, Script]:
    """Every RPC that clients call, as a ready server answers them."""
    return {
        "ServerLive": lambda _: open_inference_pb2.ServerLiveResponse(live=True),
        "ServerReady": lambda _: open_inference_pb2.ServerReadyResponse(ready=True),
        "ModelReady": lambda request: open_inference_pb2.ModelReadyResponse(ready=request.name == MODEL),
        "ServerMetadata": lambda _: open_inference_pb2.ServerMetadataResponse(
            name="inferry", version="0.1.0", extensions=["model_repository"]
        ),
        "ModelMetadata": model_metadata,
        "RepositoryIndex": lambda _: index((MODEL, VERSION, "READY", "")),
        "DescribeModel": describe,
        "Classify": classify,
        "ModelInfer": infer,
    }


def index(*models: tuple[str, str, str, str]) -> open_inference_pb2.RepositoryIndexResponse:
    """A repository of (name, version, state, reason)."""
    entry = open_inference_pb2.RepositoryIndexResponse.ModelIndex
    return open_inference_pb2.RepositoryIndexResponse(
        models=[
            entry(name=name, version=version, state=state, reason=reason) for name, version, state, reason in models
        ]
    )


def probabilities(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """`(N, 8, 8, 1)` pixels -> `(N, 3)`; each class as probable as its level is near to the mean."""
    mean = pixels.reshape(len(pixels), -1).mean(axis=1, dtype=np.float64)
    distance = np.abs(mean[:, None] - np.array([0.0, 127.5, 255.0])) / 255
    scores = np.exp(-20 * distance)
    scores /= scores.sum(axis=1, keepdims=True)
    return np.asarray(scores, np.float32)


def describe(request: Any) -> classifier_pb2.DescribeModelResponse:
    _check_model(request.model_name, request.model_version)
    reply = classifier_pb2.DescribeModelResponse(
        model_name=MODEL,
        model_version=VERSION,
        labels=LABELS,
        preprocessing=PREPROCESSING,
        max_batch_size=MAX_BATCH_SIZE,
        model_sha256="0" * 64,
    )
    reply.signature.inputs.add(name="image", datatype="UINT8", shape=(-1, 8, 8, 1))
    reply.signature.outputs.add(name="probabilities", datatype="FP32", shape=(-1, 3))
    return reply


def model_metadata(request: Any) -> open_inference_pb2.ModelMetadataResponse:
    _check_model(request.name, request.version)
    reply = open_inference_pb2.ModelMetadataResponse(name=MODEL, versions=[VERSION], platform="onnxruntime_onnx")
    reply.inputs.add(name="image", datatype="UINT8", shape=(-1, 8, 8, 1))
    reply.outputs.add(name="probabilities", datatype="FP32", shape=(-1, 3))
    return reply


def classify(request: Any) -> classifier_pb2.ClassifyResponse:
    _check_model(request.model_name, request.model_version)
    reply = classifier_pb2.ClassifyResponse(model_name=MODEL, model_version=VERSION, id=request.id)
    reply.timing.compute_us = 7
    for position, image in enumerate(request.images):
        try:
            pixels = _prepare(image)
        except PictureError as error:
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"image {position}: {error}") from error
        scores = probabilities(pixels[None])[0]
        result = reply.results.add()
        for place in np.argsort(-scores, kind="stable")[: max(1, request.top_k)]:
            result.classifications.add(index=int(place), label=LABELS[place], probability=float(scores[place]))
    return reply


def infer(request: Any) -> open_inference_pb2.ModelInferResponse:
    _check_model(request.model_name, request.model_version)
    rows = request.inputs[0].shape[0]
    if rows > MAX_BATCH_SIZE:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, f"{rows} rows came; at most {MAX_BATCH_SIZE} are accepted")
    pixels = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(request.inputs[0].shape)
    reply = open_inference_pb2.ModelInferResponse(model_name=MODEL, model_version=VERSION, id=request.id)
    reply.outputs.add(name="probabilities", datatype="FP32", shape=(rows, 3))
    reply.raw_output_contents.append(probabilities(pixels).tobytes())
    return reply


def picture(level: int, *, size: int = 20, suffix: str = ".png") -> bytes:
    """An encoded grey picture with a slope around one level."""
    slope = np.linspace(-10, 10, size)[:, None] + np.linspace(-3, 3, size)[None, :]
    pixels = (level + slope).clip(0, 255).astype(np.uint8)
    return encode_picture(pixels, {".png": "PNG", ".jpg": "JPEG"}[suffix])


def write_pictures(folder: Path, count: int) -> list[Path]:
    """`count` different PNG files, `0000.png` and on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:04}.png" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number * 37 % 256))
    return paths


def _check_model(model: str, version: str) -> None:
    if model != MODEL:
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"model {model!r} is not in the repository")
    if version not in ("", VERSION):
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"model {model!r} has no version {version!r}")


def _prepare(image: classifier_pb2.Image) -> NDArray[np.uint8]:
    if image.HasField("encoded"):
        return prepare_image(image.encoded, PREPROCESSING)
    shape = (image.pixels.height, image.pixels.width, image.pixels.channels)
    return prepare_pixels(np.frombuffer(image.pixels.data, np.uint8).reshape(shape), PREPROCESSING)
