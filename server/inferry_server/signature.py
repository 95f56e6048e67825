"""What a model takes and gives: names, datatypes, shapes."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from inferry_proto import manifest_pb2
from inferry_proto.datatypes import DATATYPES, Arrays, Datatype

Run = Callable[[Arrays], Arrays]
"""Computes a model: its outputs from its inputs."""
Staging = Callable[[int], Arrays | None]
"""The memory from which a batch of so many rows goes to the device: put together there, its inputs are not copied once
more. None where there is none for so many rows."""

_MADE_UP = re.compile(r"unk__\d+|.*_dim_\d+|.*_dynamic_axes_\d+")
"""Names of axes that say nothing: made up by tf2onnx, ONNX's shape inference and PyTorch for what has none."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. Axes of any length are -1; the first is N where the model is batched.

    Attributes:
        axes: the names that ONNX gives to axes, None where it gives none; they are no part of what tensors have
            in common, and empty where nobody knows them.
        any_rank: whether the number of axes is free as well; the shape is empty then.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    axes: tuple[str | None, ...] = field(default=(), compare=False)
    any_rank: bool = field(default=False, compare=False)

    def axis_name(self, place: int) -> str | None:
        """The name that somebody gave to an axis; None where it has none, or a converter made one up."""
        name = self.axes[place] if place < len(self.axes) else None
        return None if name is None or _MADE_UP.fullmatch(name) else name

    def __str__(self) -> str:
        return f"{self.name} {self.datatype.name} {self.shape_text}"

    @property
    def shape_text(self) -> str:
        """The shape as errors name it."""
        return "[...]" if self.any_rank else str(list(self.shape))

    @property
    def stated_shape(self) -> tuple[int, ...]:
        """The shape as the protocol can state it: it has no word for any number of axes."""
        return (-1,) if self.any_rank else self.shape


@dataclass(frozen=True)
class Signature:
    """Every input and output of a model, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def has_batch_dimension(self) -> bool:
        """Whether the first axis of every input and output may have any length."""
        return bool(self.inputs) and all(spec.shape[:1] == (-1,) for spec in self.inputs + self.outputs)

    @property
    def first_axes(self) -> dict[str, str]:
        """The names of first axes, each with the tensor that has it first; two of them are no one batch."""
        names: dict[str, str] = {}
        for spec in self.inputs + self.outputs:
            if (name := spec.axis_name(0)) is not None:
                names.setdefault(name, spec.name)
        return names

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.inputs))}) -> ({', '.join(map(str, self.outputs))})"


def signature_from_manifest(recorded: manifest_pb2.Signature) -> Signature:
    """The signature as a manifest records it.

    Raises:
        ValueError: a datatype the protocol does not have.
    """
    return Signature(
        inputs=tuple(_spec_from_manifest(spec) for spec in recorded.inputs),
        outputs=tuple(_spec_from_manifest(spec) for spec in recorded.outputs),
    )


def signature_to_manifest(signature: Signature) -> manifest_pb2.Signature:
    """The signature as the manifest and DescribeModel carry it."""
    return manifest_pb2.Signature(
        inputs=[_spec_to_manifest(spec) for spec in signature.inputs],
        outputs=[_spec_to_manifest(spec) for spec in signature.outputs],
    )


def _spec_from_manifest(spec: manifest_pb2.TensorSpec) -> TensorSpec:
    if spec.datatype not in DATATYPES:
        raise ValueError(f"tensor {spec.name!r} has datatype {spec.datatype!r}; known are {', '.join(DATATYPES)}")
    return TensorSpec(spec.name, DATATYPES[spec.datatype], tuple(spec.shape))


def _spec_to_manifest(spec: TensorSpec) -> manifest_pb2.TensorSpec:
    return manifest_pb2.TensorSpec(name=spec.name, datatype=spec.datatype.name, shape=spec.stated_shape)
