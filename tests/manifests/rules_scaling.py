"""Rules of how many pods there are: scalers, budgets, roll-outs, and disks that one node's pods share."""

import re
from collections.abc import Iterator
from math import ceil
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label
from manifests.rules_objects import selected

_MEASURED = {"cpu", "memory"}  # what metrics-server knows of a container
_MOST_PERCENT = 90  # an autoscaler tolerates a tenth more than its target, and limits are requests: 100 at most
_MATCHER = re.compile(r'\b(pod|container)(=~|=)"([^"]*)"')
_SHARED = {"ReadWriteMany", "ReadOnlyMany"}


def scaling_faults(bundle: Bundle) -> Iterator[str]:
    """Scalers without effect, budgets that hold a node for ever or protect nothing, disks of one node for several."""
    for scaler in bundle.every("HorizontalPodAutoscaler", "ScaledObject", "InferenceService"):
        yield from (f"{label(scaler)}: {fault}" for fault in _range_faults(scaler))
        for template in _scaled(bundle, scaler):
            for fault in (*_metrics_faults(scaler, template), *_trigger_faults(scaler, template)):
                yield f"{label(scaler)}: {fault}"
    for budget in bundle.every("PodDisruptionBudget"):
        yield from (f"{label(budget)}: {fault}" for fault in _budget_faults(bundle, budget))
    for owner in bundle.every("Deployment"):
        yield from (f"{label(owner)}: {fault}" for fault in _roll_out_faults(owner))
    yield from volume_faults(bundle)


def _limits(scaler: Manifest) -> tuple[Any, Any]:
    """The least and the most pods that a scaler makes; None: it says neither."""
    spec = scaler["spec"]
    match scaler["kind"]:
        case "HorizontalPodAutoscaler":
            return spec.get("minReplicas", 1), spec["maxReplicas"]
        case "ScaledObject":
            return spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", 100)
        case _:
            return spec["predictor"].get("minReplicas", 1), spec["predictor"].get("maxReplicas") or None


def _range_faults(scaler: Manifest) -> Iterator[str]:
    least, most = _limits(scaler)
    if most is not None and least > most:
        yield f"at least {least} pods and at most {most}: expected at least as many at most"


def _scaled(bundle: Bundle, scaler: Manifest) -> list[Template]:
    target = scaler["spec"].get("scaleTargetRef")
    owner = f"{target.get('kind', 'Deployment')} {target['name']}" if target else ""
    return [one for one in bundle.beside(scaler["metadata"].get("namespace")).templates() if one.owner == owner]


def _metrics_faults(scaler: Manifest, template: Template) -> Iterator[str]:
    if scaler["kind"] == "HorizontalPodAutoscaler":
        if not scaler["spec"].get("metrics"):
            yield "it has no metrics, and so goes by Kubernetes' default; expected those that it is to go by"
        for metric in scaler["spec"].get("metrics", []):
            yield from _metric_faults(metric, template)


def _metric_faults(metric: Manifest, template: Template) -> Iterator[str]:
    running = {one["name"]: one for one in template.running}
    match metric["type"]:
        case "ContainerResource":
            source = metric["containerResource"]
            if source["container"] not in running:
                yield f"{template.owner} has no container {source['container']}; it has {sorted(running)}"
                return
            asked = [running[source["container"]]]
        case "Resource":
            source, asked = metric["resource"], list(running.values())
            if len(asked) > 1 and source["target"]["type"] == "Utilization":
                yield (
                    f"{source['name']} is the mean over the containers {sorted(running)}: those that idle hide a busy "
                    "server; expected type ContainerResource"
                )
        case _:
            return
    if source["name"] not in _MEASURED:
        yield f"no cluster measures the resource {source['name']} of a pod; expected one of {sorted(_MEASURED)}"
    for container in asked:
        known = {name for one in container.get("resources", {}).values() for name in one}
        if source["target"]["type"] == "Utilization" and source["name"] in _MEASURED - known:
            yield f"container {container['name']} requests no {source['name']}, of which a share is to be computed"
    if source["target"].get("averageUtilization", 0) > _MOST_PERCENT:
        yield (
            f"the target is {source['target']['averageUtilization']} % of {source['name']}: no pod would ever be "
            f"added, as a tenth more is tolerated; expected {_MOST_PERCENT} at most"
        )


def _trigger_faults(scaler: Manifest, template: Template) -> Iterator[str]:
    """Queries of a ScaledObject that name other pods or containers than those that it scales."""
    pod = f"{template.name}-5d8f7c9b64-x2x4v"
    for trigger in scaler["spec"].get("triggers", []):
        for key, operator, text in _MATCHER.findall(str(trigger.get("metadata", {}).get("query", ""))):
            names = [pod] if key == "pod" else [one["name"] for one in template.running]
            if not any(_matches(operator, text, name) for name in names):
                yield f"trigger {trigger.get('name')} asks for the {key} {text}, which is none of {template.owner}"


def _matches(operator: str, text: str, name: str) -> bool:
    try:
        return re.fullmatch(text, name) is not None if operator == "=~" else text == name
    except re.error:
        return False


def _budget_faults(bundle: Bundle, budget: Manifest) -> Iterator[str]:
    spec = budget["spec"]
    for key in ("minAvailable", "maxUnavailable"):
        if key in spec and not _is_part(spec[key]):
            yield f"{key} is {spec[key]!r}: expected a number, or percent as 25%"
            return
    counts = [count for count in (_least_pods(bundle, one) for one in selected(bundle, budget)) if count is not None]
    if not counts:
        return
    least = sum(counts)
    if "minAvailable" in spec and least and _part(spec["minAvailable"], least) >= least:
        yield f"minAvailable is {spec['minAvailable']} of {least} pods: no node that has one could ever be drained"
    if "maxUnavailable" in spec and least and not _part(spec["maxUnavailable"], least):
        yield f"maxUnavailable is {spec['maxUnavailable']}: no node that has one of {least} pods could ever be drained"
    if "maxUnavailable" in spec and least > 1 and _part(spec["maxUnavailable"], least) >= least:
        yield f"maxUnavailable is {spec['maxUnavailable']} of {least} pods: all could be put out at once"


def _is_part(value: Any) -> bool:
    return isinstance(value, int) or re.fullmatch(r"\d{1,3}%", str(value)) is not None


def _part(value: Any, of: int) -> int:
    """A number of pods, or percent of them, rounded up."""
    return ceil(int(str(value)[:-1]) * of / 100) if str(value).endswith("%") else int(value)


def _least_pods(bundle: Bundle, template: Template) -> int | None:
    """How many pods an owner has at least; None: that is not a number here."""
    near = bundle.beside(template.namespace)
    owner = near.find(template.kind, template.name)
    if owner is None or template.kind not in ("Deployment", "StatefulSet"):
        return None
    scaler = _scaler_of(near, owner)
    return int(owner["spec"].get("replicas", 1)) if scaler is None else int(_limits(scaler)[0])


def _scaler_of(bundle: Bundle, owner: Manifest) -> Manifest | None:
    scalers = bundle.every("HorizontalPodAutoscaler", "ScaledObject")
    return next((one for one in scalers if one["spec"]["scaleTargetRef"]["name"] == owner["metadata"]["name"]), None)


def _roll_out_faults(owner: Manifest) -> Iterator[str]:
    strategy = owner["spec"].get("strategy", {})
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "Recreate" and rolling:
        yield "its strategy is Recreate, and it states rollingUpdate"
    parts = [rolling.get(key, "25%") for key in ("maxSurge", "maxUnavailable")]
    if not all(map(_is_part, parts)):
        yield f"rollingUpdate is {rolling}: expected numbers, or percent as 25%"
    elif not any(_part(one, 100) for one in parts):
        yield "maxSurge and maxUnavailable are 0: no pod could ever be exchanged"


def volume_faults(bundle: Bundle) -> Iterator[str]:
    """Claims on a disk of one node that several pods ask for at a time."""
    for owner in bundle.every("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"):
        near = bundle.beside(owner["metadata"].get("namespace"))
        if not _several_pods(near, owner):
            continue
        (template,) = Bundle([owner]).templates()
        for volume in template.spec.get("volumes", []):
            claim = near.find("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName", ""))
            modes = [] if claim is None else claim["spec"].get("accessModes", [])
            if claim is not None and modes and not _SHARED & set(modes):
                yield (
                    f"{label(owner)}: {label(claim)} is {', '.join(modes)}, and several pods ask for it: on another "
                    "node one would wait for ever; expected ReadWriteMany, or one replica and the strategy Recreate"
                )


def _several_pods(bundle: Bundle, owner: Manifest) -> bool:
    """Whether two pods of one owner may be there at once."""
    spec = owner["spec"]
    if owner["kind"] in ("Job", "CronJob"):
        job = spec if owner["kind"] == "Job" else spec["jobTemplate"]["spec"]
        overlap = owner["kind"] == "CronJob" and spec.get("concurrencyPolicy", "Allow") == "Allow"
        return overlap or int(job.get("parallelism", 1)) > 1
    if owner["kind"] == "DaemonSet":
        return True
    scaler = _scaler_of(bundle, owner)
    most = int(spec.get("replicas", 1)) if scaler is None else int(_limits(scaler)[1])
    if owner["kind"] == "StatefulSet" or spec.get("strategy", {}).get("type") == "Recreate":
        return most > 1
    surge = (spec.get("strategy", {}).get("rollingUpdate") or {}).get("maxSurge", "25%")
    return most + (_part(surge, most) if _is_part(surge) else 1) > 1
