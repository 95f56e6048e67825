"""Questions about models and the server, each as a `Call`."""

from typing import Unpack

from inferry_client.limits import MAX_UINT32, check_texts, check_whole_number
from inferry_client.messages import replies
from inferry_client.messages.call import Call, CallOptions, name_model, read_options
from inferry_client.results import (
    ExplainedVersion,
    ModelDescription,
    ModelMetadata,
    ModelStatistics,
    ModelStatus,
    ServerMetadata,
)
from inferry_proto import classifier_pb2, diagnostics_pb2, open_inference_pb2
from inferry_proto.services import DIAGNOSTICS, IMAGE_CLASSIFIER, OPEN_INFERENCE


def describe_model(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[ModelDescription]:
    """What a model takes and gives: tensors, labels, preprocessing."""
    check_texts(model=model, version=version)
    request = classifier_pb2.DescribeModelRequest(model_name=model, model_version=version)
    asked = f"describe {name_model(model, version)}"
    method = IMAGE_CLASSIFIER["DescribeModel"]
    return Call(method, request, replies.read_description, asked, *read_options(options), control=True)


def model_metadata(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[ModelMetadata]:
    """A model as the Open Inference Protocol describes it: tensors and versions."""
    check_texts(model=model, version=version)
    request = open_inference_pb2.ModelMetadataRequest(name=model, version=version)
    asked = f"describe {name_model(model, version)}"
    method = OPEN_INFERENCE["ModelMetadata"]
    return Call(method, request, replies.read_model_metadata, asked, *read_options(options), control=True)


def model_limit(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[int]:
    """The most rows a request for a model may carry; 0 where it takes no batches."""
    check_texts(model=model, version=version)
    request = open_inference_pb2.ModelConfigRequest(name=model, version=version)
    asked = f"say what {name_model(model, version)} takes"
    method = OPEN_INFERENCE["ModelConfig"]
    return Call(method, request, replies.read_limit, asked, *read_options(options), control=True)


def model_ready(model: str, *, version: str = "", **options: Unpack[CallOptions]) -> Call[bool]:
    """Whether a model (one version, or any) can answer now."""
    check_texts(model=model, version=version)
    request = open_inference_pb2.ModelReadyRequest(name=model, version=version)
    asked = f"say whether {name_model(model, version)} is ready"
    method = OPEN_INFERENCE["ModelReady"]
    return Call(method, request, replies.read_ready, asked, *read_options(options), control=True)


def repository_index(*, ready_only: bool = False, **options: Unpack[CallOptions]) -> Call[tuple[ModelStatus, ...]]:
    """Every version in the server's repository, with its state."""
    request = open_inference_pb2.RepositoryIndexRequest(ready=ready_only)
    method = OPEN_INFERENCE["RepositoryIndex"]
    return Call(method, request, replies.read_repository_index, "list its models", *read_options(options), control=True)


def statistics(
    model: str = "", *, version: str = "", **options: Unpack[CallOptions]
) -> Call[tuple[ModelStatistics, ...]]:
    """What a model, or every model, has done since it was loaded."""
    check_texts(model=model, version=version)
    request = open_inference_pb2.ModelStatisticsRequest(name=model, version=version)
    asked = f"count what {name_model(model, version)} did" if model else "count what its models did"
    method = OPEN_INFERENCE["ModelStatistics"]
    return Call(method, request, replies.read_statistics, asked, *read_options(options), control=True)


def explain(
    model: str = "", *, version: str = "", limit: int = 0, **options: Unpack[CallOptions]
) -> Call[tuple[ExplainedVersion, ...]]:
    """The slowest and the refused requests of a model, or of every model, and where their time went.

    Args:
        model: its name; empty for every one.
        version: a number or a label; empty for every one.
        limit: requests of each kind and version; 0 for all that the server keeps.
        options: as for every call.
    """
    check_texts(model=model, version=version)
    limit = check_whole_number("limit", limit, 0, MAX_UINT32)
    request = diagnostics_pb2.ExplainRequest(model_name=model, model_version=version, limit=limit)
    asked = f"explain {name_model(model, version)}" if model else "explain late requests"
    return Call(DIAGNOSTICS["Explain"], request, replies.read_explained, asked, *read_options(options), control=True)


def server_metadata(**options: Unpack[CallOptions]) -> Call[ServerMetadata]:
    """The server's name, version and extensions."""
    request = open_inference_pb2.ServerMetadataRequest()
    method = OPEN_INFERENCE["ServerMetadata"]
    return Call(method, request, replies.read_server_metadata, "say who it is", *read_options(options), control=True)


def server_live(**options: Unpack[CallOptions]) -> Call[bool]:
    """Whether the process answers."""
    request = open_inference_pb2.ServerLiveRequest()
    method = OPEN_INFERENCE["ServerLive"]
    return Call(method, request, replies.read_live, "say whether it is live", *read_options(options), control=True)


def server_ready(**options: Unpack[CallOptions]) -> Call[bool]:
    """Whether requests for models are welcome."""
    request = open_inference_pb2.ServerReadyRequest()
    method = OPEN_INFERENCE["ServerReady"]
    return Call(method, request, replies.read_ready, "say whether it is ready", *read_options(options), control=True)


def readiness(model: str, *, version: str, timeout_s: float) -> Call[bool]:
    """Whether a model is ready, or, where none is named, the server."""
    return model_ready(model, version=version, timeout_s=timeout_s) if model else server_ready(timeout_s=timeout_s)
