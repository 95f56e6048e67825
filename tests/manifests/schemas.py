"""Every object against the schema of its kind: Kubernetes' own by version, custom ones from `crds.json`.

`BackendTrafficPolicy` is Envoy Gateway's, whose definitions no package brings: `HAND_WRITTEN` has the fields that are
used here, read from its documentation, and no others.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils

from manifests.bundle import Bundle, Manifest, label

VERSIONS = tuple(f"1.{minor}" for minor in range(27, 38))
IMAGE_VOLUMES_SINCE = 31  # the field is unknown to older versions

# For each object the package reads a version's definitions, two megabytes of JSON, and lists its folder twice: most of
# this check's time.
kubernetes_validate.utils.schema_contents = cache(kubernetes_validate.utils.schema_contents)
kubernetes_validate.utils.all_versions = cache(kubernetes_validate.utils.all_versions)

_OWN_GROUPS = (
    "networking.k8s.io", "scheduling.k8s.io", "storage.k8s.io", "rbac.authorization.k8s.io", "policy.k8s.io",
    "coordination.k8s.io", "discovery.k8s.io", "node.k8s.io", "admissionregistration.k8s.io",
)  # fmt: skip

_TEXT, _COUNT, _DURATION = {"type": "string"}, {"type": "integer", "minimum": 0}, {"pattern": r"^([0-9]+(ms|s|m|h))+$"}


_BALANCING = ("BackendUtilization", "ConsistentHash", "LeastRequest", "Random", "RoundRobin")


def _closed(required: tuple[str, ...] = (), **properties: Any) -> Manifest:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


HAND_WRITTEN = {
    "gateway.envoyproxy.io/v1alpha1/BackendTrafficPolicy": _closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion=_TEXT,
        kind=_TEXT,
        metadata={"type": "object"},
        spec=_closed(
            ("targetRefs",),
            targetRefs={
                "type": "array",
                "items": _closed(("group", "kind", "name"), group=_TEXT, kind=_TEXT, name=_TEXT, sectionName=_TEXT),
            },
            loadBalancer=_closed(("type",), type={"enum": list(_BALANCING)}),
            retry=_closed(
                numRetries=_COUNT,
                retryOn=_closed(
                    triggers={
                        "type": "array",
                        "items": {
                            "enum": [
                                "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure",
                                "retriable-4xx", "refused-stream", "retriable-status-codes", "cancelled",
                                "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
                            ]
                        },
                    },
                    httpStatusCodes={"type": "array", "items": _COUNT},
                ),
                perRetry=_closed(timeout=_DURATION, backOff=_closed(baseInterval=_DURATION, maxInterval=_DURATION)),
            ),
            circuitBreaker=_closed(
                maxConnections=_COUNT, maxPendingRequests=_COUNT, maxParallelRequests=_COUNT, maxParallelRetries=_COUNT
            ),
            healthCheck=_closed(
                passive=_closed(
                    consecutive5XxErrors=_COUNT,
                    consecutiveGatewayErrors=_COUNT,
                    consecutiveLocalOriginFailures=_COUNT,
                    splitExternalLocalOriginErrors={"type": "boolean"},
                    interval=_DURATION,
                    baseEjectionTime=_DURATION,
                    maxEjectionPercent={"type": "integer", "minimum": 0, "maximum": 100},
                )
            ),
            timeout=_closed(
                tcp=_closed(connectTimeout=_DURATION),
                http=_closed(requestTimeout=_DURATION, connectionIdleTimeout=_DURATION),
            ),
        ),
    )
}  # fmt: skip


@cache
def _custom() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("crds.json").read_text())
    return found | HAND_WRITTEN


def shape_faults(bundle: Bundle) -> list[str]:
    """Objects that say not what they are, or say it with a misspelt word, a sentence each."""
    found = []
    for one in bundle.objects:
        missing = [key for key in ("apiVersion", "kind") if not isinstance(one.get(key), str)]
        if not isinstance(one.get("metadata"), dict) or not isinstance(one["metadata"].get("name"), str):
            missing.append("metadata.name")
        if missing:
            found.append(f"an object has no {', '.join(missing)}: {json.dumps(one, default=str)[:80]}")
        elif _is_kubernetes_own(one["apiVersion"]) and _is_unknown(one, VERSIONS[-1]):
            found.append(f"{label(one)}: Kubernetes has no {one['kind']} of {one['apiVersion']}")
    return found


def _is_kubernetes_own(version: str) -> bool:
    """Whether a group is one of Kubernetes' own, which the schemas have whole; others are somebody's."""
    group = version.rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and not group.endswith(".x-k8s.io") and group in _OWN_GROUPS)


def schema_faults(bundle: Bundle, version: str) -> list[str]:
    """What the schemas of a Kubernetes version refuse, a sentence each."""
    return [fault for one in bundle.objects for fault in _faults(json.dumps(one, sort_keys=True), version)]


def unknown_kinds(bundle: Bundle, version: str) -> list[str]:
    """The objects of which no schema is known, a sentence each."""
    return [
        f"{label(one)}: no schema is known of {one['apiVersion']}/{one['kind']}"
        for one in bundle.objects
        if isinstance(one.get("apiVersion"), str) and _is_unknown(one, version)
    ]


def _is_unknown(one: Manifest, version: str) -> bool:
    return _has_no_schema(one["apiVersion"], one.get("kind"), version)


@cache
def _has_no_schema(api: str, kind: str | None, version: str) -> bool:
    if f"{api}/{kind}" in _custom():
        return False
    try:
        kubernetes_validate.validate({"apiVersion": api, "kind": kind, "metadata": {}}, version)
    except kubernetes_validate.SchemaNotFoundError:
        return True
    except kubernetes_validate.ValidationError:
        return False
    return False


@cache  # most objects of one combination of components are those of another
def _faults(text: str, version: str) -> tuple[str, ...]:
    return tuple(_object_faults(json.loads(text), version))


def _object_faults(one: Manifest, version: str) -> list[str]:
    name = f"{one.get('apiVersion')}/{one.get('kind')}"
    if name in _custom():
        errors = jsonschema.Draft7Validator(_custom()[name]).iter_errors(one)
        faults = [f"{label(one)}: {error.json_path}: {error.message}" for error in errors]
        return faults + [fault for pod in _pods(one) for fault in _object_faults(pod, version)]
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{label(one)}: Kubernetes {version}: {error}"]
    except kubernetes_validate.SchemaNotFoundError:
        return []  # `unknown_kinds` tells
    return []


def _pods(one: Manifest) -> list[Manifest]:
    """The pod inside a serving runtime, whose containers KServe's schema takes as they are."""
    if not one["kind"].endswith("ServingRuntime"):
        return []
    spec = {key: one["spec"][key] for key in ("containers", "volumes", "tolerations") if key in one["spec"]}
    return [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": one["metadata"]["name"]}, "spec": spec}]
