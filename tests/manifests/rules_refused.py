"""Rules of what the API server or the kubelet refuses although the published schemas take it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label

_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?")
_FOR_EVER = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMED = ("sun", "mon", "tue", "wed", "thu", "fri", "sat"), ("jan", "feb", "mar", "apr", "may", "jun", "jul")
_NAMES = {*_NAMED[0], *_NAMED[1], "aug", "sep", "oct", "nov", "dec"}
_MACROS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}


def refused_faults(bundle: Bundle) -> Iterator[str]:
    """What is there twice or excludes one another, and values out of range."""
    for template in bundle.templates():
        yield from (f"{template.owner}: {fault}" for fault in _pod_faults(template))
        for container in template.containers:
            name = f"{template.owner}, container {container['name']}"
            yield from (f"{name}: {fault}" for fault in _container_faults(container))
    for one in bundle.objects:
        yield from (f"{label(one)}: {fault}" for fault in _object_faults(one))


def _pod_faults(template: Template) -> Iterator[str]:
    for what, names in (
        ("container", [one["name"] for one in template.containers]),
        ("volume", [one["name"] for one in template.spec.get("volumes", [])]),
    ):
        yield from (f"the {what} {name} is there twice" for name in _twice(names))
    policy = template.spec.get("restartPolicy", "Always")
    if template.kind in _FOR_EVER and policy != "Always":
        yield f"restartPolicy is {policy}; a {template.kind} takes Always alone"
    if template.kind in ("Job", "CronJob") and policy == "Always":
        yield "restartPolicy is Always, or not stated; a Job takes OnFailure or Never"
    for one in template.spec.get("tolerations", []):
        yield from _toleration_faults(one)


def _toleration_faults(one: Manifest) -> Iterator[str]:
    """What a toleration says that excludes itself; `word_faults` tells words that are none."""
    operator = one.get("operator") or "Equal"
    if operator == "Exists" and one.get("value"):
        yield f"a toleration of {one.get('key')} has operator Exists and the value {one['value']}"
    if operator == "Equal" and not one.get("key"):
        yield "a toleration has no key, and operator Equal; expected a key, or operator Exists for all"
    if "tolerationSeconds" in one and one.get("effect") != "NoExecute":
        yield f"a toleration of {one.get('key')} has tolerationSeconds without effect NoExecute, which alone ends pods"


def _container_faults(container: Manifest) -> Iterator[str]:
    ports, mounts = container.get("ports", []), container.get("volumeMounts", [])
    yield from (f"the port {name} is there twice" for name in _twice([one["name"] for one in ports if "name" in one]))
    yield from (f"{path} is mounted twice" for path in _twice([one["mountPath"] for one in mounts]))
    for name in (one["name"] for one in ports if "name" in one):
        if not _PORT_NAME.fullmatch(name):
            yield f"the port's name {name} is none; expected lower-case letters, digits and hyphens, 15 at most"
    for one in container.get("env", []):
        if one.get("value") and one.get("valueFrom"):
            yield f"the variable {one['name']} has value and valueFrom; expected one of them"
    for kind in ("startup", "liveness", "readiness"):
        probe = container.get(f"{kind}Probe") or {}
        if kind != "readiness" and probe.get("successThreshold", 1) != 1:
            yield f"{kind} probe: successThreshold is {probe['successThreshold']}; expected 1"
        for key in ("periodSeconds", "timeoutSeconds", "failureThreshold"):
            if probe.get(key, 1) < 1:
                yield f"{kind} probe: {key} is {probe[key]}; expected 1 at least"


def _object_faults(one: Manifest) -> Iterator[str]:
    spec: Any = one.get("spec") or {}
    match one["kind"]:
        case "Service":
            ports = [(port["port"], port.get("protocol", "TCP")) for port in spec.get("ports", [])]
            yield from (f"the port {port[0]} is there twice" for port in _twice(ports))
            if spec.get("type") == "ExternalName" and not spec.get("externalName"):
                yield "type is ExternalName, and externalName is not stated"
        case "CronJob":
            yield from _schedule_faults(str(spec["schedule"]))
        case "NetworkPolicy":
            rules = [*(spec.get("ingress") or []), *(spec.get("egress") or [])]
            peers = [peer for rule in rules for key in ("from", "to") for peer in rule.get(key) or []]
            for block in (peer["ipBlock"] for peer in peers if "ipBlock" in peer):
                for text in (block["cidr"], *block.get("except", [])):
                    if not _is_network(text):
                        yield f"{text} is no network; expected one as 10.0.0.0/8"
        case "Gateway":
            for listener in spec["listeners"]:
                if listener["protocol"] == "HTTPS" and not listener.get("tls", {}).get("certificateRefs"):
                    yield f"the listener {listener['name']} is HTTPS, and has no certificate (tls.certificateRefs)"
        case "ScaledObject":
            triggers = [trigger for trigger in spec["triggers"] if trigger["type"] == "prometheus"]
            for trigger in triggers:
                yield from (f"trigger {trigger.get('name')}: {fault}" for fault in _trigger_faults(trigger["metadata"]))
        case "HorizontalPodAutoscaler":
            targets = [part["target"] for one in spec.get("metrics", []) for part in one.values() if type(part) is dict]
            for target in targets:
                if target.get("averageUtilization", 1) < 1:
                    yield f"averageUtilization is {target['averageUtilization']}; expected 1 at least"


def _trigger_faults(metadata: Manifest) -> Iterator[str]:
    """What KEDA's scaler for Prometheus cannot start with."""
    if "serverAddress" not in metadata:
        yield "no serverAddress says where Prometheus answers"
    for key in ("threshold", "activationThreshold"):
        if key in metadata and not re.fullmatch(r"\d+(\.\d+)?", str(metadata[key])):
            yield f"{key} is {metadata[key]}; expected a number"


def _twice(names: Sequence[Any]) -> list[Any]:
    return [name for name, count in Counter(names).items() if count > 1]


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return "/" in text


def _schedule_faults(schedule: str) -> Iterator[str]:
    parts = schedule.lower().split()
    if schedule in _MACROS or (parts[:1] == ["@every"] and len(parts) == 2):
        return
    if len(parts) != len(_FIELDS):
        yield f"its schedule {schedule!r} has {len(parts)} fields; expected minute, hour, day, month, weekday"
        return
    for part, (name, least, most) in zip(parts, _FIELDS, strict=True):
        for word in filter(None, re.split(r"[,/*?-]", part)):
            is_named = name in ("month", "weekday") and word in _NAMES
            is_step = f"/{word}" in part
            if not is_named and not (word.isdecimal() and (is_step or least <= int(word) <= most)):
                yield f"its schedule {schedule!r} has the {name} {word}; expected {least} to {most}"
