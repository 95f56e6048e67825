"""Rules of ways to a server: Services, monitors, policies and certificates lead to the port that they speak to."""

from collections.abc import Iterator
from typing import Any

from inferry_server.addresses import Address
from inferry_server.settings.settings import Settings
from manifests.bundle import Bundle, Manifest, Template, label, takes
from manifests.facts import ServerFacts
from manifests.rules_objects import container_ports, selected
from manifests.rules_references import backends

_CLEAR = (None, "kubernetes.io/h2c", "grpc")  # what a Service may say of HTTP/2 without TLS
_SCRAPE, _PORT, _PATH = (f"prometheus.io/{key}" for key in ("scrape", "port", "path"))


def way_in_faults(bundle: Bundle, template: Template, settings: Settings, facts: ServerFacts) -> Iterator[str]:
    """Ways that end at another port than the one that is meant, or before it."""
    if not isinstance(settings.grpc_address, Address):
        return  # `server_faults` tells
    yield from _service_faults(bundle, template, settings)
    yield from _balance_faults(bundle, template, settings.grpc_address.port)
    yield from _monitor_faults(bundle, template, settings, facts)
    yield from _policy_faults(bundle, template, settings)
    yield from _certificate_faults(bundle, template, settings)


def _services(bundle: Bundle, template: Template) -> list[Manifest]:
    """Those that select the pod."""
    return [
        one
        for one in bundle.every("Service")
        if one["spec"].get("selector")
        and one["metadata"].get("namespace") == template.namespace
        and one["spec"]["selector"].items() <= template.labels.items()
    ]


def _service_faults(bundle: Bundle, template: Template, settings: Settings) -> Iterator[str]:
    known = container_ports(template)
    assert isinstance(settings.grpc_address, Address)
    for service in _services(bundle, template):
        if service["spec"].get("publishNotReadyAddresses"):
            yield f"{label(service)} publishes pods that are not ready: calls would go to those that load or drain"
        for port in service["spec"].get("ports", []):
            target = port.get("targetPort", port["port"])
            number, name, spoken = known.get(target, target), port.get("name"), port.get("appProtocol")
            meant = {"grpc": settings.grpc_address.port, "http": settings.http_address.port}.get(name)
            if meant is not None and number != meant:
                yield f"{label(service)}: the port {name} leads to {number}, and {name} is on {meant}"
            if number == settings.grpc_address.port:
                yield from _spoken_faults(service, spoken, settings)


def _spoken_faults(service: Manifest, spoken: str | None, settings: Settings) -> Iterator[str]:
    has_tls = settings.tls_certificate is not None
    if (spoken == "https") != has_tls or (not has_tls and spoken not in _CLEAR):
        own = "TLS" if has_tls else "HTTP/2 in the clear"
        yield f"{label(service)} says {spoken} of the gRPC port, which speaks {own}"


def _balance_faults(bundle: Bundle, template: Template, grpc_port: int) -> Iterator[str]:
    """Services by which a client gets one address, where none names every pod, and no gateway calls them all."""
    known = container_ports(template)
    leading = {
        service["metadata"]["name"]: service["spec"].get("clusterIP")
        for service in _services(bundle, template)
        if grpc_port in [known.get(target, target) for target in _targets(service)] or not service["spec"].get("ports")
    }
    if "None" in leading.values():
        return
    routes = bundle.beside(template.namespace).every("GRPCRoute", "HTTPRoute", "Ingress")
    called = {backend["name"] for route in routes for backend in backends(route)}
    for name in sorted(leading.keys() - called):
        yield (
            f"Service {name} has one address, and no Service of these pods is headless: a client keeps to the "
            "pod that it met, and others idle; expected clusterIP None of one of them"
        )


def _targets(service: Manifest) -> list[Any]:
    """Numbers or names of the pods' ports that a Service leads to."""
    return [port.get("targetPort", port["port"]) for port in service["spec"].get("ports", [])]


def _monitor_faults(bundle: Bundle, template: Template, settings: Settings, facts: ServerFacts) -> Iterator[str]:
    known, http = container_ports(template), settings.http_address.port
    for monitor in bundle.every("PodMonitor"):
        if template not in selected(bundle, monitor):
            continue
        for end in monitor["spec"]["podMetricsEndpoints"]:
            port = end.get("port", end.get("portNumber"))
            yield from (
                f"{label(monitor)}: {fault}"
                for fault in (
                    *_scrape_faults(known.get(port, port), end.get("path", "/metrics"), http, facts),
                    *_refusal_faults(end, settings),
                )
            )
    notes = template.metadata.get("annotations") or {}
    if notes.get(_SCRAPE) == "true":
        port, path = notes.get(_PORT, ""), notes.get(_PATH, "/metrics")
        yield from (f"annotations: {fault}" for fault in _scrape_faults(port, path, http, facts))


def _scrape_faults(port: Any, path: str, http: int, facts: ServerFacts) -> Iterator[str]:
    if str(port) != str(http):
        yield f"metrics are asked of port {port}, and HTTP is on {http}"
    if path not in facts.paths:
        yield f"metrics are asked at {path}, which the server does not answer"


def _refusal_faults(end: Manifest, settings: Settings) -> Iterator[str]:
    """What the HTTP port refuses of a monitor: a handshake, or who shows no certificate."""
    secure = settings.tls_certificate is not None and settings.serves_http_inference
    scheme = end.get("scheme", "http").lower()
    if scheme != ("https" if secure else "http"):
        yield f"metrics are asked by {scheme}, and the port speaks {'HTTPS' if secure else 'HTTP'}"
    if not settings.tells_metrics and "cert" not in end.get("tlsConfig", {}):
        yield (
            "metrics are asked without a certificate, and tls_client_ca asks for one; expected setting "
            "metrics_without_certificate"
        )


def _policy_faults(bundle: Bundle, template: Template, settings: Settings) -> Iterator[str]:
    """Policies for what comes in that let nobody reach what the Services and monitors offer."""
    policies = [
        one
        for one in bundle.every("NetworkPolicy")
        if one["metadata"].get("namespace") == template.namespace
        and takes(one["spec"]["podSelector"], template.labels)
        and "Ingress" in one["spec"].get("policyTypes", ["Ingress"])
    ]
    if not policies:
        return
    rules = [rule for one in policies for rule in one["spec"].get("ingress") or []]
    assert isinstance(settings.grpc_address, Address)
    known, names = container_ports(template), ", ".join(label(one) for one in policies)
    wanted = [("gRPC", settings.grpc_address.port)]
    if any(template in selected(bundle, one) for one in bundle.every("PodMonitor")):
        wanted.append(("metrics", settings.http_address.port))
    for what, number in wanted:
        if not any(_admits(rule, number, known) for rule in rules):
            yield f"{names}: nobody is let in to {what} on port {number}"


def _admits(rule: Manifest, number: int, known: dict[str, int]) -> bool:
    if not rule.get("ports"):
        return True
    for port in rule["ports"]:
        first = known.get(port.get("port", number), port.get("port", number))
        if (
            port.get("protocol", "TCP") == "TCP"
            and isinstance(first, int)
            and first <= number <= port.get("endPort", first)
        ):
            return True
    return False


def _certificate_faults(bundle: Bundle, template: Template, settings: Settings) -> Iterator[str]:
    """Certificates made here that lack the name of a Service by which clients call."""
    if settings.tls_certificate is None:
        return
    mounted = {volume.get("secret", {}).get("secretName") for volume in template.spec.get("volumes", [])}
    for certificate in bundle.beside(template.namespace).every("Certificate"):
        if certificate["spec"]["secretName"] not in mounted:
            continue
        for service in _services(bundle, template):
            if service["metadata"]["name"] not in certificate["spec"].get("dnsNames", []):
                yield f"{label(certificate)}: it lacks the name {service['metadata']['name']}, by which clients call"
