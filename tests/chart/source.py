"""What kustomize renders of the base alone, and with each component, woven into one tree for each object."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from chart.nodes import ABSENT, Node, weave
from manifests.bundle import K8S, Bundle, Manifest, render, write_overlay
from manifests.planting import POLICY

# The chart's condition for each component, in the order in which an overlay lists them.
CONDITIONS = {
    "gpu": "$.Values.gpu.enabled",
    "priority": "$.Values.priority.enabled",
    "tls": "$.Values.tls.enabled",
    "tokens": "$.Values.tokens.enabled",
    "networkpolicy": "$.Values.networkPolicy.enabled",
    "monitoring": "$.Values.monitoring.enabled",
    "hpa": 'eq $.Values.autoscaling.kind "hpa"',
    "keda": 'eq $.Values.autoscaling.kind "keda"',
    "gateway": "$.Values.gateway.enabled",
    "gateway-tls": "and (or $.Values.gateway.enabled $.Values.gateway.ofAnotherRelease) $.Values.tls.enabled",
    "models-image": 'eq $.Values.models.from "image"',
    "models-bucket": 'eq $.Values.models.from "bucket"',
}
# Helm brings a namespace itself; a canary is another release, and jobs are not in the chart.
ELSEWHERE = ("namespace", "canary", "jobs-tls", "jobs-tokens")

_HASHED = re.compile(r"(inferry-server)-[0-9a-z]{10}")


def plain(tree: Any) -> Any:
    """Without the hash in the ConfigMap's name: the chart's pods carry a checksum of the settings instead."""
    match tree:
        case dict():
            return {key: plain(value) for key, value in tree.items()}
        case list():
            return [plain(value) for value in tree]
        case str() if match := _HASHED.fullmatch(tree):
            return match[1]
        case _:
            return tree


def keyed(bundle: Bundle) -> dict[str, Manifest]:
    """The objects by `Kind/name`."""
    objects = [plain(one) for one in bundle.objects]
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in objects}


def with_policy(folder: Path, components: Sequence[str]) -> Path:
    """An overlay with components, and with the Secret that one of them may mount."""
    return write_overlay(folder, components, more=POLICY if "tokens" in components else "")


def woven_objects() -> dict[str, Node]:
    """Every object that the base or a component has, with the components' conditions in it."""
    base = keyed(render(K8S / "base"))
    with TemporaryDirectory() as folder:
        variants = {name: keyed(render(with_policy(Path(folder), (name,)))) for name in CONDITIONS}
    names = dict.fromkeys(name for tree in (base, *variants.values()) for name in tree)
    return {
        name: weave(
            base.get(name, ABSENT), [(CONDITIONS[one], tree.get(name, ABSENT)) for one, tree in variants.items()]
        )
        for name in names
    }
