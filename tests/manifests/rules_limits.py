"""Rules of a namespace's LimitRanges: pods, containers and claims here lie within them, or they are never made."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label
from manifests.rules_resources import quantity

Amounts = Mapping[str, Any]
_TYPES = ("Container", "Pod", "PersistentVolumeClaim")
_BOUNDS = ("min", "max", "maxLimitRequestRatio", "default", "defaultRequest")


@dataclass(frozen=True)
class _Asked:
    """What a container, a pod or a claim asks for.

    Attributes:
        owner: as messages name it.
        requests: by resource.
        limits: by resource.
    """

    owner: str
    requests: Amounts
    limits: Amounts = field(default_factory=dict)


def limit_faults(bundle: Bundle) -> Iterator[str]:
    """What the API server would refuse to make: amounts outside a LimitRange of the namespace."""
    for one in bundle.every("LimitRange"):
        for item in one["spec"]["limits"]:
            if wrong := list(_unreadable(item)):
                yield from (f"{label(one)}: {fault}" for fault in wrong)
                continue
            for asked in _subjects(bundle, item, one["metadata"].get("namespace")):
                yield from (f"{asked.owner}: {fault} of {label(one)}" for fault in _faults(item, asked))


def _unreadable(item: Manifest) -> Iterator[str]:
    if item["type"] not in _TYPES and "/" not in item["type"]:
        yield f"the type {item['type']} is none; expected {', '.join(_TYPES)}"
    for bound in _BOUNDS:
        for name, amount in (item.get(bound) or {}).items():
            if _number(amount) is None:
                yield f"{bound} of {name} is {amount}; expected a quantity as 512Mi"


def _subjects(bundle: Bundle, item: Manifest, namespace: str | None) -> Iterator[_Asked]:
    templates = [one for one in bundle.templates() if one.namespace == namespace]
    match item["type"]:
        case "Container":
            for template in templates:
                for container in template.containers:
                    yield _with_defaults(item, template, container)
        case "Pod":
            yield from map(_of_pod, templates)
        case "PersistentVolumeClaim":
            claims = bundle.every("PersistentVolumeClaim")
            for claim in (claim for claim in claims if claim["metadata"].get("namespace") == namespace):
                yield _Asked(label(claim), claim["spec"].get("resources", {}).get("requests", {}))


def _stated(container: Manifest) -> tuple[Amounts, Amounts]:
    """Requests and limits of a container, as Kubernetes fills the former in."""
    resources = container.get("resources") or {}
    limits = resources.get("limits") or {}
    return limits | (resources.get("requests") or {}), limits


def _with_defaults(item: Manifest, template: Template, container: Manifest) -> _Asked:
    """A container with the LimitRange's own defaults where it states nothing."""
    requests, limits = _stated(container)
    default = (item.get("max") or {}) | (item.get("default") or {})
    least = (item.get("min") or {}) | default | (item.get("defaultRequest") or {})
    return _Asked(f"{template.owner}, container {container['name']}", {**least, **requests}, {**default, **limits})


def _of_pod(template: Template) -> _Asked:
    """Sums over what runs at a time: the containers together, or one that runs before them alone."""
    sums: list[dict[str, float]] = []
    for place in (0, 1):
        total: dict[str, float] = {}
        for container in template.running:
            for name, amount in _stated(container)[place].items():
                total[name] = total.get(name, 0.0) + (_number(amount) or 0.0)
        for container in template.containers:
            for name, amount in _stated(container)[place].items():
                total[name] = max(total.get(name, 0.0), _number(amount) or 0.0)
        sums.append(total)
    return _Asked(template.owner, *sums)


def _faults(item: Manifest, asked: _Asked) -> Iterator[str]:
    least, most, ratios = (item.get(bound) or {} for bound in _BOUNDS[:3])
    for name in least.keys() - asked.requests.keys():
        yield f"it requests no {name}, and {least[name]} is the least"
    if item["type"] == "Pod":
        yield from (f"it limits no {name}, and {most[name]} is the most" for name in most.keys() - asked.limits.keys())
    for word, amounts in (("requests", asked.requests), ("limits", asked.limits)):
        for name, amount in amounts.items():
            own = _number(amount)
            if own is not None and name in least and own < (_number(least[name]) or 0.0):
                yield f"its {word} have {_told(amount)} of {name}, and {least[name]} is the least"
            if own is not None and name in most and own > (_number(most[name]) or 0.0):
                yield f"its {word} have {_told(amount)} of {name}, and {most[name]} is the most"
    for name in ratios.keys() & asked.limits.keys() & asked.requests.keys():
        limit, request = _number(asked.limits[name]), _number(asked.requests[name])
        if limit and request and limit / request > (_number(ratios[name]) or 1.0):
            yield f"its limit of {name} is {limit / request:g} times its request, and {ratios[name]} is the most"


def _number(amount: Any) -> float | None:
    try:
        return quantity(str(amount))
    except ValueError:
        return None


def _told(amount: Any) -> str:
    """An amount as it is stated, or a sum of them."""
    if isinstance(amount, float):
        return f"{amount / 2**20:g}Mi" if amount >= 2**20 else f"{amount:g}"
    return str(amount)
