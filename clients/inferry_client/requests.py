"""Requests built from what callers have. Each is a `Call`: all that a transport needs to know."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from google.protobuf.message import Message
from numpy.typing import NDArray

from inferry_client import replies
from inferry_client.errors import InvalidRequestError
from inferry_client.limits import MAX_TOP_K
from inferry_client.results import (
    ClassifyResult,
    InferResult,
    ModelDescription,
    ModelMetadata,
    ModelStatus,
    ServerMetadata,
)
from inferry_client.tensors import encode_tensor, tensor_datatype
from inferry_proto import classifier_pb2, open_inference_pb2
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE, Method

Picture: TypeAlias = bytes | NDArray[np.uint8]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Call(Generic[Result]):
    """One RPC to be made, on whatever transport.

    Attributes:
        method: where it is called.
        request: what is sent.
        read: turns the reply message into the result; ValueError: it breaks the protocol.
        asked: what the caller wants, for messages (`describe model 'mnist'`).
    """

    method: Method
    request: Message
    read: Callable[[Any], Result]
    asked: str


def classify(model: str, images: Sequence[Picture], *, version: str = "", top_k: int = 1) -> Call[ClassifyResult]:
    """Ask for the labels of pictures.

    Args:
        model: its name.
        images: each an encoded file (JPEG, PNG, ...) as bytes, or uint8 `(H, W, C)` or `(H, W)`.
        version: empty for the newest that is ready.
        top_k: labels a picture.

    Raises:
        InvalidRequestError: not a sequence of pictures, none at all, or top_k out of its range.
    """
    came: object = images
    if isinstance(came, (bytes, bytearray, str)):
        raise InvalidRequestError(f"images is one {type(came).__name__}; expected a sequence of pictures: [image]")
    if len(images) == 0:
        raise InvalidRequestError("images is empty; expected at least one picture")
    if not 1 <= top_k <= MAX_TOP_K:
        raise InvalidRequestError(f"top_k is {top_k}; expected 1 to {MAX_TOP_K}")
    request = classifier_pb2.ClassifyRequest(
        model_name=model,
        model_version=version,
        images=[_image(position, image) for position, image in enumerate(images)],
        top_k=top_k,
    )
    pictures = "1 picture" if len(images) == 1 else f"{len(images)} pictures"
    read = partial(replies.read_classify, image_count=len(images))
    return Call(IMAGE_CLASSIFIER["Classify"], request, read, f"classify {pictures} with {_name_model(model, version)}")


def infer(
    model: str, inputs: Mapping[str, NDArray[Any]], *, version: str = "", outputs: Sequence[str] = ()
) -> Call[InferResult]:
    """Ask for a model's outputs.

    Args:
        model: its name.
        inputs: by name; any numeric dtype of the protocol, bool, or bytes and strings (BYTES).
        version: empty for the newest that is ready.
        outputs: names; empty for all.

    Raises:
        InvalidRequestError: an array that the protocol cannot carry.
    """
    request = open_inference_pb2.ModelInferRequest(
        model_name=model,
        model_version=version,
        outputs=[open_inference_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
    )
    for name, array in inputs.items():
        try:
            datatype, raw = tensor_datatype(array).name, encode_tensor(array)
        except (AttributeError, ValueError) as error:
            raise InvalidRequestError(f"input {name!r} of model {model!r} cannot be sent: {error}") from error
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        request.raw_input_contents.append(raw)
    return Call(OPEN_INFERENCE["ModelInfer"], request, replies.read_infer, f"run {_name_model(model, version)}")


def describe_model(model: str, *, version: str = "") -> Call[ModelDescription]:
    """Ask what a model takes and gives."""
    request = classifier_pb2.DescribeModelRequest(model_name=model, model_version=version)
    asked = f"describe {_name_model(model, version)}"
    return Call(IMAGE_CLASSIFIER["DescribeModel"], request, replies.read_description, asked)


def model_metadata(model: str, *, version: str = "") -> Call[ModelMetadata]:
    """Ask for a model's tensors and versions."""
    request = open_inference_pb2.ModelMetadataRequest(name=model, version=version)
    asked = f"describe {_name_model(model, version)}"
    return Call(OPEN_INFERENCE["ModelMetadata"], request, replies.read_model_metadata, asked)


def model_ready(model: str, *, version: str = "") -> Call[bool]:
    """Ask whether a model can answer."""
    request = open_inference_pb2.ModelReadyRequest(name=model, version=version)
    asked = f"say whether {_name_model(model, version)} is ready"
    return Call(OPEN_INFERENCE["ModelReady"], request, replies.read_ready, asked)


def repository_index(*, ready_only: bool = False) -> Call[tuple[ModelStatus, ...]]:
    """Ask for every version in the repository."""
    request = open_inference_pb2.RepositoryIndexRequest(ready=ready_only)
    return Call(OPEN_INFERENCE["RepositoryIndex"], request, replies.read_repository_index, "list its models")


def server_metadata() -> Call[ServerMetadata]:
    """Ask who answers."""
    request = open_inference_pb2.ServerMetadataRequest()
    return Call(OPEN_INFERENCE["ServerMetadata"], request, replies.read_server_metadata, "say who it is")


def server_live() -> Call[bool]:
    """Ask whether the process answers."""
    request = open_inference_pb2.ServerLiveRequest()
    return Call(OPEN_INFERENCE["ServerLive"], request, replies.read_live, "say whether it is live")


def server_ready() -> Call[bool]:
    """Ask whether requests for models are welcome."""
    request = open_inference_pb2.ServerReadyRequest()
    return Call(OPEN_INFERENCE["ServerReady"], request, replies.read_ready, "say whether it is ready")


def _name_model(model: str, version: str) -> str:
    return f"model {model!r} version {version!r}" if version else f"model {model!r}"


def _image(position: int, image: object) -> classifier_pb2.Image:
    if isinstance(image, (bytes, bytearray)):
        return classifier_pb2.Image(encoded=bytes(image))
    if not isinstance(image, np.ndarray):
        raise InvalidRequestError(
            f"image {position} is a {type(image).__name__}; expected an encoded picture as bytes or a uint8 array"
        )
    shape = image.shape if image.ndim == 3 else (*image.shape, 1)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or shape[2] not in (1, 3) or 0 in shape:
        raise InvalidRequestError(
            f"image {position} is {image.dtype} of shape {image.shape}; "
            "expected uint8 of shape (H, W, 1 or 3) or (H, W)"
        )
    pixels = classifier_pb2.Pixels(height=shape[0], width=shape[1], channels=shape[2], data=image.tobytes())
    return classifier_pb2.Image(pixels=pixels)
