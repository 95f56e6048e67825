"""Requests to compute, built from what callers have. Each is a `Call`: all that a transport needs to know."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Unpack

from inferry_client.limits import MAX_TOP_K, check_share, check_texts, check_whole_number
from inferry_client.messages import replies
from inferry_client.messages.call import Call, CallOptions, Joint, Pieces, name_model, read_options
from inferry_client.messages.pictures import Pictures, as_sequence, read_picture
from inferry_client.messages.tensor_requests import AcceptedVariants, Parameter, Tensors, accepted_variants, infer
from inferry_client.results import ClassifyResult
from inferry_proto import classifier_pb2
from inferry_proto.services import IMAGE_CLASSIFIER

__all__ = [
    "DEFAULT_WINDOW",
    "AcceptedVariants",
    "Parameter",
    "Tensors",
    "classify",
    "infer",
    "request_of",
]


def classify(
    model: str,
    images: Pictures,
    *,
    version: str = "",
    top_k: int = 1,
    min_probability: float = 0.0,
    request_id: str = "",
    accept_variant: AcceptedVariants | None = None,
    **options: Unpack[CallOptions],
) -> Call[ClassifyResult]:
    """The labels of one picture or several.

    Args:
        model: its name.
        images: a picture or a sequence of them: a path, an encoded file (JPEG, PNG, WebP, BMP) as
            bytes, a PIL image, or uint8 `(H, W, C)` or `(H, W)`; an array `(N, H, W, C)` is N
            pictures. More than the server takes in a request are sent in several.
        version: a version or a label; empty for the newest that is ready.
        top_k: labels a picture.
        min_probability: only labels at least this probable, 0 to 1; a picture may then have none.
        request_id: comes back in the result, and is in errors.
        accept_variant: whether a variant of the model may answer where the model has no room: all (True), none
            (False), or those of some precisions (`"int8"`); None: as the model's settings say.
        options: see `CallOptions`.

    Raises:
        InvalidRequestError: nothing that is a picture, none at all, or a value out of its range.
    """
    pictures = as_sequence(images)
    check_texts(model=model, version=version, request_id=request_id)
    top_k = check_whole_number("top_k", top_k, 1, MAX_TOP_K)
    min_probability = check_share("min_probability", min_probability)
    messages = [read_picture(position, picture) for position, picture in enumerate(pictures)]
    request = partial(
        _classify_request,
        model=model,
        top_k=top_k,
        min_probability=min_probability,
        id=request_id,
        accept_variant="" if accept_variant is None else accepted_variants(accept_variant),
    )
    return _classify_call(messages, version, request, read_options(options))


DEFAULT_WINDOW = 16
"""Requests of a stream under way: enough for a server to form batches."""


def request_of(model: str, item: Any, settings: Mapping[str, Any]) -> Call[Any]:
    """The call of one item of a stream: tensors by name, else pictures."""
    return infer(model, item, **settings) if isinstance(item, Mapping) else classify(model, item, **settings)


def _classify_request(
    images: Sequence[classifier_pb2.Image],
    version: str,
    *,
    model: str,
    top_k: int,
    min_probability: float,
    id: str,  # noqa: A002 - the field's name
    accept_variant: str,
) -> classifier_pb2.ClassifyRequest:
    return classifier_pb2.ClassifyRequest(
        model_name=model, model_version=version, id=id, images=images, top_k=top_k, min_probability=min_probability,
        accept_variant=accept_variant,
    )  # fmt: skip


def _classify_call(
    images: Sequence[classifier_pb2.Image],
    version: str,
    build: "partial[classifier_pb2.ClassifyRequest]",
    options: tuple[float | None, tuple[tuple[str, str | bytes], ...]],
) -> Call[ClassifyResult]:
    model = build.keywords["model"]
    pictures = "1 picture" if len(images) == 1 else f"{len(images)} pictures"
    read = partial(replies.read_classify, image_count=len(images))
    asked = f"classify {pictures} with {name_model(model, version)}"
    call = Call(IMAGE_CLASSIFIER["Classify"], build(images, version), read, asked, *options)
    if not (build.keywords["id"] or options[1]):
        asked_alike = [build.keywords[name] for name in ("top_k", "min_probability", "accept_variant")]
        joint = _joint(model, version, *asked_alike)
        call = replace(call, joint=joint, model=(model, version), rows=len(images))
    if len(images) == 1:
        return call

    def cut(start: int, stop: int, version: str) -> Call[ClassifyResult]:
        return _classify_call(images[start:stop], version, build, options)

    return replace(call, pieces=Pieces(model, version, len(images), cut, replies.join_classify))


@lru_cache(maxsize=256)  # calls with the same joint travel together
def _joint(model: str, version: str, top_k: int, min_probability: float, accept_variant: str) -> Joint:
    build = partial(
        _classify_request,
        model=model,
        top_k=top_k,
        min_probability=min_probability,
        id="",
        accept_variant=accept_variant,
    )

    def merge(messages: Sequence[classifier_pb2.ClassifyRequest], timeout_s: float) -> Call[ClassifyResult]:
        images = [image for message in messages for image in message.images]
        return _classify_call(images, version, build, (timeout_s, ()))

    return Joint(merge, replies.split_classify)
