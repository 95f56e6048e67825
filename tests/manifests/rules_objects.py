"""Rules of selectors: each finds the pods that it is for, and no others; and of ports: they are those of these pods."""

from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label, takes
from manifests.selectors import Selector, is_empty, told

_CONTROLLERS = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")


def selector_faults(bundle: Bundle) -> Iterator[str]:
    """Selectors that find no pod, or pods that are another's."""
    for one in bundle.objects:
        match one["kind"]:
            case kind if kind in _CONTROLLERS:
                yield from (f"{label(one)}: {fault}" for fault in _controller_faults(bundle, one))
            case "Service" if not one["spec"].get("selector"):
                yield from (f"{label(one)}: {fault}" for fault in _endpoint_faults(bundle, one))
            case "ServiceMonitor":
                if not _monitored_services(bundle, one):
                    yield f"{label(one)}: no Service has the labels {told(one['spec']['selector'])}"
            case "Service" | "PodDisruptionBudget" | "PodMonitor" | "NetworkPolicy":
                selector = selector_of(one)
                if is_empty(selector) and one["kind"] != "NetworkPolicy":
                    yield f"{label(one)}: it selects every pod of the namespace, or none"
                elif not selected(bundle, one):
                    yield f"{label(one)}: no pod has the labels {told(selector)}"
    for template in bundle.templates():
        yield from (f"{template.owner}: {fault}" for fault in _spread_faults(template))


def selector_of(one: Manifest) -> Selector:
    """How an object selects pods."""
    spec = one["spec"]
    match one["kind"]:
        case "Service":
            return {"matchLabels": spec.get("selector") or {}}
        case "NetworkPolicy":
            found: Selector = spec["podSelector"]
        case _:
            found = spec.get("selector") or {}
    return found


def selected(bundle: Bundle, one: Manifest) -> list[Template]:
    """The pods that an object selects: of its namespace, but for monitors that name others."""
    selector = selector_of(one)
    elsewhere: Any = one["spec"].get("namespaceSelector") if one["kind"] == "PodMonitor" else None
    if not elsewhere:
        return bundle.taken_by(one, selector)
    named = None if elsewhere.get("any") else elsewhere.get("matchNames", [])
    return [template for template in bundle.taken(selector) if named is None or template.namespace in named]


def _controller_faults(bundle: Bundle, one: Manifest) -> Iterator[str]:
    selector, own = one["spec"]["selector"], one["spec"]["template"]["metadata"].get("labels", {})
    if is_empty(selector):
        yield "its selector is empty: expected the labels of its pods"
        return
    if not takes(selector, own):
        yield f"its selector {told(selector)} does not take its own pods, which have {own}"
    for other in bundle.taken_by(one, selector):
        if other.owner != label(one):
            yield f"its selector {told(selector)} takes the pods of {other.owner} too"


def _endpoint_faults(bundle: Bundle, service: Manifest) -> Iterator[str]:
    """A Service without a selector has endpoints that somebody else keeps."""
    name = service["metadata"]["name"]
    slices = [
        one["metadata"].get("labels", {}).get("kubernetes.io/service-name") for one in bundle.every("EndpointSlice")
    ]
    if service["spec"].get("type") != "ExternalName" and name not in (*slices, *bundle.names("Endpoints")):
        yield "it has no selector, and nothing here keeps its endpoints; expected the labels of the pods behind it"


def _monitored_services(bundle: Bundle, monitor: Manifest) -> list[Manifest]:
    return [
        one for one in bundle.every("Service") if takes(monitor["spec"]["selector"], one["metadata"].get("labels", {}))
    ]


def _spread_faults(template: Template) -> Iterator[str]:
    for constraint in template.spec.get("topologySpreadConstraints", []):
        selector = constraint.get("labelSelector")
        if not selector:
            yield f"the spread constraint by {constraint['topologyKey']} has no labelSelector, and so counts no pod"
        elif not takes(selector, template.labels):
            yield f"a spread constraint counts pods with {told(selector)}, which its own have not"


def port_faults(bundle: Bundle) -> Iterator[str]:
    """Ports that no container of the pods behind has."""
    for one in bundle.every("Service", "PodMonitor", "NetworkPolicy"):
        if is_empty(selector_of(one)):
            continue
        for template in selected(bundle, one):
            known = container_ports(template)
            for port in _asked_ports(one):
                if port not in known and port not in known.values():
                    yield f"{label(one)}: {template.owner} has no port {port}; it has {known}"
            if one["kind"] == "Service":
                yield from _headless_faults(one, known)
    for monitor in bundle.every("ServiceMonitor"):
        for service in _monitored_services(bundle, monitor):
            names = [port.get("name") for port in service["spec"].get("ports", [])]
            for end in monitor["spec"]["endpoints"]:
                if end.get("port") not in names:
                    yield f"{label(monitor)}: {label(service)} has no port {end.get('port')}; it has {names}"


def _asked_ports(one: Manifest) -> list[Any]:
    spec = one["spec"]
    match one["kind"]:
        case "Service":
            return [port.get("targetPort", port["port"]) for port in spec.get("ports", [])]
        case "PodMonitor":
            return [end["port"] for end in spec["podMetricsEndpoints"] if "port" in end]
        case _:
            ports = [port for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
            return [port["port"] for port in ports if "port" in port and "endPort" not in port]


def container_ports(template: Template) -> dict[str, int]:
    """The ports of a pod that runs, by name."""
    return {
        port.get("name", str(port["containerPort"])): port["containerPort"]
        for container in template.running
        for port in container.get("ports", [])
    }


def _headless_faults(service: Manifest, known: dict[str, int]) -> Iterator[str]:
    if service["spec"].get("clusterIP") != "None":
        return
    for port in service["spec"].get("ports", []):
        target = port.get("targetPort", port["port"])
        if known.get(target, target) != port["port"]:
            yield (
                f"{label(service)}: a headless Service translates no ports, and {port['port']} is not the pod's "
                f"{known.get(target, target)}"
            )
