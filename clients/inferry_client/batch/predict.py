"""What a job asks of a server: which model, and the probabilities of prepared pictures."""

import hashlib
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from inferry_client.batch.errors import JobError
from inferry_client.batch.plan import Plan
from inferry_client.batch.window import Window
from inferry_client.client import Client
from inferry_client.commands.models import choose_model
from inferry_client.errors import InferryError, ModelNotFoundError, OverloadedError
from inferry_client.results import InferResult, ModelDescription
from inferry_client.retries import RetryPolicy, plan_retry
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_proto.preprocessing import channel_count

JOB_RETRIES = RetryPolicy(max_attempts=60, initial_backoff_s=0.25, max_backoff_s=2.0)
"""A job outlasts a restart of the server, some 90 s of pauses, and notices within seconds that it is back."""

_BULK_PRIORITY = 2  # of the protocol's, 1 is the highest: what other callers wait for goes first

Answer = TypeVar("Answer")


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
        digest: of the model's bytes, where the server tells them, its labels and its preprocessing.
        older_digest: what an earlier version of Inferry took for it; empty where that was the same.
    """

    model: str
    version: str
    input: str
    output: str
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    max_batch_size: int
    digest: str
    older_digest: str = ""

    @property
    def picture_bytes(self) -> int:
        """Of the pixels of a prepared picture."""
        spec = self.preprocessing
        return spec.height * spec.width * channel_count(spec)


def picture_model(description: ModelDescription, *, older_sha256: str = "") -> PictureModel:
    """The model as a job needs it.

    Args:
        description: of the model.
        older_sha256: what an earlier version of Inferry took for the digest of its bytes.

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
        digest=_digest(description, spec),
        older_digest=_digest(replace(description, model_sha256=older_sha256), spec) if older_sha256 else "",
    )


class Target(Protocol):
    """What classifies prepared pictures. Any number of threads may ask at the same time."""

    model: PictureModel

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(N, K)` probabilities of `(N, H, W, C)` pixels; blocks until they are there.

        Raises:
            InferryError: they cannot be had.
        """

    def check_unchanged(self) -> None:
        """See that what answers is still what answered before.

        Raises:
            JobError: it is not.
        """

    def stop(self) -> None:
        """Let calls end soon; whoever waits in one gets an error."""


class ServerTarget:
    """Servers, asked in their lane for bulk work; no more at a time than they keep up with.

    A call blocks until it is answered, however often a server was full or away; it raises once the
    retries are used up, the request can never succeed, or the job is stopped.
    """

    def __init__(
        self, client: Client, model: PictureModel, *, window: Window, retries: RetryPolicy = JOB_RETRIES
    ) -> None:
        self.model = model
        self._client = client
        self._window = window
        self._stop = threading.Event()
        self._retries = retries

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The probabilities of `(N, H, W, C)` pixels, `(N, K)`."""
        model = self.model

        def send() -> InferResult:
            with self._window.place(self._stop) as place:
                try:
                    result = self._client.infer(
                        model.model,
                        {model.input: pixels},
                        version=model.version,
                        outputs=[model.output],
                        priority=_BULK_PRIORITY,
                    )
                except OverloadedError:
                    place.refused()
                    raise
                place.answered()
                return result

        return _read_probabilities(self._retry(send), model, rows=len(pixels))

    def check_unchanged(self) -> None:
        """See that the version still has the digest that it had when the job began."""
        model = self.model
        found = picture_model(
            self._retry(lambda: self._client.describe_model(model.model, version=model.version))
        ).digest
        if found != model.digest:  # guard: batch-model-bound
            raise JobError(
                f"version {model.version} of model {model.model!r} was replaced while the job ran; what it answered "
                "since the last complete part is dropped. Begin anew with --overwrite, or serve the old one again"
            )

    def _retry(self, send: Callable[[], Answer]) -> Answer:
        attempt = 1
        while True:
            try:
                return send()
            except InferryError as error:
                pause_s = plan_retry(self._retries, error, attempt=attempt, spread=random.random())  # noqa: S311
                if pause_s is None or self._stop.wait(pause_s):
                    raise
                attempt += 1


def open_server_target(
    client: Client, *, name: str | None, version: str, begun: Plan | None, window: Window, retries: RetryPolicy
) -> ServerTarget:
    """The version of a server that answers a job: the one asked for, that of the job that was begun, or the newest.

    Raises:
        InferryError: there is none, or pictures cannot be prepared for it.
    """
    model = name or (begun.model if begun else choose_model(client, None))
    pinned = begun.model_version if begun and begun.model == model else ""
    try:
        found = picture_model(client.describe_model(model, version=version or pinned))
    except ModelNotFoundError as error:
        if pinned and not version:
            raise JobError(f"{error}; the job was begun with version {pinned}: --overwrite begins anew") from error
        raise
    return ServerTarget(client, found, window=window, retries=retries)


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
    return values.astype(np.float32, copy=False)


def _digest(description: ModelDescription, spec: Preprocessing) -> str:
    digest = hashlib.sha256()
    for part in (
        description.model_sha256.encode(),
        spec.SerializeToString(deterministic=True),
        description.outputs[0].name.encode(),
        *(label.encode() for label in description.labels),
    ):
        digest.update(b"%d\n%s\n" % (len(part), part))
    return digest.hexdigest()
