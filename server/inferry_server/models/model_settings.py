"""What a model says of itself beside its versions, and what that means for how it is served."""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from inferry_proto.datatypes import Datatype
from inferry_proto.model_source import MODEL_FILE
from inferry_proto.variants import NONE, Accepted
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import StartError
from inferry_server.models.reshaping import Reshape, Reshaping
from inferry_server.models.version_policy import NEWEST, VersionPolicy
from inferry_server.runtime.providers import CPU
from inferry_server.signature import Signature, TensorSpec


class InstanceKind(enum.Enum):
    """Where a model's instances compute; the values are Triton's names."""

    AUTO = "KIND_AUTO"
    CPU = "KIND_CPU"
    GPU = "KIND_GPU"


@dataclass(frozen=True)
class DeclaredTensor:
    """An input or output as a configuration declares it.

    Attributes:
        datatype: None where it says nothing.
        dims: without N where the model is batched; None where it says nothing.
        reshape: what the model has where that is not what clients see; without N as well.
        label_file: of an output, in the model's folder: line i names class i.
    """

    name: str
    datatype: Datatype | None = None
    dims: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None
    label_file: str | None = None


@dataclass(frozen=True)
class ModelSettings:
    """A model's own settings. None: the server's apply. Every check raises ValueError.

    Attributes:
        max_batch_size: rows of one batch; 0: requests run one at a time.
        max_queue_size: rows that may wait in each lane.
        provider: what computes it, of the choices that the server's setting has.
        gpus: which devices, as CUDA counts them; each gets all the instances.
        accepts_variants: precisions whose variants may answer requests that do not say so themselves.
        ignored: fields of the configuration that have no effect here, each with the reason.
    """

    max_batch_size: int | None = None
    max_queue_delay_us: int | None = None
    max_queue_size: int | None = None
    latency_objective_ms: float | None = None
    instance_count: int | None = None
    instance_kind: InstanceKind = InstanceKind.AUTO
    provider: str | None = None
    gpus: tuple[int, ...] = ()
    version_policy: VersionPolicy = NEWEST
    model_file: str = MODEL_FILE
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    accepts_variants: Accepted = NONE
    ignored: tuple[str, ...] = ()

    def is_batched(self, signature: Signature) -> bool:
        """Whether requests may share a batch: as stated, else as the shapes look."""
        signature = self._ranked(signature, batched=bool(self.max_batch_size))
        if self.max_batch_size and not signature.has_batch_dimension:
            raise ValueError(
                f"max_batch_size is {self.max_batch_size}, but not every input and output of the model begins with an "
                f"axis of free length: {signature}; expected max_batch_size: 0"
            )
        return signature.has_batch_dimension if self.max_batch_size is None else self.max_batch_size > 0

    def narrow(self, signature: Signature, *, batched: bool) -> Signature:
        """The signature with the lengths that the declared inputs fix; declared outputs must only fit."""
        signature = self._ranked(signature, batched=batched)
        for declared in self.outputs:
            _narrow(_find("output", declared.name, signature.outputs), declared, batched=batched)
        narrowed = {
            declared.name: _narrow(_find("input", declared.name, signature.inputs), declared, batched=batched)
            for declared in self.inputs
        }
        return replace(signature, inputs=tuple(narrowed.get(spec.name, spec) for spec in signature.inputs))

    def _ranked(self, signature: Signature, *, batched: bool) -> Signature:
        """The signature with the declared shapes of tensors that have any number of axes in the model."""
        dims = {one.name: one.dims if one.reshape is None else one.reshape for one in self.inputs + self.outputs}

        def ranked(spec: TensorSpec) -> TensorSpec:
            axes = dims.get(spec.name) if spec.any_rank else None
            return spec if axes is None else replace(spec, shape=(-1, *axes) if batched else axes, any_rank=False)

        return Signature(tuple(map(ranked, signature.inputs)), tuple(map(ranked, signature.outputs)))

    def reshaping(self, *, batched: bool) -> Reshaping:
        """What becomes of tensors that clients see in other shapes than the model has."""
        return Reshaping(_reshapes(self.inputs, batched=batched), _reshapes(self.outputs, batched=batched))

    def policy(self, default: BatchingPolicy, *, batched: bool) -> BatchingPolicy:
        """The limits of the model's queue and batches.

        A queue has room for a full batch, unless the model says that its queue is shorter.
        """
        if not batched:  # its requests count as one row each
            queue_size = self.max_queue_size or default.max_queue_size
            return replace(default, max_batch_size=1, max_request_rows=1, max_queue_size=queue_size)
        rows = self.max_batch_size or default.max_batch_size
        queue_size = self.max_queue_size or max(default.max_queue_size, rows)
        delay_us = self.max_queue_delay_us
        return replace(
            default,
            max_batch_size=rows,
            max_request_rows=max(rows, min(default.max_request_rows, queue_size)),
            max_queue_size=queue_size,
            max_queue_delay_s=default.max_queue_delay_s if delay_us is None else delay_us / 1e6,
        )

    def providers(self, default: Sequence[str], *, choose: Callable[[str], Sequence[str]]) -> Sequence[str]:
        """The execution providers: its own choice, else those that the server has.

        Args:
            default: the server's.
            choose: the providers for one of the setting's choices; raises StartError where they are not there.
        """
        try:
            chosen = tuple(default if self.provider is None else choose(self.provider))
        except StartError as error:
            raise ValueError(str(error)) from error
        if self.instance_kind is InstanceKind.GPU and chosen == (CPU,):
            raise ValueError("instance_group asks for KIND_GPU, and this server computes on the CPU")
        if self.instance_kind is InstanceKind.CPU and self.provider in ("cuda", "tensorrt"):
            raise ValueError(f"provider is {self.provider}, and instance_group asks for KIND_CPU")
        return (CPU,) if self.instance_kind is InstanceKind.CPU else chosen

    def device_ids(self, default_instances: int, *, on_gpu: bool) -> tuple[int, ...]:
        """The device of each instance: as many on each GPU named as there are instances."""
        count = self.instance_count or default_instances
        return (self.gpus or (0,)) * count if on_gpu else (0,) * count

    def threads(self, default: int, default_instances: int) -> int:
        """Threads of one instance: the model's instances share what the server's default ones have."""
        if self.instance_count is None:
            return default
        return max(1, default * default_instances // self.instance_count)


def _find(what: str, name: str, specs: Sequence[TensorSpec]) -> TensorSpec:
    for spec in specs:
        if spec.name == name:
            return spec
    raise ValueError(f"{what} {name!r} is declared; the model has {', '.join(repr(spec.name) for spec in specs)}")


def _reshapes(tensors: Sequence[DeclaredTensor], *, batched: bool) -> dict[str, Reshape]:
    rows = (-1,) if batched else ()
    return {
        tensor.name: Reshape(seen=(*rows, *tensor.dims), own=(*rows, *tensor.reshape))
        for tensor in tensors
        if tensor.dims is not None and tensor.reshape is not None
    }


def _narrow(spec: TensorSpec, declared: DeclaredTensor, *, batched: bool) -> TensorSpec:
    if declared.datatype is not None and declared.datatype is not spec.datatype:
        raise ValueError(f"{spec.name!r} is declared as {declared.datatype.name}; the model has {spec.datatype.name}")
    dims = declared.dims if declared.reshape is None else declared.reshape
    if dims is None:
        return spec
    shape = (-1, *dims) if batched else dims
    fits = len(shape) == len(spec.shape) and all(
        came == has or (has == -1 and came > 0) for came, has in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        row = "for each row " if batched else ""
        has_dims = list(spec.shape[1:] if batched else spec.shape)
        what = "dims" if declared.reshape is None else "reshape"
        raise ValueError(f"{spec.name!r} is declared with {what} {list(dims)}; the model has {row}{has_dims}")
    return replace(spec, shape=shape)
