"""Triton's `config.pbtxt`, read for what has a meaning here; what has none is listed with the reason."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from inferry_proto.datatypes import DATATYPES
from inferry_proto.files import read_text
from inferry_proto.model_config_pb2 import DataType, ModelConfig, ModelInstanceGroup
from inferry_proto.model_source import MODEL_FILE
from inferry_proto.variants import NONE, Accepted, read_accepted
from inferry_proto.variants import PARAMETER as ACCEPT_VARIANT
from inferry_server.batching.policy import MOST_BATCH_ROWS
from inferry_server.models.model_settings import DeclaredTensor, InstanceKind, ModelSettings
from inferry_server.models.version_policy import NEWEST, All, Latest, Specific, VersionPolicy
from inferry_server.runtime.providers import CHOICES

CONFIG_FILE = "config.pbtxt"
MOST_INSTANCES = 256  # as the setting instance_count
PLATFORM = "onnxruntime_onnx"  # Triton's names, which clients look at
BACKEND = "onnxruntime"
LATENCY_OBJECTIVE = "latency_objective_ms"
"""The parameter that states a model's latency objective."""

PROVIDER = "provider"
"""The parameter that states what computes a model."""

READ = frozenset({
    "name", "platform", "backend", "max_batch_size", "version_policy", "default_model_filename",
    "input.name", "input.data_type", "input.dims", "input.reshape", "output.name", "output.data_type",
    "output.dims", "output.reshape", "output.label_filename",
    "instance_group.count", "instance_group.kind", "instance_group.gpus",
    "dynamic_batching.max_queue_delay_microseconds", "dynamic_batching.default_queue_policy.max_queue_size",
    "parameters",
})  # fmt: skip
"""Fields that have an effect."""

_LOOKED_INTO = frozenset(path.rpartition(".")[0] for path in READ)
_NO_RAGGED = "requests of different shapes never share a batch"
_NO_PRIORITIES = "there are two lanes, and no queue of its own for each priority"
_REASONS = {
    "runtime": "ONNX Runtime is the only one",
    "cc_model_filenames": "one file serves every device",
    "metric_tags": "metrics have the labels model and version",
    "model_metrics": "the histograms' buckets are fixed",
    "sequence_batching": "every request stands alone",
    "ensemble_scheduling": "a model is one ONNX file",
    "model_warmup": "every batch size is warmed anyway",
    "model_operations": "operators of other libraries are not loaded",
    "model_transaction_policy": "a request has one response",
    "model_repository_agents": "a version is verified by its manifest",
    "response_cache": "answers are computed",
    "batch_input": _NO_RAGGED,
    "batch_output": _NO_RAGGED,
    "optimization": "ONNX Runtime's defaults are taken",
    "input.format": "the layout is the model's own",
    "input.allow_ragged_batch": _NO_RAGGED,
    "input.optional": "every input must come",
    "dynamic_batching.preferred_batch_size": "a free device takes what waits, and never waits for a size",
    "dynamic_batching.preserve_ordering": "the earliest deadline goes first; streams answer in order always",
    "dynamic_batching.priority_levels": _NO_PRIORITIES,
    "dynamic_batching.default_priority_level": _NO_PRIORITIES,
    "dynamic_batching.priority_queue_policy": _NO_PRIORITIES,
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": "a deadline here counts waiting and "
    f"computing together: state it as the parameter {LATENCY_OBJECTIVE}",
    "dynamic_batching.default_queue_policy.timeout_action": "what would come too late is refused",
    "dynamic_batching.default_queue_policy.allow_timeout_override": "requests may always state their timeout",
}


_PARAMETERS = (LATENCY_OBJECTIVE, PROVIDER, ACCEPT_VARIANT)


class ConfigError(ValueError):
    """A configuration that the model cannot be served with; the message names the file."""


def read_model_settings(folder: Path) -> ModelSettings:
    """A model's own settings; the defaults where its folder holds no `config.pbtxt`.

    Args:
        folder: the model's, named as the model.

    Raises:
        ConfigError: not Triton's text format, an unknown field, or a value that cannot be.
    """
    path = folder / CONFIG_FILE
    # proto3 cannot tell what is unstated from 0; a value that nobody writes can.
    config = ModelConfig(max_batch_size=_UNSTATED)
    try:
        text_format.Merge(read_text(path), config)
        return _settings(config, folder.name)
    except FileNotFoundError:
        return ModelSettings()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, text_format.ParseError) as error:
        raise ConfigError(f"{path}: {error}") from error


_UNSTATED = -(1 << 31)


def _settings(config: ModelConfig, folder_name: str) -> ModelSettings:
    _expect("name", config.name, folder_name)
    _expect("platform", config.platform, PLATFORM)
    _expect("backend", config.backend, BACKEND)
    rows = None if config.max_batch_size == _UNSTATED else config.max_batch_size
    if rows is not None and rows < 0:
        raise ValueError(f"max_batch_size is {rows}; expected at least 0")
    count, kind = _instances(config)
    gpus = _gpus(config, kind)
    batching = config.dynamic_batching
    return ModelSettings(
        max_batch_size=None if rows is None else min(rows, MOST_BATCH_ROWS),
        max_queue_delay_us=batching.max_queue_delay_microseconds or None,
        max_queue_size=batching.default_queue_policy.max_queue_size or None,
        latency_objective_ms=_latency_objective_ms(config),
        instance_count=count,
        instance_kind=kind,
        provider=_provider(config),
        gpus=gpus,
        version_policy=_version_policy(config),
        model_file=_file_name("default_model_filename", config.default_model_filename) or MODEL_FILE,
        inputs=tuple(map(_declared, config.input)),
        outputs=tuple(map(_declared_output, config.output)),
        accepts_variants=_accepts_variants(config),
        ignored=tuple(dict.fromkeys((*_ignored(config), *_without_effect(config, rows)))),
    )


def _expect(field: str, came: str, expected: str) -> None:
    if came not in ("", expected):
        raise ValueError(f"{field} is {came!r}; expected {expected!r}")


def _file_name(field: str, name: str) -> str | None:
    if name and (PurePath(name).name != name or name == ".."):
        raise ValueError(f"{field} is {name!r}; expected the name of a file, without a path")
    return name or None


def _declared(tensor: Any) -> DeclaredTensor:
    datatype = next((known for known in DATATYPES.values() if known.config_type == tensor.data_type), None)
    if tensor.data_type and datatype is None:
        raise ValueError(f"{tensor.name!r} is declared as {DataType.Name(tensor.data_type)}, which is not served")
    # Of a tensor without axes Triton's dims are empty as well: then there is nothing to compare.
    reshape = tuple(tensor.reshape.shape) if tensor.HasField("reshape") else None
    if reshape is not None and not tensor.dims:
        raise ValueError(f"{tensor.name!r} has a reshape and no dims; expected the dims that clients see")
    return DeclaredTensor(tensor.name, datatype, tuple(tensor.dims) or None, reshape=reshape)


def _declared_output(tensor: Any) -> DeclaredTensor:
    return replace(_declared(tensor), label_file=_file_name("label_filename", tensor.label_filename))


def _instances(config: ModelConfig) -> tuple[int | None, InstanceKind]:
    kinds = {ModelInstanceGroup.Kind.Name(group.kind) for group in config.instance_group}
    if len(kinds) > 1:
        raise ValueError(f"instance_group has {', '.join(sorted(kinds))}; expected one kind for all instances")
    for kind in kinds - {known.value for known in InstanceKind}:
        raise ValueError(f"instance_group has kind {kind}; expected {', '.join(k.value for k in InstanceKind)}")
    counts = [group.count for group in config.instance_group if group.count]
    if any(count < 0 for count in counts):
        raise ValueError(f"instance_group has count {min(counts)}; expected at least 1")
    if sum(counts) > MOST_INSTANCES:  # guard: sizes-instance-count
        raise ValueError(f"instance_group has {sum(counts)} instances; expected at most {MOST_INSTANCES}")
    return sum(counts) or None, InstanceKind(kinds.pop()) if kinds else InstanceKind.AUTO


def _gpus(config: ModelConfig, kind: InstanceKind) -> tuple[int, ...]:
    lists = {tuple(group.gpus) for group in config.instance_group}
    if len(lists) > 1:
        raise ValueError(f"instance_group has the gpus {sorted(lists)}; expected the same for all instances")
    gpus = lists.pop() if lists else ()
    if gpus and kind is InstanceKind.CPU:
        raise ValueError(f"instance_group names gpus {list(gpus)} for KIND_CPU")
    if any(gpu < 0 for gpu in gpus) or len(set(gpus)) < len(gpus):
        raise ValueError(f"instance_group names gpus {list(gpus)}; expected different numbers, from 0 on")
    return gpus


def _provider(config: ModelConfig) -> str | None:
    if PROVIDER not in config.parameters:
        return None
    text = config.parameters[PROVIDER].string_value
    if text not in CHOICES:
        raise ValueError(f"parameter {PROVIDER} is {text!r}; expected one of {', '.join(CHOICES)}")
    return text


def _accepts_variants(config: ModelConfig) -> Accepted:
    if ACCEPT_VARIANT not in config.parameters:
        return NONE
    try:
        return read_accepted(config.parameters[ACCEPT_VARIANT].string_value)
    except ValueError as error:
        raise ValueError(f"parameter {ACCEPT_VARIANT} is {error}") from None


def _version_policy(config: ModelConfig) -> VersionPolicy:
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(tuple(policy.specific.versions))
        case "latest":
            return Latest(policy.latest.num_versions or 1)
        case _:
            return NEWEST


def _latency_objective_ms(config: ModelConfig) -> float | None:
    if LATENCY_OBJECTIVE not in config.parameters:
        return None
    text = config.parameters[LATENCY_OBJECTIVE].string_value
    try:
        objective_ms = float(text)
    except ValueError:
        objective_ms = 0.0
    if not 0 < objective_ms < float("inf"):
        raise ValueError(f"parameter {LATENCY_OBJECTIVE} is {text!r}; expected milliseconds, above 0")
    return objective_ms


def _ignored(message: Message, above: str = "") -> Iterator[str]:
    """Every field that is set and not read, with the reason."""
    for field, value in message.ListFields():
        path = above + field.name
        if path == "parameters":
            yield from (f"parameters[{key}] (unknown here)" for key in sorted(value) if key not in _PARAMETERS)
        elif path in _LOOKED_INTO:
            for part in value if field.is_repeated else (value,):
                yield from _ignored(part, f"{path}.")
        elif path not in READ:
            yield f"{path} ({_REASONS.get(path, 'it has no meaning here')})"


def _without_effect(config: ModelConfig, rows: int | None) -> Iterator[str]:
    """Fields that are read, and can have no effect beside the others."""
    if rows is not None and rows > MOST_BATCH_ROWS:
        yield f"max_batch_size above {MOST_BATCH_ROWS} ({rows}; larger batches gain nothing)"
    if rows in (0, 1) and config.dynamic_batching.max_queue_delay_microseconds:
        yield f"dynamic_batching.max_queue_delay_microseconds (max_batch_size is {rows})"
