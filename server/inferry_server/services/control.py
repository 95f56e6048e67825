"""The protocol's questions about the server and its models."""

from collections.abc import Callable, Sequence

import inferry_server
from inferry_proto import model_config_pb2
from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.errors import InvalidRequestError
from inferry_server.models.config_pbtxt import BACKEND, LATENCY_OBJECTIVE, PLATFORM
from inferry_server.models.registry import ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.rpc.call import Call, UnaryHandler
from inferry_server.runtime.providers import CPU
from inferry_server.signature import TensorSpec
from inferry_server.wire.messages import parse

SERVER_NAME = "inferry"
# Extensions that always work. The index alone is not the extension `model_repository`.
EXTENSIONS = (
    "model_configuration",
    "statistics",
    "classification",
    "binary_tensor_data",
    "parameters",
    "schedule_policy",
    "logging",
)


MODEL_CONTROL_EXTENSIONS = ("model_repository", "model_repository(unload_dependents)")
SHARED_MEMORY_EXTENSIONS = ("system_shared_memory",)


class ControlService:
    """Answers from what is in memory, at once. Thread-safe.

    Args:
        registry: the models.
        server_ready: whether requests for models are welcome.
        extensions: what works, for ServerMetadata.
    """

    def __init__(self, registry: ModelRegistry, server_ready: Callable[[], bool], *, extensions: Sequence[str]) -> None:
        self._registry = registry
        self._server_ready = server_ready
        self._extensions = extensions

    def unary_handlers(self) -> dict[str, UnaryHandler]:
        """Handlers by path."""
        handlers: dict[str, UnaryHandler] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_is_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelConfig": self.model_config,
            "ModelStatistics": self.model_statistics,
            "RepositoryIndex": self.repository_index,
        }
        return {OPEN_INFERENCE[name].path: handler for name, handler in handlers.items()}

    def server_live(self, call: Call, message: bytes) -> None:
        """The process answers, so it lives."""
        parse(pb.ServerLiveRequest, message)
        call.reply(pb.ServerLiveResponse(live=True).SerializeToString())

    def server_is_ready(self, call: Call, message: bytes) -> None:
        """Models are loaded and no shutdown is under way."""
        parse(pb.ServerReadyRequest, message)
        call.reply(pb.ServerReadyResponse(ready=self._server_ready()).SerializeToString())

    def model_ready(self, call: Call, message: bytes) -> None:
        """Whether a version, or any version, is served; an unknown model is not ready, which is no error."""
        request = parse(pb.ModelReadyRequest, message)
        versions = self._registry.ready_versions(request.name)
        entry = self._registry.model(request.name)
        version = str(entry.labels.get(request.version, request.version)) if entry else request.version
        ready = version in versions if request.version else bool(versions)
        call.reply(pb.ModelReadyResponse(ready=ready and self._server_ready()).SerializeToString())

    def server_metadata(self, call: Call, message: bytes) -> None:
        """Name, version, and the extensions that work."""
        parse(pb.ServerMetadataRequest, message)
        response = pb.ServerMetadataResponse(
            name=SERVER_NAME, version=inferry_server.__version__, extensions=self._extensions
        )
        call.reply(response.SerializeToString())

    def model_metadata(self, call: Call, message: bytes) -> None:
        """A model's tensors, batch dimension included."""
        request = parse(pb.ModelMetadataRequest, message)
        model = self._registry.find(request.name, request.version)
        response = pb.ModelMetadataResponse(
            name=model.model,
            versions=[model.version] if request.version else self._registry.ready_versions(model.model),
            platform=PLATFORM,
            inputs=[_metadata(spec) for spec in model.signature.inputs],
            outputs=[_metadata(spec) for spec in model.signature.outputs],
        )
        call.reply(response.SerializeToString())

    def model_config(self, call: Call, message: bytes) -> None:
        """A model's limits and batching, as Triton's clients read them."""
        request = parse(pb.ModelConfigRequest, message)
        model = self._registry.find(request.name, request.version)
        call.reply(pb.ModelConfigResponse(config=_config(model)).SerializeToString())

    def model_statistics(self, call: Call, message: bytes) -> None:
        """What a version, the versions of a model, or all of them have done."""
        request = parse(pb.ModelStatisticsRequest, message)
        model = self._registry.model(request.name)
        version = str(model.labels.get(request.version, request.version)) if model else request.version
        versions = [
            served
            for served in self._registry.served()
            if request.name in ("", served.model) and version in ("", served.version)
        ]
        if request.name and not versions:
            which = f"version {request.version!r} of " if request.version else ""
            raise InvalidRequestError(f"there are no statistics of {which}model {request.name!r}: it is not served")
        statistics = [served.statistics.message(served.model, served.version) for served in versions]
        call.reply(pb.ModelStatisticsResponse(model_stats=statistics).SerializeToString())

    def repository_index(self, call: Call, message: bytes) -> None:
        """Every version with its state, or only those that are ready."""
        request = parse(pb.RepositoryIndexRequest, message)
        entries = [
            pb.RepositoryIndexResponse.ModelIndex(
                name=entry.model, version=entry.version_text, state=entry.state, reason=entry.remark
            )
            for entry in self._registry.index()
            if entry.served is not None or not request.ready
        ]
        call.reply(pb.RepositoryIndexResponse(models=entries).SerializeToString())


def _config(model: ServedVersion) -> model_config_pb2.ModelConfig:
    """The limits in effect, whether the manifest, `config.pbtxt` or a setting of the server stated them."""
    first = 1 if model.max_request_rows else 0  # dims come without the batch dimension
    config = model_config_pb2.ModelConfig(
        name=model.model,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=model.max_request_rows,
        default_model_filename=model.model_file,
    )
    for spec in model.signature.inputs:
        tensor = config.input.add(name=spec.name, data_type=spec.datatype.config_type, dims=spec.stated_shape[first:])
        if (reshape := model.reshaping.inputs.get(spec.name)) is not None:
            tensor.reshape.CopyFrom(model_config_pb2.ModelTensorReshape(shape=reshape.own[first:]))
    for spec in model.signature.outputs:
        output = config.output.add(name=spec.name, data_type=spec.datatype.config_type, dims=spec.stated_shape[first:])
        if (reshape := model.reshaping.outputs.get(spec.name)) is not None:
            output.reshape.CopyFrom(model_config_pb2.ModelTensorReshape(shape=reshape.own[first:]))
    groups = model_config_pb2.ModelInstanceGroup
    kind = groups.KIND_CPU if model.provider == CPU else groups.KIND_GPU
    count = model.instance_count // max(1, len(model.gpus))  # on each GPU, as Triton counts
    config.instance_group.add(name=f"{model.model}_0", kind=kind, count=count, gpus=model.gpus)
    config.parameters["execution_provider"].string_value = model.provider
    if model.device_options is not None:
        for name in ("tf32", "cuda_graphs", "prefer_nhwc", "cudnn_conv_algo_search", "gpu_mem_limit_bytes"):
            config.parameters[name].string_value = str(getattr(model.device_options, name)).lower()
    if model.latency_objective_s is not None:
        config.parameters[LATENCY_OBJECTIVE].string_value = f"{model.latency_objective_s * 1e3:g}"
    if model.max_request_rows:
        config.parameters["max_batch_rows"].string_value = str(model.policy.max_batch_size)
        config.parameters["parallel_runs"].string_value = str(model.parallel_runs)
        batching = config.dynamic_batching
        batching.max_queue_delay_microseconds = round(model.policy.max_queue_delay_s * 1e6)
        batching.default_queue_policy.max_queue_size = model.policy.max_queue_size
    return config


def _metadata(spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype.name, shape=spec.stated_shape)
