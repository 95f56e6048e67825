"""The role that a caller needs for each method."""

from enum import StrEnum

from inferry_proto.services import DIAGNOSTICS, IMAGE_CLASSIFIER, OPEN_INFERENCE


class Role(StrEnum):
    """What a caller may do. No role contains another: a caller has those that the policy gives it."""

    INFER = "infer"
    READ = "read"
    ADMIN = "admin"


_HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch")
_OPEN = ("ServerLive", "ServerReady", "ModelReady")
_INFER = ("ModelInfer", "ModelStreamInfer", "Classify", "ClassifyStream")
_READ = (
    "ServerMetadata",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "RepositoryIndex",
    "DescribeModel",
    "Explain",
)
_METHODS = {
    name: method.path for methods in (OPEN_INFERENCE, IMAGE_CLASSIFIER, DIAGNOSTICS) for name, method in methods.items()
}

REFLECTION = (
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)
"""Its methods; the policy says who may call them."""

OPEN_METHODS = frozenset((*_HEALTH, *(_METHODS[name] for name in _OPEN)))
"""Health: whoever reaches the port may ask, as balancers and kubelets do."""

ROLES: dict[str, Role | None] = {
    **{_METHODS[name]: Role.INFER for name in _INFER},
    **{_METHODS[name]: Role.READ for name in _READ},
    **dict.fromkeys(OPEN_METHODS),
}
"""The role that a caller needs, by the method's path; None: it needs none.

A method that does not stand here needs `admin`, so that no new one is open by accident.
"""
