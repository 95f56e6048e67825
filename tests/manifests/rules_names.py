"""Rules of names and labels: those that the API server takes. The schemas of Kubernetes say nothing of them."""

import re
from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, label

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9]")
_VALUE = re.compile(r"(([A-Za-z0-9][A-Za-z0-9_.-]{0,61})?[A-Za-z0-9])?")
_MOST = {
    "Service": 63,
    "Namespace": 63,
    "Job": 63,
    "CronJob": 52,
}  # a Job's is a label, and a CronJob's has more behind


def name_faults(bundle: Bundle) -> Iterator[str]:
    """Names and labels that the API server refuses, and objects that are there twice."""
    seen: set[tuple[str, str, str | None]] = set()
    for one in bundle.objects:
        metadata = one["metadata"]
        key = one["kind"], metadata["name"], metadata.get("namespace")
        if key in seen:
            yield f"{label(one)}: it is there twice"
        seen.add(key)
        yield from (f"{label(one)}: {fault}" for fault in _name_faults(one))
        yield from (f"{label(one)}: {fault}" for fault in _label_faults(metadata))
    for template in bundle.templates():
        yield from (f"{template.owner}, pod: {fault}" for fault in _label_faults(template.metadata))
        for container in template.containers:
            if not _LABEL.fullmatch(container["name"]) or len(container["name"]) > 63:
                yield f"{template.owner}: the container's name {container['name']} is none; expected a DNS label"


def _name_faults(one: Manifest) -> Iterator[str]:
    name, most = one["metadata"]["name"], _MOST.get(one["kind"], 253)
    match one["kind"]:
        case "Service":
            shape, expected = _SERVICE, "a letter, then lower-case letters, digits and hyphens"
        case "Namespace":
            shape, expected = _LABEL, "lower-case letters, digits and hyphens"
        case _:
            shape, expected = _SUBDOMAIN, "lower-case letters, digits, hyphens and dots"
    if not shape.fullmatch(name) or len(name) > most:
        yield f"its name has {len(name)} characters; expected {most} at most: {expected}"


def _label_faults(metadata: dict[str, Any]) -> Iterator[str]:
    for key, value in (metadata.get("labels") or {}).items():
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(str(value)):
            yield f"the label {key}: {value!r} is none; expected letters, digits, -, _ and dots, 63 at most"
