"""One chunk: pictures read, prepared as in the model's evaluation, sent as one request."""

import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.errors import JobError
from inferry_client.batch.pictures import printable_path
from inferry_client.batch.store import PartRows
from inferry_client.client import Client
from inferry_client.errors import InferryError
from inferry_client.results import InferResult, ModelDescription
from inferry_client.retries import RetryPolicy, plan_retry
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import PictureError, channel_count, prepare_image

# Beyond what gRPC does inside a call: a job outlasts a restart of the server (some 20 s of
# pauses, and gRPC's own between them), and notices within seconds that it is back.
JOB_RETRIES = RetryPolicy(max_attempts=16, initial_backoff_s=0.25, max_backoff_s=2.0)

_NOT_FINITE = "the model's probabilities are no finite numbers"


@dataclass(frozen=True)
class PictureModel:
    """A model that a job can prepare pictures for.

    Attributes:
        model: its name.
        version: the concrete one.
        input: takes `(N, H, W, C)` uint8 as `preprocessing` makes them.
        output: gives `(N, K)` probabilities.
        preprocessing: what a picture becomes.
        labels: label i names class i; may be empty.
        max_batch_size: pictures a request.
    """

    model: str
    version: str
    input: str
    output: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    max_batch_size: int


def picture_model(description: ModelDescription) -> PictureModel:
    """The model as a job needs it.

    Raises:
        JobError: it takes no pictures prepared by its own preprocessing, or gives no probabilities.
    """
    name = f"model {description.model!r} version {description.version}"
    spec = description.preprocessing
    if spec is None:
        raise JobError(
            f"{name} does not say how pictures are prepared for it, so the job cannot; publish it with a manifest"
        )
    pixels = (spec.height, spec.width, channel_count(spec))
    if len(description.inputs) != 1 or not _takes(description.inputs[0].shape, pixels):
        shapes = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in description.inputs)
        raise JobError(f"{name} takes {shapes}; expected one input of {[-1, *pixels]}, as its preprocessing makes")
    if description.inputs[0].datatype != "UINT8":
        raise JobError(f"{name} takes {description.inputs[0].datatype}; expected UINT8 pixels")
    output = description.outputs[0]
    if len(output.shape) != 2 or not output.datatype.startswith(("FP", "BF")):
        raise JobError(
            f"{name} gives {output.name} {output.datatype} {list(output.shape)}; "
            "expected probabilities of shape [-1, classes]"
        )
    return PictureModel(
        model=description.model,
        version=description.version,
        input=description.inputs[0].name,
        output=output.name,
        preprocessing=spec,
        labels=description.labels,
        max_batch_size=max(1, description.max_batch_size),
    )


class Predictor:
    """Answers chunks of pictures. Any number of threads may call it at the same time.

    A call blocks until its chunk is answered, however often the server was full or away; it raises
    once the retries are used up, the request can never succeed, or `stop` is set.
    """

    def __init__(
        self, client: Client, model: PictureModel, folder: Path, *, stop: threading.Event, retries: RetryPolicy
    ) -> None:
        self._client = client
        self._model = model
        self._folder = folder
        self._stop = stop
        self._retries = retries

    def predict(self, paths: Sequence[str]) -> PartRows:
        """The probabilities of the pictures that have some, and why the others have none."""
        rows, sent, prepared = PartRows(), [], []
        for path in paths:
            try:
                picture = prepare_image((self._folder / path).read_bytes(), self._model.preprocessing)
            except (OSError, PictureError) as error:
                rows.errors.append((printable_path(path), _reason(error)))
            else:
                sent.append(printable_path(path))
                prepared.append(picture)
        if prepared:
            probabilities = self._infer(np.stack(prepared))
            answered: NDArray[np.bool_] = np.all(np.isfinite(probabilities), axis=1)
            rows.paths += [path for path, good in zip(sent, answered, strict=True) if good]
            rows.probabilities.append(probabilities[answered])
            rows.errors += [(path, _NOT_FINITE) for path, good in zip(sent, answered, strict=True) if not good]
        return rows

    def _infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        model = self._model
        result = self._retry(
            lambda: self._client.infer(
                model.model, {model.input: pixels}, version=model.version, outputs=[model.output]
            )
        )
        return _read_probabilities(result, model, rows=len(pixels))

    def _retry(self, send: Callable[[], InferResult]) -> InferResult:
        attempt = 1
        while True:
            try:
                return send()
            except InferryError as error:
                pause_s = plan_retry(self._retries, error, attempt=attempt, spread=random.random())  # noqa: S311
                if pause_s is None or self._stop.wait(pause_s):
                    raise
                attempt += 1


def _takes(shape: tuple[int, ...], pixels: tuple[int, ...]) -> bool:
    return len(shape) == 4 and all(have in (-1, want) for have, want in zip(shape[1:], pixels, strict=True))


def _read_probabilities(result: InferResult, model: PictureModel, *, rows: int) -> NDArray[np.float32]:
    values: NDArray[Any] | None = result.outputs.get(model.output)
    if result.version != model.version or values is None or values.ndim != 2 or len(values) != rows or not values.size:
        came = "nothing" if values is None else list(values.shape)
        raise JobError(
            f"model {model.model!r} answered output {model.output!r} with {came} from version {result.version}; "
            f"expected [{rows}, classes] from version {model.version}"
        )
    if model.labels and values.shape[1] > len(model.labels):
        raise JobError(f"model {model.model!r} gives {values.shape[1]} classes but names {len(model.labels)}")
    return values.astype(np.float32, copy=False)


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
