"""Rules between objects: what one names, another has."""

from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label

_RESTRICTED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim"} | {
    "projected", "secret",
}  # fmt: skip
_RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def selector_faults(bundle: Bundle) -> Iterator[str]:
    """Selectors that find no pod."""
    for one in bundle.objects:
        spec = one.get("spec") or {}
        match one["kind"]:
            case "Service" if spec.get("selector"):  # others have endpoints that somebody else keeps
                selector = spec["selector"]
                selector = {"matchLabels": selector}
            case "PodDisruptionBudget" | "PodMonitor":
                selector = spec.get("selector") or {}
            case "NetworkPolicy":
                selector = spec["podSelector"]
            case "Deployment" | "StatefulSet" | "DaemonSet":
                selector = spec["selector"]["matchLabels"]
                own = spec["template"]["metadata"].get("labels", {})
                if not selector.items() <= own.items():
                    yield f"{label(one)}: its selector {selector} does not take its own pods, which have {own}"
                continue
            case _:
                continue
        if not any(selector.values()) and one["kind"] != "NetworkPolicy":
            yield f"{label(one)}: it selects every pod of the namespace, or none"
        elif selector and not bundle.taken(selector):
            yield f"{label(one)}: no pod has the labels {selector.get('matchLabels', {})}{_expressed(selector)}"
    for template in bundle.templates():
        for constraint in template.spec.get("topologySpreadConstraints", []):
            selector = constraint.get("labelSelector", {}).get("matchLabels", {})
            if not selector.items() <= template.labels.items():
                yield f"{template.owner}: a spread constraint counts pods with {selector}, which its own have not"


def _expressed(selector: Manifest) -> str:
    expressions = selector.get("matchExpressions") or []
    return "".join(f" and {one['key']} {one['operator']} {one.get('values', '')}".rstrip() for one in expressions)


def port_faults(bundle: Bundle) -> Iterator[str]:
    """Ports that no container of the pods behind has."""
    for one in bundle.objects:
        spec = one.get("spec") or {}
        asked: list[Any] = []
        match one["kind"]:
            case "Service" if spec.get("selector"):
                templates = bundle.selected(spec["selector"])
                asked = [port.get("targetPort", port["port"]) for port in spec["ports"]]
                yield from _headless_faults(one, templates)
            case "PodMonitor":
                templates = bundle.taken(spec["selector"])
                asked = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"] if "port" in endpoint]
            case "NetworkPolicy" if spec["podSelector"]:
                templates = bundle.taken(spec["podSelector"])
                ports = [port for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
                asked = [port["port"] for port in ports if "port" in port and "endPort" not in port]
            case _:
                continue
        for template in templates:
            known = container_ports(template)
            for port in asked:
                if port not in known and port not in known.values():
                    yield f"{label(one)}: {template.owner} has no port {port}; it has {known}"


def container_ports(template: Template) -> dict[str, int]:
    """The ports of a pod by name."""
    return {
        port.get("name", str(port["containerPort"])): port["containerPort"]
        for container in template.containers
        for port in container.get("ports", [])
    }


def _headless_faults(service: Manifest, templates: list[Template]) -> Iterator[str]:
    if service["spec"].get("clusterIP") != "None":
        return
    for template in templates:
        known = container_ports(template)
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if known.get(target, target) != port["port"]:
                yield (
                    f"{label(service)}: a headless Service translates no ports, and {port['port']} is not the pod's "
                    f"{known.get(target, target)}"
                )


def reference_faults(bundle: Bundle) -> Iterator[str]:
    """Parts of objects that are not there: mounted volumes, listeners, ports of routes; and two scalers of one object.

    Objects that are not there are told by `needs`: they may be in the cluster already.
    """
    for template in bundle.templates():
        volumes = {volume["name"] for volume in template.spec.get("volumes", [])}
        for container in template.containers:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{template.owner}: there is no volume {mount['name']}"
    yield from _target_faults(bundle)
    yield from _route_faults(bundle)


def _target_faults(bundle: Bundle) -> Iterator[str]:
    scaled: dict[str, str] = {}
    for one in bundle.every("HorizontalPodAutoscaler", "ScaledObject"):
        target = one["spec"]["scaleTargetRef"]
        found = bundle.find(target.get("kind", "Deployment"), target["name"])
        if found is not None and "replicas" in found["spec"]:
            yield f"{label(one)}: {label(found)} states replicas, which every apply would set back"
        if target["name"] in scaled:
            yield f"{label(one)}: {scaled[target['name']]} scales {target['name']} too"
        scaled[target["name"]] = label(one)


def _route_faults(bundle: Bundle) -> Iterator[str]:
    for route in bundle.every("GRPCRoute"):
        for parent in near(route["spec"].get("parentRefs", []), "Gateway"):
            gateway = bundle.find("Gateway", parent["name"])
            listeners = [] if gateway is None else [one["name"] for one in gateway["spec"]["listeners"]]
            if gateway is not None and parent.get("sectionName") not in (None, *listeners):
                yield f"{label(route)}: Gateway {parent['name']} has no listener {parent['sectionName']}"
        for backend in backends(route):
            service = bundle.find("Service", backend["name"])
            if service is not None and backend["port"] not in [port["port"] for port in service["spec"]["ports"]]:
                yield f"{label(route)}: Service {backend['name']} has no port {backend['port']}"


def backends(route: Manifest) -> list[Manifest]:
    """The Services of a route's own namespace that it sends calls to."""
    return near([one for rule in route["spec"].get("rules", []) for one in rule.get("backendRefs", [])], "Service")


def near(references: list[Manifest], kind: str) -> list[Manifest]:
    """Those to a kind, in the namespace of who refers."""
    return [one for one in references if one.get("kind", kind) == kind and "namespace" not in one]


def security_faults(bundle: Bundle) -> Iterator[str]:
    """Pods below the restricted pod security standard, or with a writable root, or without limits."""
    for template in bundle.templates():
        pod = template.spec.get("securityContext", {})
        for container in template.containers:
            name = f"{template.owner}, container {container['name']}"
            own = container.get("securityContext", {})
            together = pod | own
            if not together.get("runAsNonRoot") or not together.get("runAsUser"):
                yield f"{name}: it may run as root"
            if together.get("seccompProfile") != {"type": "RuntimeDefault"}:
                yield f"{name}: no seccomp profile"
            for key, value in _RESTRICTED_CONTAINER.items():
                if own.get(key) != value:
                    yield f"{name}: securityContext.{key} is {own.get(key)}; expected {value}"
            limits = container.get("resources", {}).get("limits", {})
            if "memory" not in limits:
                yield f"{name}: no memory limit"
            if not container["image"].rpartition("/")[2].partition(":")[2] or container["image"].endswith(":latest"):
                yield f"{name}: the image {container['image']} has no tag of a version"
        for volume in template.spec.get("volumes", []):
            if not set(volume) - {"name"} <= _RESTRICTED_VOLUMES:
                yield f"{template.owner}: the volume {volume['name']} is of a kind that the restricted standard refuses"
        if template.spec.get("automountServiceAccountToken") is not False and not template.owner.startswith("Cluster"):
            yield f"{template.owner}: a token of the Kubernetes API is mounted"
