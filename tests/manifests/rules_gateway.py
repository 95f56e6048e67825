"""Rules between a gateway and the servers behind it: it speaks TLS where they do, and believes their certificate."""

from collections.abc import Iterator

from inferry_server.addresses import Address
from manifests.bundle import Bundle, Manifest, Template, label
from manifests.rules_objects import container_ports
from manifests.rules_references import backends
from manifests.rules_server import Served, servers


def gateway_faults(bundle: Bundle) -> Iterator[str]:
    """Routes to servers with TLS that no BackendTLSPolicy tells of, and policies that fail at the handshake."""
    for route in bundle.every("GRPCRoute", "HTTPRoute"):
        for backend in backends(route):
            yield from (f"{label(route)}: {fault}" for fault in _backend_faults(bundle, backend))
            if route["kind"] == "GRPCRoute":
                yield from (f"{label(route)}: {fault}" for fault in _protocol_faults(bundle, backend))
    for policy in bundle.every("BackendTLSPolicy"):
        yield from (f"{label(policy)}: {fault}" for fault in _policy_faults(bundle, policy))


def _backend_faults(bundle: Bundle, backend: Manifest) -> Iterator[str]:
    service = bundle.find("Service", backend["name"])
    for server in servers(bundle, backend["name"]):
        if (
            service is None
            or server.settings.tls_certificate is None
            or not _is_grpc(service, backend.get("port"), server)
        ):
            continue
        ports = service["spec"].get("ports", [])
        name = next((one.get("name") for one in ports if one["port"] == backend.get("port")), None)
        if not any(_targets(policy, backend["name"], name) for policy in bundle.every("BackendTLSPolicy")):
            yield (
                f"the servers behind Service {backend['name']} speak TLS, and no BackendTLSPolicy says so: the gateway "
                "would call them in the clear, and every call would fail (component `gateway-tls`, or of a chart's "
                "canary the value gateway.ofAnotherRelease)"
            )
        if server.settings.tls_client_ca is not None:
            yield (
                f"the servers behind Service {backend['name']} ask for client certificates (tls_client_ca), and a "
                "BackendTLSPolicy shows none: expected tokens, or clients that reach the servers without the gateway"
            )


def _protocol_faults(bundle: Bundle, backend: Manifest) -> Iterator[str]:
    service = bundle.find("Service", backend["name"])
    ports = [] if service is None else [one["port"] for one in service["spec"].get("ports", [])]
    for server in servers(bundle, backend["name"]):
        if service is not None and backend.get("port") in ports and not _is_grpc(service, backend["port"], server):
            yield f"port {backend['port']} of Service {backend['name']} does not lead to gRPC"


def _is_grpc(service: Manifest, port: int | None, server: Served) -> bool:
    known = container_ports(server.template)
    asked = [one.get("targetPort", one["port"]) for one in service["spec"].get("ports", []) if one["port"] == port]
    address = server.settings.grpc_address
    return isinstance(address, Address) and address.port in [known.get(one, one) for one in asked]


def _targets(policy: Manifest, service: str, port: str | None) -> bool:
    return any(
        target["kind"] == "Service" and target["name"] == service and target.get("sectionName") in (None, port)
        for target in policy["spec"]["targetRefs"]
    )


def _policy_faults(bundle: Bundle, policy: Manifest) -> Iterator[str]:
    validation = policy["spec"]["validation"]
    if bool(validation.get("caCertificateRefs")) == bool(validation.get("wellKnownCACertificates")):
        yield "expected either caCertificateRefs or wellKnownCACertificates"
    for target in policy["spec"]["targetRefs"]:
        service = bundle.find("Service", target["name"]) if target["kind"] == "Service" else None
        if service is None:
            continue  # `needs` tells
        names = [port.get("name") for port in service["spec"].get("ports", [])]
        if target.get("sectionName") not in (None, *names):
            yield f"{label(service)} has no port named {target['sectionName']}; it has {names}"
        for server in servers(bundle, target["name"]):
            if server.settings.tls_certificate is None:
                yield f"the servers behind {label(service)} speak no TLS: every call would fail"
                continue
            certificate = certificate_of(bundle, server.template)
            known = [] if certificate is None else certificate["spec"].get("dnsNames", [])
            if certificate is not None and validation["hostname"] not in known:
                yield f"{label(certificate)} is not for {validation['hostname']}; it is for {', '.join(known)}"


def certificate_of(bundle: Bundle, template: Template) -> Manifest | None:
    """The Certificate whose Secret a server's pod mounts."""
    mounted = {volume.get("secret", {}).get("secretName") for volume in template.spec.get("volumes", [])}
    return next((one for one in bundle.every("Certificate") if one["spec"]["secretName"] in mounted), None)
