"""The shapes that clients see, where `config.pbtxt` says that the model's are others (`reshape`)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from inferry_proto.datatypes import Arrays
from inferry_server.errors import InferenceError
from inferry_server.models.checks import GoldenCheck
from inferry_server.signature import Run, Signature, Staging, TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Reshape:
    """Two shapes of one tensor, N included where the model is batched; axes of any length are -1.

    Attributes:
        seen: by clients.
        own: the model's.
    """

    seen: Shape
    own: Shape

    def __post_init__(self) -> None:
        """Refuse shapes that cannot hold the same elements.

        Raises:
            ValueError: says what each of them has.
        """
        lengths = [axis for axis in self.seen + self.own if axis < 1 and axis != -1]
        same = self.seen.count(-1) == self.own.count(-1) and _fixed(self.seen) == _fixed(self.own)
        if lengths or not same:
            raise ValueError(
                f"dims {list(self.seen)} cannot be reshaped to {list(self.own)}: both must have as many elements, and "
                "as many axes of free length"
            )

    def to_own(self, array: NDArray[Any]) -> NDArray[Any]:
        """A tensor in the model's shape."""
        return _reshaped(array, self.seen, self.own)

    def to_seen(self, array: NDArray[Any]) -> NDArray[Any]:
        """A tensor in the shape that clients see."""
        return _reshaped(array, self.own, self.seen)


@dataclass(frozen=True)
class Reshaping:
    """What stands between clients and a model whose tensors have other shapes than clients see. Immutable.

    Attributes:
        inputs: by name; those that are not in it have one shape.
        outputs: as `inputs`.
    """

    inputs: Mapping[str, Reshape] = field(default_factory=dict)
    outputs: Mapping[str, Reshape] = field(default_factory=dict)

    def seen(self, signature: Signature) -> Signature:
        """The model's signature as clients see it."""
        return Signature(
            tuple(_seen(spec, self.inputs) for spec in signature.inputs),
            tuple(_seen(spec, self.outputs) for spec in signature.outputs),
        )

    def staging(self, staging: Staging | None) -> Staging | None:
        """Where batches of what clients send are put together; None where the model's inputs have other shapes."""
        return None if self.inputs else staging

    def run(self, run: Run) -> Run:
        """What computes the model from inputs that clients send to outputs that they get.

        It raises InferenceError where an output has another shape than the configuration says.
        """
        if not self.inputs and not self.outputs:
            return run

        def reshaped(inputs: Arrays) -> Arrays:
            return self._apply(self.outputs, Reshape.to_seen, run(self._apply(self.inputs, Reshape.to_own, inputs)))

        return reshaped

    def golden(self, check: GoldenCheck | None) -> GoldenCheck | None:
        """Golden samples, which are recorded in the model's shapes, as clients would ask for them."""
        if check is None:
            return None
        runs = tuple(
            (self._apply(self.inputs, Reshape.to_seen, inputs), self._apply(self.outputs, Reshape.to_seen, outputs))
            for inputs, outputs in check.runs
        )
        return replace(check, runs=runs)

    def _apply(
        self, shapes: Mapping[str, Reshape], change: Callable[[Reshape, NDArray[Any]], NDArray[Any]], arrays: Arrays
    ) -> Arrays:
        try:
            return {name: change(shapes[name], array) if name in shapes else array for name, array in arrays.items()}
        except ValueError as error:
            raise InferenceError(f"config.pbtxt reshapes a tensor that cannot be: {error}") from error


def _seen(spec: TensorSpec, shapes: Mapping[str, Reshape]) -> TensorSpec:
    return replace(spec, shape=shapes[spec.name].seen) if spec.name in shapes else spec


def _fixed(shape: Shape) -> int:
    return math.prod(axis for axis in shape if axis != -1)


def _reshaped(array: NDArray[Any], came: Shape, wanted: Shape) -> NDArray[Any]:
    """Raises ValueError where the array does not have the shape that it should have come with."""
    fits = array.ndim == len(came) and all(
        expected in (-1, axis) for axis, expected in zip(array.shape, came, strict=True)
    )
    if not fits:
        raise ValueError(f"shape {list(array.shape)} came; expected {list(came)}")
    free = iter([axis for axis, expected in zip(array.shape, came, strict=True) if expected == -1])
    return array.reshape([next(free) if axis == -1 else axis for axis in wanted])
