"""Replies read into results. A reply that breaks the protocol raises ValueError."""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from typing import Protocol, TypeVar

import numpy as np

from inferry_client.messages.tensors import decode_contents, decode_tensor
from inferry_client.results import (
    Classification,
    ClassifyResult,
    ExplainedVersion,
    InferResult,
    LateRequest,
    ModelDescription,
    ModelMetadata,
    ModelStatistics,
    ModelStatus,
    ServerMetadata,
    Tensor,
    TensorSpec,
    Timing,
)
from inferry_proto import classifier_pb2, diagnostics_pb2, open_inference_pb2
from inferry_proto.variants import NAMED


def read_classify(reply: classifier_pb2.ClassifyResponse, *, image_count: int) -> ClassifyResult:
    """The labels of every picture that was sent."""
    if len(reply.results) != image_count:
        raise ValueError(f"{len(reply.results)} results came for {image_count} pictures")
    images = tuple(_read_classifications(position, result) for position, result in enumerate(reply.results))
    timing = Timing(reply.timing.decode_us, reply.timing.queue_us, reply.timing.compute_us)
    return ClassifyResult(reply.model_name, reply.model_version, images, timing, reply.id, reply.variant)


def join_classify(parts: Sequence[ClassifyResult]) -> ClassifyResult:
    """The results of a request that was sent in parts, as one; timings are added up. A variant is named first."""
    timings = [part.timing for part in parts]
    timing = Timing(
        sum(timing.decode_us for timing in timings),
        sum(timing.queue_us for timing in timings),
        sum(timing.compute_us for timing in timings),
    )
    named = _named(parts)
    images = tuple(image for part in parts for image in part.images)
    return ClassifyResult(named.model, named.version, images, timing, named.request_id, named.variant)


def read_infer(reply: open_inference_pb2.ModelInferResponse | InferResult) -> InferResult:
    """Every output as an array; `reply_plans` may have read them already."""
    if isinstance(reply, InferResult):
        return reply
    # Protobuf's lists are read three times as fast as lists of Python's, which `[:]` makes of them.
    raw, described = reply.raw_output_contents[:], reply.outputs[:]
    if raw and len(raw) != len(described):
        raise ValueError(f"{len(raw)} raw contents came for {len(described)} outputs")
    contents: Iterable[bytes | None] = raw or repeat(None)
    outputs = {}
    for output, content in zip(described, contents, strict=False):
        name = output.name
        try:
            outputs[name] = (
                decode_contents(output.contents, output.datatype, tuple(output.shape[:]))
                if content is None
                else decode_tensor(content, output.datatype, tuple(output.shape[:]))
            )
        except ValueError as error:
            raise ValueError(f"output {name!r}: {error}") from error
    variant = reply.parameters[NAMED].string_param if NAMED in reply.parameters else ""
    return InferResult(reply.model_name, reply.model_version, outputs, reply.id, variant)


def read_joined(reply: open_inference_pb2.ModelInferResponse | InferResult, *, rows: int) -> InferResult:
    """Every output of a request that carries several callers' rows; each has a row for each of them."""
    result = read_infer(reply)
    for name, output in result.outputs.items():
        if output.shape[:1] != (rows,):  # guard: join-rows-of-all
            raise ValueError(f"output {name!r} has shape {list(output.shape)} for the {rows} rows that were sent")
    return result


def join_infer(parts: Sequence[InferResult], *, rows: int) -> InferResult:
    """The outputs of a request that was sent in parts, joined along the first axis. A variant is named first.

    Raises:
        ValueError: an output without a row for each that was sent, or not in every part.
    """
    first = parts[0]
    outputs = {name: np.concatenate([part.outputs[name] for part in parts]) for name in first.outputs}
    for name, output in outputs.items():
        output.flags.writeable = False
        if len(output) != rows:
            raise ValueError(f"output {name!r} has {len(output)} rows for the {rows} that were sent in parts")
    named = _named(parts)
    return InferResult(named.model, named.version, outputs, named.request_id, named.variant)


Part = TypeVar("Part", ClassifyResult, InferResult)


def _named(parts: Sequence[Part]) -> Part:
    """The part that says who answered: the first that a variant did, so that nobody takes all for the model's."""
    return next((part for part in parts if part.variant), parts[0])


def split_classify(result: ClassifyResult, counts: Sequence[int]) -> list[ClassifyResult]:
    """A joined result's shares, in order, by how many pictures each has."""
    stops = list(accumulate(counts))
    return [
        ClassifyResult(
            result.model, result.version, result.images[stop - count : stop], result.timing, variant=result.variant
        )
        for count, stop in zip(counts, stops, strict=True)
    ]


def split_infer(result: InferResult, counts: Sequence[int]) -> list[InferResult]:
    """A joined result's shares, in order, by how many rows each has; views of its outputs."""
    model, version, variant = result.model, result.version, result.variant
    shares: list[dict[str, Tensor]] = [{} for _ in counts]
    for name, output in result.outputs.items():
        for share, rows in zip(shares, _split(output, counts), strict=True):
            share[name] = rows
    return [InferResult(model, version, share, "", variant) for share in shares]


def _split(output: Tensor, counts: Sequence[int]) -> list[Tensor]:
    if counts.count(1) == len(counts):
        return list(output.reshape(len(output), 1, *output.shape[1:]))  # a third of what slices cost
    return [output[stop - count : stop] for count, stop in zip(counts, accumulate(counts), strict=True)]


def read_description(reply: classifier_pb2.DescribeModelResponse) -> ModelDescription:
    """What a model takes and gives."""
    return ModelDescription(
        model=reply.model_name,
        version=reply.model_version,
        inputs=_specs(reply.signature.inputs),
        outputs=_specs(reply.signature.outputs),
        labels=tuple(reply.labels),
        preprocessing=reply.preprocessing if reply.HasField("preprocessing") else None,
        max_batch_size=reply.max_batch_size,
        model_sha256=reply.model_sha256,
    )


def read_model_metadata(reply: open_inference_pb2.ModelMetadataResponse) -> ModelMetadata:
    """A model's tensors and versions."""
    return ModelMetadata(reply.name, tuple(reply.versions), reply.platform, _specs(reply.inputs), _specs(reply.outputs))


def read_limit(reply: open_inference_pb2.ModelConfigResponse) -> int:
    """The most rows of a request; 0 where there is no batch dimension."""
    return reply.config.max_batch_size


def read_statistics(reply: open_inference_pb2.ModelStatisticsResponse) -> tuple[ModelStatistics, ...]:
    """What each model has done."""
    return tuple(
        ModelStatistics(
            model=model.name,
            version=model.version,
            requests=model.inference_stats.success.count,
            failures=model.inference_stats.fail.count,
            rows=model.inference_count,
            batches=model.execution_count,
            request_s=model.inference_stats.success.ns / 1e9,
            queue_s=model.inference_stats.queue.ns / 1e9,
            compute_s=model.inference_stats.compute_infer.ns / 1e9,
        )
        for model in reply.model_stats
    )


def read_repository_index(reply: open_inference_pb2.RepositoryIndexResponse) -> tuple[ModelStatus, ...]:
    """Every version, in the server's order."""
    # MLServer calls a state `State.READY`.
    return tuple(ModelStatus(m.name, m.version, m.state.removeprefix("State."), m.reason) for m in reply.models)


def read_server_metadata(reply: open_inference_pb2.ServerMetadataResponse) -> ServerMetadata:
    """Who answers."""
    return ServerMetadata(reply.name, reply.version, tuple(reply.extensions))


def read_live(reply: open_inference_pb2.ServerLiveResponse) -> bool:
    """Whether the process answers."""
    return reply.live


def read_ready(reply: open_inference_pb2.ServerReadyResponse | open_inference_pb2.ModelReadyResponse) -> bool:
    """Whether the server or the model can answer requests."""
    return reply.ready


def _read_classifications(position: int, result: classifier_pb2.ImageResult) -> tuple[Classification, ...]:
    for c in result.classifications:
        if not math.isfinite(c.probability):
            name = c.label or str(c.index)
            raise ValueError(f"image {position}: the probability of {name!r} is {c.probability}, which is no number")
    return tuple(Classification(c.index, c.label, c.probability) for c in result.classifications)


class _NamedTensor(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def datatype(self) -> str: ...
    @property
    def shape(self) -> Iterable[int]: ...


def _specs(tensors: Iterable[_NamedTensor]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.datatype, tuple(tensor.shape)) for tensor in tensors)


def read_explained(reply: diagnostics_pb2.ExplainResponse) -> tuple[ExplainedVersion, ...]:
    """The late requests of each version."""
    return tuple(
        ExplainedVersion(
            one.model_name, one.model_version, tuple(map(_late, one.slowest)), tuple(map(_late, one.refused))
        )
        for one in reply.versions
    )


def _late(message: diagnostics_pb2.LateRequest) -> LateRequest:
    return LateRequest(
        request_id=message.id,
        trace_id=message.trace_id,
        cause=message.cause,
        reason=message.reason,
        ended_at=message.ended_at_ms / 1e3,
        rows=message.rows,
        lane=message.lane,
        rows_ahead=message.rows_ahead,
        total_s=message.total_us / 1e6,
        read_s=message.read_us / 1e6,
        queue_s=message.queue_us / 1e6,
        turn_s=message.turn_us / 1e6,
        compute_s=message.compute_us / 1e6,
        reply_s=message.reply_us / 1e6,
        deadline_s=message.deadline_us / 1e6 if message.HasField("deadline_us") else None,
        batch_rows=message.batch.rows,
        padded_rows=message.batch.padded_rows,
        batch_requests=message.batch.requests,
        expected_s=message.batch.expected_us / 1e6,
    )
