"""Rules of what a cluster makes of objects: the namespace they land in, who scales them, what their pods reach."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from manifests.bundle import Bundle, Manifest, Template, label, takes
from manifests.rules_server import servers

NAMESPACED = {
    "BackendTLSPolicy", "BackendTrafficPolicy",
    "Certificate", "ConfigMap", "CronJob", "DaemonSet", "Deployment", "GRPCRoute", "Gateway",
    "HorizontalPodAutoscaler", "InferenceService", "Issuer", "Job", "NetworkPolicy", "PersistentVolumeClaim", "Pod",
    "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "ScaledObject", "Secret", "Service", "ServiceAccount",
    "ServingRuntime", "StatefulSet",
}  # fmt: skip
_MEASURED = {"cpu", "memory"}  # what metrics-server knows of a container
_QUERIED = re.compile(r'\bnamespace="([^"]*)"')
_OF_A_SERVICE = re.compile(r"[^.]+\.([^.]+)\.svc(\.|$)")
_SERVER = re.compile(r"--(?:server|host)=dns:///(.+)")
_STORE = re.compile(r"(s3a?|gs|gcs|az|azure|adl|abfss?)://")


def cluster_faults(bundle: Bundle) -> Iterator[str]:
    """Namespaces, autoscalers and network policies that do not do what they are there for."""
    yield from namespace_faults(bundle)
    yield from volume_faults(bundle)
    yield from scaling_faults(bundle)
    yield from egress_faults(bundle)


def namespace_faults(bundle: Bundle) -> Iterator[str]:
    """Objects without a namespace beside others with one, and texts that name another namespace than the object's."""
    stated = sorted({namespace for one in bundle.objects if (namespace := one["metadata"].get("namespace"))})
    for one in bundle.every(*NAMESPACED):
        own = one["metadata"].get("namespace")
        if own is None and stated:
            yield (
                f"{label(one)}: it states no namespace, and others are in {', '.join(stated)}: it would land in the "
                "one that kubectl happens to use (the component `namespace` goes last)"
            )
        elif own is not None:
            yield from (f"{label(one)}: {fault}" for fault in _elsewhere(one, own))


def _elsewhere(one: Manifest, namespace: str) -> Iterator[str]:
    if one["kind"] == "ScaledObject":
        for trigger in one["spec"]["triggers"]:
            for queried in set(_QUERIED.findall(trigger["metadata"].get("query", ""))) - {namespace}:
                yield f"trigger {trigger.get('name')} asks for series of the namespace {queried}; it is in {namespace}"
    if one["kind"] == "Certificate":
        for name in one["spec"].get("dnsNames", []):
            if (match := _OF_A_SERVICE.match(name)) and match[1] != namespace:
                yield f"the name {name} is one of the namespace {match[1]}; it is in {namespace}"


def volume_faults(bundle: Bundle) -> Iterator[str]:
    """Claims on a disk of one node that several pods ask for at a time."""
    for owner in bundle.every("Deployment", "Job"):
        if not _several_pods(bundle, owner):
            continue
        for volume in owner["spec"]["template"]["spec"].get("volumes", []):
            claim = bundle.find("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName", ""))
            modes = [] if claim is None else claim["spec"].get("accessModes", [])
            if claim is not None and modes and not {"ReadWriteMany", "ReadOnlyMany"} & set(modes):
                yield (
                    f"{label(owner)}: {label(claim)} is {', '.join(modes)}, and several pods ask for it: on another "
                    "node one would wait for ever; expected ReadWriteMany, or one replica and the strategy Recreate"
                )


def _several_pods(bundle: Bundle, owner: Manifest) -> bool:
    """Whether two pods of a Deployment or Job may be there at once."""
    spec = owner["spec"]
    if owner["kind"] == "Job":
        return int(spec.get("parallelism", 1)) > 1
    scalers = bundle.every("HorizontalPodAutoscaler", "ScaledObject")
    scaled = any(one["spec"]["scaleTargetRef"]["name"] == owner["metadata"]["name"] for one in scalers)
    rolled = spec.get("strategy", {}).get("type", "RollingUpdate") == "RollingUpdate"
    return scaled or rolled or spec.get("replicas", 1) > 1


def scaling_faults(bundle: Bundle) -> Iterator[str]:
    """Metrics of HorizontalPodAutoscalers that nothing measures, or that other containers dilute."""
    for scaler in bundle.every("HorizontalPodAutoscaler"):
        owner = f"{scaler['spec']['scaleTargetRef']['kind']} {scaler['spec']['scaleTargetRef']['name']}"
        for template in [one for one in bundle.templates() if one.owner == owner]:
            for metric in scaler["spec"].get("metrics", []):
                yield from (f"{label(scaler)}: {fault}" for fault in _metric_faults(metric, template))


def _metric_faults(metric: Manifest, template: Template) -> Iterator[str]:
    beside = [one for one in template.spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
    running = {one["name"]: one for one in (*template.spec["containers"], *beside)}
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


def egress_faults(bundle: Bundle) -> Iterator[str]:
    """Policies under which a pod does not reach what its own settings and arguments name."""
    for template in bundle.templates():
        rules = _egress(bundle, template)
        if rules is None:
            continue
        for url in _called(bundle, template):
            address = urlsplit(url)
            if address.port is not None and not _admits(rules, "TCP", address.port):
                yield f"{template.owner}: it calls {url}, and no NetworkPolicy lets it reach port {address.port}"
            if not _is_address(address.hostname or "") and not _admits(rules, "UDP", 53):
                yield f"{template.owner}: it calls {url} by name, and no NetworkPolicy lets it ask DNS (UDP, port 53)"


def _egress(bundle: Bundle, template: Template) -> list[Manifest] | None:
    """The rules for what a pod may reach, of all policies together; None: it may reach everything."""
    policies = [
        one["spec"]
        for one in bundle.every("NetworkPolicy")
        if takes(one["spec"]["podSelector"], template.labels)
        and "Egress" in one["spec"].get("policyTypes", ["Egress"] if "egress" in one["spec"] else [])
    ]
    return [rule for policy in policies for rule in policy.get("egress", [])] if policies else None


def _called(bundle: Bundle, template: Template) -> Iterator[str]:
    """The addresses that a pod's containers connect to. The port of an object store is its Secret's to say."""
    for server in servers(bundle):
        if server.template.owner == template.owner and server.settings.trace_endpoint is not None:
            yield server.settings.trace_endpoint
    for argument in (one for container in template.containers for one in container.get("args", [])):
        if _STORE.match(argument):
            yield argument
        elif (match := _SERVER.match(argument)) is not None:
            yield f"grpc://{match[1]}"


def _admits(rules: list[Manifest], protocol: str, port: int) -> bool:
    return any("ports" not in rule or any(_covers(one, protocol, port) for one in rule["ports"]) for rule in rules)


def _covers(one: Manifest, protocol: str, port: int) -> bool:
    if one.get("protocol", "TCP") != protocol:
        return False
    first: int | str = one.get("port", port)
    last: int = one.get("endPort", first)
    return isinstance(first, str) or first <= port <= last  # the name of a port is known to who is called


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
