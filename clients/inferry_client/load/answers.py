"""What makes an answer right. A reply that came is no success before it has been looked at."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inferry_client.errors import InferryError
from inferry_client.messages.replies import read_classify, read_infer
from inferry_client.results import ClassifyResult, InferResult, ModelMetadata, TensorSpec
from inferry_proto import classifier_pb2, open_inference_pb2
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE

_TOLERANCE = 1e-3  # relative and absolute, between the same rows in different batches
_SHOWN = 60  # characters of an answer in a message
_ROUNDING = 1e-5  # of probabilities in float32
_INFER, _CLASSIFY = OPEN_INFERENCE["ModelInfer"], IMAGE_CLASSIFIER["Classify"]


class WrongAnswerError(InferryError):
    """A reply that is not an answer to its request."""


@dataclass(frozen=True)
class Expectation:
    """What every answer of a test must have.

    Attributes:
        path: of the RPC.
        model: that answers.
        rows: pictures or rows of each request.
        outputs: of the model, for tensors; an axis of -1 may have any length but the first, which is `rows`.
        answers: what each request's answer must say (`said`), where that is known; else empty.
        streamed: whether requests travel on the bidirectional RPC that takes the same ones.
    """

    path: str
    model: str
    rows: int = 1
    outputs: tuple[TensorSpec, ...] = ()
    answers: tuple[Any, ...] = ()
    streamed: bool = False

    def dump(self) -> str:
        """Text for `load_expectation`."""
        return json.dumps(asdict(self))

    def read(self, reply: bytes, number: int = 0) -> ClassifyResult | InferResult:
        """The result in a reply to the request of this number.

        Raises:
            WrongAnswerError: it is not what was expected; says how.
        """
        kind = classifier_pb2.ClassifyResponse if self.path == _CLASSIFY.path else open_inference_pb2.ModelInferResponse
        try:
            message = kind.FromString(reply)
        except Exception as error:  # protobuf raises its own where bytes are no message
            raise WrongAnswerError(f"wrong answer: {error}") from error
        return self.judge(message, number)

    def judge(self, reply: Any, number: int = 0) -> ClassifyResult | InferResult:
        """The result in the unary RPC's reply to the request of this number.

        Raises:
            WrongAnswerError: it is not what was expected; says how.
        """
        pictures = self.path == _CLASSIFY.path
        try:
            result = read_classify(reply, image_count=self.rows) if pictures else read_infer(reply)
        except Exception as error:  # whatever is wrong in it
            raise WrongAnswerError(f"wrong answer: {error}") from error
        self.check(result)  # guard: load-replies-checked
        if self.answers and not same(said(result), self.answers[number]):
            raise WrongAnswerError(
                f"wrong answer: {_short(said(result))}; expected {_short(self.answers[number])} to request {number}"
            )
        return result

    def check(self, result: ClassifyResult | InferResult) -> None:
        """See that a result is what was expected.

        Raises:
            WrongAnswerError: it is not; says how.
        """
        if result.model != self.model:
            raise WrongAnswerError(f"wrong answer: from model {result.model!r}; expected {self.model!r}")
        if isinstance(result, ClassifyResult):
            _check_labels(result)
        else:
            self._check_outputs(result)

    def _check_outputs(self, result: InferResult) -> None:
        for spec in self.outputs:
            output = result.outputs.get(spec.name)
            if output is None:
                raise WrongAnswerError(f"wrong answer: output {spec.name!r} is missing")
            if not fits(output.shape, spec.shape, rows=self.rows):
                raise WrongAnswerError(
                    f"wrong answer: output {spec.name!r} has shape {list(output.shape)}; expected {list(spec.shape)}"
                    f" with {self.rows} for the first"
                )


def load_expectation(text: str) -> Expectation:
    """What `Expectation.dump` wrote."""
    document = json.loads(text)
    outputs = tuple(
        TensorSpec(output["name"], output["datatype"], tuple(output["shape"])) for output in document.pop("outputs")
    )
    return Expectation(**document | {"answers": tuple(document["answers"])}, outputs=outputs)


def expect_tensors(metadata: ModelMetadata, *, rows: int) -> Expectation:
    """What answers of a model to tensors must have.

    Raises:
        WrongAnswerError: the model is said to have no outputs, so that nothing could be checked.
    """
    if not metadata.outputs:
        raise WrongAnswerError(f"model {metadata.model!r} states no outputs, so no answer of it can be checked")
    return Expectation(_INFER.path, metadata.model, rows, metadata.outputs)


def expect_labels(model: str, *, rows: int) -> Expectation:
    """What answers of a model to pictures must have."""
    return Expectation(_CLASSIFY.path, model, rows)


def said(result: ClassifyResult | InferResult) -> Any:
    """What an answer says, as JSON can keep it: the best label of each picture, or every output's elements."""
    if isinstance(result, ClassifyResult):
        return [image[0].label or image[0].index for image in result.images]
    return {
        name: output.tolist() if output.dtype != object else [element.hex() for element in output.ravel()]
        for name, output in result.outputs.items()
    }


def same(one: Any, other: Any) -> bool:
    """Whether two answers say the same: labels exactly, numbers within what another batch size changes."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, (int, float)):
        return math.isclose(one, other, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (one != one and other != other)
    return bool(one == other)


def _short(answer: Any) -> str:
    text = json.dumps(answer)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _check_labels(result: ClassifyResult) -> None:
    for position, image in enumerate(result.images):
        if not image:
            raise WrongAnswerError(f"wrong answer: picture {position} has no label")
        if not 0 <= image[0].probability <= 1 + _ROUNDING:
            raise WrongAnswerError(f"wrong answer: a probability of {image[0].probability:g}")


def fits(shape: Sequence[int], spec: Sequence[int], *, rows: int) -> bool:
    """Whether a tensor has the shape that is stated, and a row for each that was sent."""
    if len(shape) != len(spec):
        return False
    return all(
        have == (rows if axis == 0 and want == -1 else want) or (want == -1 and axis > 0)
        for axis, (have, want) in enumerate(zip(shape, spec, strict=True))
    )
