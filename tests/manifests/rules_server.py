"""Rules between a pod and the server in it: settings, probes, times, memory, TLS."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from inferry_server.addresses import Address
from inferry_server.errors import StartError
from inferry_server.settings.settings import Settings
from manifests.bundle import Bundle, Manifest, Template, label
from manifests.facts import ServerFacts, container_settings

CLOSING_S = 5  # what a process needs to end after its last answer
AT_REST_MIB = 150  # the goal; 101 resident were measured with a small model, 141 with MNIST's network
_DEFAULT_GRACE_S = 30
_KSERVE_MODELS = "/mnt/models"
_UNITS = {"": 1.0, "m": 1e-3} | {
    unit: base**power
    for units, base in ((("k", "M", "G", "T", "P", "E"), 1e3), (("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 2.0**10))
    for power, unit in enumerate(units, 1)
}


def server_faults(bundle: Bundle, facts: ServerFacts) -> Iterator[str]:
    """What each server's container and pod contradict."""
    for template in bundle.templates():
        for container in template.servers:
            name = f"{template.owner}, container {container['name']}"
            try:
                settings = container_settings(container, environment_of(bundle, container))
            except (StartError, ValueError) as error:
                yield f"{name}: the server would not start: {error}"
                continue
            for fault in _container_faults(bundle, template, container, settings, facts):
                yield f"{name}: {fault}"


@dataclass(frozen=True)
class Served:
    """A server as its pod would start it."""

    template: Template
    container: Manifest
    settings: Settings


def servers(bundle: Bundle, service: str | None = None) -> list[Served]:
    """The servers that would start.

    Args:
        bundle: of all objects.
        service: the name of a Service, for those behind it alone.
    """
    found = bundle.find("Service", service) if service is not None else None
    selector = None if found is None else found["spec"].get("selector")
    started = []
    for template in bundle.templates() if service is None else bundle.selected(selector) if selector else ():
        for container in template.servers:
            try:
                settings = container_settings(container, environment_of(bundle, container))
            except (StartError, ValueError):
                continue  # `server_faults` tells
            started.append(Served(template, container, settings))
    return started


def environment_of(bundle: Bundle, container: Manifest) -> dict[str, str]:
    """The settings that a container has from the ConfigMaps that it names."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        config = bundle.find("ConfigMap", source.get("configMapRef", {}).get("name", ""))
        found |= {} if config is None else config["data"]
    return {name: value for name, value in found.items() if name.startswith("INFERRY_")}


def _container_faults(
    bundle: Bundle, template: Template, container: Manifest, settings: Settings, facts: ServerFacts
) -> Iterator[str]:
    yield from _address_faults(container, settings)
    yield from _volume_faults(template, container, settings)
    for kind in ("startup", "readiness", "liveness"):
        probe = container.get(f"{kind}Probe")
        if probe is None:
            yield f"there is no {kind} probe"
        else:
            yield from (f"{kind} probe: {fault}" for fault in probe_faults(kind, probe, container, settings, facts))
    yield from _time_faults(bundle, template, container, settings)
    yield from _resource_faults(container, settings)
    yield from _protocol_faults(bundle, template, settings)


def _address_faults(container: Manifest, settings: Settings) -> Iterator[str]:
    ports = {port["containerPort"] for port in container.get("ports", [])}
    for what, address in (("gRPC", settings.grpc_address), ("HTTP", settings.http_address)):
        if not isinstance(address, Address) or address.is_loopback:
            yield f"{what} listens at {address}, where no other pod reaches it"
        elif address.port not in ports:
            yield f"{what} listens on port {address.port}, and the container has {sorted(ports)}"


def _volume_faults(template: Template, container: Manifest, settings: Settings) -> Iterator[str]:
    mounts = {mount["mountPath"]: mount for mount in container.get("volumeMounts", [])}
    by_kserve = template.owner.startswith(("ClusterServingRuntime", "ServingRuntime"))
    repository = str(settings.repository)
    if by_kserve:
        if repository != _KSERVE_MODELS:
            yield f"the repository is {repository}, and KServe puts models into {_KSERVE_MODELS}"
    elif repository not in mounts:
        yield f"the repository is {repository}, and nothing is mounted there but at {sorted(mounts)}"
    elif not mounts[repository].get("readOnly"):
        yield f"the repository {repository} is mounted writable"
    for name in ("tls_certificate", "tls_private_key", "tls_client_ca", "access_policy", "model_key"):
        path = getattr(settings, name)
        if path is not None and not any(str(path).startswith(f"{mount}/") for mount in mounts):
            yield f"setting {name} is {path}, and nothing is mounted there"


def probe_faults(
    kind: str, probe: Manifest, container: Manifest, settings: Settings, facts: ServerFacts
) -> Iterator[str]:
    """What one probe asks that no server answers, or that it must not ask."""
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}
    if "httpGet" in probe:
        asked = probe["httpGet"]
        port = ports.get(asked["port"], asked["port"])
        if port != settings.http_address.port:
            yield f"it asks port {asked['port']}, and HTTP is on {settings.http_address.port}"
        if asked["path"] not in facts.paths:
            yield f"the server does not answer {asked['path']}"
        secure = settings.tls_certificate is not None and settings.serves_http_inference
        if asked.get("scheme", "HTTP") != ("HTTPS" if secure else "HTTP"):
            yield f"it asks by {asked.get('scheme', 'HTTP')}, and the port speaks {'HTTPS' if secure else 'HTTP'}"
        follows_readiness = asked["path"] in ("/readyz", "/v2/health/ready")
    elif "grpc" in probe:
        asked = probe["grpc"]
        grpc_port = settings.grpc_address.port if isinstance(settings.grpc_address, Address) else None
        if settings.tls_certificate is not None:
            yield "Kubernetes' gRPC probes know no TLS, and the gRPC port has a certificate"
        if asked["port"] != grpc_port:
            yield f"it asks port {asked['port']}, and gRPC is on {grpc_port}"
        if asked.get("service", "") not in facts.health_services:
            yield f"no server knows the health service {asked['service']!r}"
        follows_readiness = asked.get("service", "") == ""
    else:
        yield "it asks neither over HTTP nor over gRPC, so a process that hangs passes it"
        return
    if kind == "liveness" and follows_readiness:
        yield "it follows readiness: a server that drains, or whose models are gone, would be killed"
    if kind != "liveness" and not follows_readiness:
        yield "it does not follow readiness: a server that still loads would be taken for ready"


def _seconds(probe: Manifest | None) -> float:
    """Until a probe that fails from the start is believed."""
    if probe is None:
        return 0.0
    delay = probe.get("initialDelaySeconds", 0)
    found: float = delay + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
    return found


def _time_faults(bundle: Bundle, template: Template, container: Manifest, settings: Settings) -> Iterator[str]:
    drain_s = settings.drain_delay_s + settings.drain_timeout_s
    hook = container.get("lifecycle", {}).get("preStop", {})
    if "sleep" in hook:
        drain_s += hook["sleep"]["seconds"]
    for grace_s in _grace_periods(bundle, template):
        if grace_s < drain_s + CLOSING_S:
            yield f"terminationGracePeriodSeconds is {grace_s}; the drain takes {drain_s:g} s and {CLOSING_S} to close"
    startup_s, readiness_s = _seconds(container.get("startupProbe")), _seconds(container.get("readinessProbe"))
    if startup_s < settings.model_load_timeout_s:
        yield f"the startup probe gives up after {startup_s:g} s; a model may take {settings.model_load_timeout_s:g}"
    if readiness_s >= settings.drain_delay_s:
        yield f"an unready server is believed after {readiness_s:g} s, and drain_delay_s is {settings.drain_delay_s:g}"
    if _seconds(container.get("livenessProbe")) <= settings.drain_timeout_s:
        yield "the liveness probe may kill it while it finishes what it accepted"
    deployment = bundle.find("Deployment", template.owner.partition(" ")[2])
    deadline_s = 600 if deployment is None else deployment["spec"].get("progressDeadlineSeconds", 600)
    if deployment is not None and deadline_s <= startup_s:
        yield f"progressDeadlineSeconds is {deadline_s}; a pod may take {startup_s:g} s to start"
    if deployment is not None and settings.max_connection_age_s is None:
        yield "max_connection_age_s is not set: clients keep to the pods that they have met, and new ones idle"


def _grace_periods(bundle: Bundle, template: Template) -> Iterator[float]:
    if not template.owner.startswith("ClusterServingRuntime"):
        yield template.spec.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)
        return
    for service in bundle.every("InferenceService"):
        if service["spec"]["predictor"].get("model", {}).get("runtime") == template.owner.partition(" ")[2]:
            yield service["spec"]["predictor"].get("terminationGracePeriodSeconds", _DEFAULT_GRACE_S)


def _resource_faults(container: Manifest, settings: Settings) -> Iterator[str]:
    resources: dict[str, Any] = container.get("resources", {})
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    if limits != requests or "memory" not in limits:
        yield f"requests {requests} are not the limits {limits}: it counts on cores that may not be its own"
        return
    if not re.fullmatch(r"[1-9]\d*", str(limits.get("cpu", "1"))):
        yield f"the CPU limit {limits['cpu']} is not a whole number of cores, and threads are"
    least = (AT_REST_MIB << 20) + 3 * settings.max_queue_bytes
    try:
        memory = quantity(str(limits["memory"]))
    except ValueError as error:
        yield f"the memory limit: {error}"
        return
    if memory < least:
        yield (
            f"the memory limit is {limits['memory']}; at rest, two lanes of one model and pictures to decode may take "
            f"{least >> 20} MiB (max_queue_bytes is {settings.max_queue_bytes})"
        )


def quantity(text: str) -> float:
    """Kubernetes' way to write bytes.

    Raises:
        ValueError: another text.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"expected a quantity as 512Mi, not {text!r}")
    return float(match[1]) * _UNITS[match[2]]


def _protocol_faults(bundle: Bundle, template: Template, settings: Settings) -> Iterator[str]:
    for service in bundle.every("Service"):
        selector = service["spec"].get("selector", {})
        if not selector or not selector.items() <= template.labels.items():
            continue
        for port in service["spec"]["ports"]:
            if port.get("name") == "grpc" and (port.get("appProtocol") == "https") != (
                settings.tls_certificate is not None
            ):
                spoken = "TLS" if settings.tls_certificate is not None else "HTTP/2 in the clear"
                yield f"{label(service)} says {port.get('appProtocol')} of the gRPC port, which speaks {spoken}"
