"""What texts and lists of values may look like, as JSON schemas. Helm's patterns are RE2's: they look neither way."""

from typing import Any

Schema = dict[str, Any]

QUANTITY = r"^[1-9][0-9]*(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
"""An amount as Kubernetes writes it, of something that is there."""

DNS_LABEL = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
"""The name of most objects, of a volume, or of a namespace."""

DNS_NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""The name of an object that may have dots, or of a host."""

HOST_PATTERN = rf"^(\*\.)?{DNS_NAME[1:]}"
"""The name of a host, or of all below it."""

PERCENT_OR_COUNT: Schema = {"type": ["integer", "string"], "minimum": 0, "pattern": "^([0-9]|[1-9][0-9]|100)%$"}
"""Pods, or percent of them."""

_SEGMENT = "[a-z0-9]+([._-]+[a-z0-9]+)*"
REGISTRY = rf"^({_SEGMENT}(:[0-9]{{1,5}})?(/{_SEGMENT})*/?)?$"
"""A host, with or without a port, and a path below it; no scheme."""

IMAGE_PATH = rf"^({_SEGMENT}(/{_SEGMENT})*)?$"
"""What stands between registry and tag."""

IMAGE_TAG = "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$"

IMAGE_REFERENCE = (
    rf"^({_SEGMENT}(:[0-9]{{1,5}})?(/{_SEGMENT})+"
    r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?@sha256:[0-9a-f]{64}))?$"
)
"""A whole image with its registry, and a tag or a digest; or nothing."""

_LABEL_NAME = "([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9]"
LABEL_KEY = rf"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?{_LABEL_NAME}$"
LABELS: Schema = {
    "type": "object",
    "propertyNames": {"pattern": LABEL_KEY},
    "additionalProperties": {"type": "string", "pattern": rf"^({_LABEL_NAME})?$"},
}
ANNOTATIONS: Schema = {
    "type": "object", "propertyNames": {"pattern": LABEL_KEY}, "additionalProperties": {"type": "string"},
}  # fmt: skip


def listed(item: Schema) -> Schema:
    """A list of such items."""
    return {"type": "array", "items": item}


def texts(pattern: str = "") -> Schema:
    """A list of texts."""
    return listed({"type": "string"} | ({"pattern": pattern} if pattern else {}))


def having(*required: str, **properties: Schema) -> Schema:
    """An object with these keys; others are Kubernetes' to judge."""
    return {"type": "object", "required": list(required), "properties": properties}


def closed(*required: str, **properties: Schema) -> Schema:
    """An object with these keys and no others."""
    return having(*required, **properties) | {"additionalProperties": False}


def or_empty(schema: Schema) -> Schema:
    """The object, or one without anything, which is the default."""
    required = schema.get("required", [])
    return {key: value for key, value in schema.items() if key != "required"} | {
        "anyOf": [{"maxProperties": 0}, {"required": required}]
    }


_AMOUNTS: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number"], "pattern": QUANTITY, "exclusiveMinimum": 0},
}
RESOURCES: Schema = or_empty(closed("limits", limits=_AMOUNTS, requests=_AMOUNTS))
STRATEGY: Schema = closed(
    type={"enum": ["RollingUpdate", "Recreate"]},
    rollingUpdate=closed(maxSurge=PERCENT_OR_COUNT, maxUnavailable=PERCENT_OR_COUNT),
)
TOLERATION: Schema = closed(
    key={"type": "string"},
    operator={"enum": ["", "Exists", "Equal"]},
    value={"type": "string"},
    effect={"enum": ["", "NoSchedule", "PreferNoSchedule", "NoExecute"]},
    tolerationSeconds={"type": "integer"},
)
