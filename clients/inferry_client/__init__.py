"""Clients of an Inferry server: SDK, command line, batch jobs, load tests.

    from inferry_client import Client

    with Client("127.0.0.1:8001") as client:
        result = client.classify("mnist", "digit.png")

Names are imported when they are first used, so that `inferry --help` loads neither gRPC nor NumPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inferry_client.async_client import AsyncClient
    from inferry_client.calling.joining import Batching
    from inferry_client.client import Client
    from inferry_client.errors import (
        CertificateError,
        DeadlineExceededError,
        InferryError,
        InvalidRequestError,
        ModelNotFoundError,
        NotAllowedError,
        OverloadedError,
        ReplyError,
        RequestCancelledError,
        ServerError,
        ServerUnavailableError,
        UnsupportedError,
    )
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
        TensorSpec,
        Timing,
    )
    from inferry_client.retries import RetryPolicy

_HOMES = {
    "async_client": ("AsyncClient",),
    "client": ("Client",),
    "errors": (
        "CertificateError",
        "DeadlineExceededError",
        "InferryError",
        "InvalidRequestError",
        "ModelNotFoundError",
        "NotAllowedError",
        "OverloadedError",
        "ReplyError",
        "RequestCancelledError",
        "ServerError",
        "ServerUnavailableError",
        "UnsupportedError",
    ),
    "calling.joining": ("Batching",),
    "results": (
        "Classification",
        "ClassifyResult",
        "ExplainedVersion",
        "InferResult",
        "LateRequest",
        "ModelDescription",
        "ModelMetadata",
        "ModelStatistics",
        "ModelStatus",
        "ServerMetadata",
        "TensorSpec",
        "Timing",
    ),
    "retries": ("RetryPolicy",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "Batching",
    "CertificateError",
    "Classification",
    "ClassifyResult",
    "Client",
    "DeadlineExceededError",
    "ExplainedVersion",
    "InferResult",
    "InferryError",
    "InvalidRequestError",
    "LateRequest",
    "ModelDescription",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelStatistics",
    "ModelStatus",
    "NotAllowedError",
    "OverloadedError",
    "ReplyError",
    "RequestCancelledError",
    "RetryPolicy",
    "ServerError",
    "ServerMetadata",
    "ServerUnavailableError",
    "TensorSpec",
    "Timing",
    "UnsupportedError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
