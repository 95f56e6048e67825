"""A real server whose device is held, with a base that has a short queue, and a variant of the base.

One request runs, and the queue of the base, of four rows, is full.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from testkit import onnx_models
from testkit.gated_server import GatedServer, gated_server
from testkit.metrics_page import wait_for_metrics
from testkit.rpc import Future, begin, infer_request
from testkit.waiting import SOON_S

ROOM = 4  # rows of the base's queue, and of a batch
BASE, VARIANT = "brightness", "brightness-int8"


@contextmanager
def degrading_server(
    root: Path, *settings_of_base: str, points_lost: float = 0.05, **settings: Any
) -> Iterator[tuple[GatedServer, grpc.Channel]]:
    """A server with a base, whose queue is short, and a variant of it."""
    onnx_models.save_brightness(root)
    onnx_models.save_brightness_variant(root, points_lost=points_lost)
    limit(root, *settings_of_base)
    with gated_server(root, **settings) as gated, grpc.insecure_channel(gated.address) as channel:
        yield gated, channel


@contextmanager
def full_server(
    root: Path, *settings_of_base: str, **settings: Any
) -> Iterator[tuple[GatedServer, grpc.Channel, list[Future]]]:
    """Such a server whose base is full; and the requests that fill it, which are cancelled when nobody keeps them."""
    with degrading_server(root, *settings_of_base, **settings) as (gated, channel):
        yield gated, channel, fill(gated, channel)


def limit(root: Path, *settings_of_base: str) -> None:
    """Give the base, and it alone, a short queue."""
    stated = (f"max_batch_size: {ROOM}", f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {ROOM} }} }}")
    (root / BASE / "config.pbtxt").write_text("\n".join([*stated, *settings_of_base]))


def fill(gated: GatedServer, channel: grpc.Channel) -> list[Future]:
    gated.gate.close()
    held = begin(channel, "ModelInfer", pictures())
    gated.gate.wait_for_runs(1)
    waiting = begin(channel, "ModelInfer", pictures(ROOM))
    gated.wait_for_queued_rows(BASE, ROOM)
    return [held, waiting]


def pictures(rows: int = 1, *, accept: bool | str | None = None, request_id: str = "") -> ModelInferRequest:
    request = infer_request(BASE, images=np.full((rows, 4, 4, 1), 255, np.uint8))
    request.id = request_id
    if isinstance(accept, bool):
        request.parameters["accept_variant"].bool_param = accept
    elif accept is not None:
        request.parameters["accept_variant"].string_param = accept
    return request


def picture(accept: str = "") -> ClassifyRequest:
    request = ClassifyRequest(model_name=BASE, accept_variant=accept)
    request.images.add().pixels.MergeFrom(_white())
    return request


def _white() -> Any:
    pixels = type(ClassifyRequest().images.add().pixels)(height=4, width=4, channels=1)
    pixels.data = bytes([255]) * 16
    return pixels


def who(future: Future) -> tuple[str, str, str]:
    """The model and version that answered, and the variant that the answer names."""
    response = ModelInferResponse.FromString(future.result(SOON_S))
    return response.model_name, response.model_version, response.parameters["variant"].string_param


def counted(metrics: dict[str, float], model: str) -> dict[str, float]:
    """How the requests of a model ended, by outcome and reason."""
    ended = "inferry_model_requests_total"
    return {
        f"{outcome} {reason}".strip(): value
        for outcome in ("answered", "refused", "failed", "cancelled")
        for reason in ("", "shed", "queue_full_rows", "overloaded")
        if (value := metrics.get(f'{ended}{{model="{model}",outcome="{outcome}",reason="{reason}",version="1"}}'))
    }


def when_ended(gated: GatedServer, total: int) -> dict[str, float]:
    """The metrics, once so many requests are counted, of the base and its variant together: replies come first."""
    return wait_for_metrics(
        gated.server,
        lambda page: sum(sum(counted(page, model).values()) for model in (BASE, VARIANT)) == total,
        f"{total} requests to be counted",
    )


def begin_shedding(gated: GatedServer, model: str) -> Any:
    shedding = gated.server.registry.find(model, "").batcher.shedding
    shedding.refused(gated.clock())
    shedding.begin(0.02)
    gated.server._transport._inline_work.shedding = shedding  # type: ignore[attr-defined]
    return shedding
