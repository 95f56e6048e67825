"""Rules of what a cluster makes of objects: the namespace they land in, and what their pods reach."""

import re
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from manifests.bundle import Bundle, Manifest, Template, label, takes
from manifests.rules_server import servers

NAMESPACED = {
    "BackendTLSPolicy", "BackendTrafficPolicy",
    "Certificate", "ConfigMap", "CronJob", "DaemonSet", "Deployment", "GRPCRoute", "Gateway",
    "HorizontalPodAutoscaler", "InferenceService", "Issuer", "Job", "LimitRange", "NetworkPolicy",
    "PersistentVolumeClaim", "Pod", "PodDisruptionBudget", "PodMonitor", "PrometheusRule", "ScaledObject", "Secret",
    "Service", "ServiceAccount", "ServingRuntime", "StatefulSet",
}  # fmt: skip
_QUERIED = re.compile(r'\bnamespace="([^"]*)"')
_OF_A_SERVICE = re.compile(r"[^.]+\.([^.]+)\.svc(\.|$)")
_SERVER = re.compile(r"--(?:server|host)=(?:dns:///)?(.+:\d+)")
_STORE = re.compile(r"(s3a?|gs|gcs|az|azure|adl|abfss?)://")


def cluster_faults(bundle: Bundle) -> Iterator[str]:
    """Namespaces and network policies that do not do what they are there for."""
    yield from namespace_faults(bundle)
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
        if one["metadata"].get("namespace") == template.namespace
        and takes(one["spec"]["podSelector"], template.labels)
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
