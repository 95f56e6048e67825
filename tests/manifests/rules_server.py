"""Rules between a pod and the server in it: its settings, addresses, files and probes."""

from collections.abc import Iterator
from dataclasses import dataclass

from inferry_server.addresses import Address
from inferry_server.errors import StartError
from inferry_server.settings.settings import ENVIRONMENT_PREFIX, Settings
from manifests.bundle import Bundle, Manifest, Template
from manifests.facts import ServerFacts, container_settings
from manifests.rules_files import file_faults
from manifests.rules_references import keys_of, text_of
from manifests.rules_resources import resource_faults
from manifests.rules_times import time_faults
from manifests.rules_ways_in import way_in_faults

_READINESS, _LIVENESS = ("/readyz", "/v2/health/ready"), ("/livez", "/v2/health/live")


def server_faults(bundle: Bundle, facts: ServerFacts) -> Iterator[str]:
    """What each server's container and pod contradict."""
    for template in bundle.templates():
        for container in template.servers:
            name = f"{template.owner}, container {container['name']}"
            try:
                settings = settings_of(bundle, template, container)
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
                settings = settings_of(bundle, template, container)
            except (StartError, ValueError):
                continue  # `server_faults` tells
            started.append(Served(template, container, settings))
    return started


def settings_of(bundle: Bundle, template: Template, container: Manifest) -> Settings:
    """What the server in a container would read.

    Raises:
        StartError: a variable or value that the server refuses.
        ValueError: arguments that it does not know, or a setting from where nobody here can look.
    """
    return container_settings(container, environment_of(bundle.beside(template.namespace), container))


def environment_of(bundle: Bundle, container: Manifest) -> dict[str, str]:
    """The settings that a container has from ConfigMaps, Secrets and its own variables.

    Raises:
        ValueError: a setting from where nobody here can look.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            name = source.get(field, {}).get("name", "")
            for key in keys_of(bundle, kind, name) or ():
                found[source.get("prefix", "") + key] = text_of(bundle, kind, name, key) or ""
    for variable in container.get("env", []):
        if variable["name"].startswith(ENVIRONMENT_PREFIX):
            found[variable["name"]] = _text(bundle, variable)
    return {name: value for name, value in found.items() if name.startswith(ENVIRONMENT_PREFIX)}


def _text(bundle: Bundle, variable: Manifest) -> str:
    if "valueFrom" not in variable:
        return str(variable.get("value", ""))
    for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if named := variable["valueFrom"].get(field):
            if (text := text_of(bundle, kind, named["name"], named["key"])) is not None:
                return text
            raise ValueError(f"{variable['name']} comes from {kind} {named['name']}, of which nobody here knows")
    raise ValueError(f"{variable['name']} comes from {', '.join(variable['valueFrom'])}; expected a value")


def _container_faults(
    bundle: Bundle, template: Template, container: Manifest, settings: Settings, facts: ServerFacts
) -> Iterator[str]:
    yield from _address_faults(container, settings)
    yield from file_faults(bundle.beside(template.namespace), template, container, settings)
    for kind in ("startup", "readiness", "liveness"):
        probe = container.get(f"{kind}Probe")
        if probe is None:
            yield f"there is no {kind} probe"
        else:
            yield from (f"{kind} probe: {fault}" for fault in probe_faults(kind, probe, container, settings, facts))
    yield from time_faults(bundle, template, container, settings)
    yield from resource_faults(container, settings)
    yield from way_in_faults(bundle, template, settings, facts)


def _address_faults(container: Manifest, settings: Settings) -> Iterator[str]:
    ports = {port["containerPort"] for port in container.get("ports", [])}
    for what, address in (("gRPC", settings.grpc_address), ("HTTP", settings.http_address)):
        if not isinstance(address, Address) or address.is_loopback:
            yield f"{what} listens at {address}, where no other pod reaches it"
        elif address.port not in ports:
            yield f"{what} listens on port {address.port}, and the container has {sorted(ports)}"


def probe_faults(
    kind: str, probe: Manifest, container: Manifest, settings: Settings, facts: ServerFacts
) -> Iterator[str]:
    """What one probe asks that no server answers, or that it must not ask."""
    ports = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}
    if "httpGet" in probe:
        asked = probe["httpGet"]
        if "host" in asked:
            yield f"it asks the host {asked['host']}, and not the pod"
        port = ports.get(asked["port"], asked["port"])
        if port != settings.http_address.port:
            yield f"it asks port {asked['port']}, and HTTP is on {settings.http_address.port}"
        path = asked.get("path", "/")
        if path not in facts.paths:
            yield f"the server does not answer {path}"
        secure = settings.tls_certificate is not None and settings.serves_http_inference
        if asked.get("scheme", "HTTP") != ("HTTPS" if secure else "HTTP"):
            yield f"it asks by {asked.get('scheme', 'HTTP')}, and the port speaks {'HTTPS' if secure else 'HTTP'}"
        if path not in (*_READINESS, *_LIVENESS):
            yield f"{path} tells nothing of health; expected one of {', '.join((*_READINESS, *_LIVENESS))}"
            return
        follows_readiness = path in _READINESS
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
