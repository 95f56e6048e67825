"""Rules of parts of objects: what one names of another, that has."""

import base64
import re
from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label

_PARTS = ("data", "stringData", "binaryData")
SERVED = re.compile(r"--(?:server|host)=(?:dns:///)?([a-z][a-z0-9-]*)(?:\.([a-z0-9-]+)[a-z0-9.-]*)?:(\d+)")


def reference_faults(bundle: Bundle) -> Iterator[str]:
    """Parts of objects that are not there: volumes, keys, listeners, ports of routes; and two scalers of one object.

    Objects that are not there are told by `needs`: they may be in the cluster already.
    """
    for template in bundle.templates():
        near = bundle.beside(template.namespace)
        for fault in (*_mount_faults(near, template), *_call_faults(near, template)):
            yield f"{template.owner}: {fault}"
    yield from _target_faults(bundle)
    yield from _route_faults(bundle)


def keys_of(bundle: Bundle, kind: str, name: str) -> set[str] | None:
    """The keys of a ConfigMap or Secret; None: it is not here, or whoever makes it adds more."""
    if kind == "Secret" and any(one["spec"]["secretName"] == name for one in bundle.every("Certificate")):
        return {"tls.crt", "tls.key", "ca.crt"}
    one = bundle.find(kind, name)
    return None if one is None else {key for part in _PARTS for key in one.get(part) or ()}


def text_of(bundle: Bundle, kind: str, name: str, key: str) -> str | None:
    """What a ConfigMap or Secret that is here has under a key."""
    one: Manifest = bundle.find(kind, name) or {}
    plain = (one.get("stringData") if kind == "Secret" else one.get("data")) or {}
    if key in plain:
        return str(plain[key])
    encoded = (one.get("data") if kind == "Secret" else one.get("binaryData")) or {}
    return base64.b64decode(encoded[key]).decode(errors="replace") if key in encoded else None


def near(references: list[Manifest], kind: str) -> list[Manifest]:
    """Those to a kind, in the namespace of who refers."""
    return [one for one in references if one.get("kind", kind) == kind and "namespace" not in one]


def backends(one: Manifest) -> list[Manifest]:
    """The Services that a route or an Ingress sends calls to, with their ports."""
    if one["kind"] == "Ingress":
        paths = [path for rule in one["spec"].get("rules", []) for path in rule.get("http", {}).get("paths", [])]
        found = [path["backend"] for path in paths] + [one["spec"].get("defaultBackend", {})]
        services = [backend["service"] for backend in found if "service" in backend]
        return [{"name": service["name"], "port": next(iter(service["port"].values()))} for service in services]
    found = [backend for rule in one["spec"].get("rules", []) for backend in rule.get("backendRefs", [])]
    return near(found, "Service")


def _mount_faults(bundle: Bundle, template: Template) -> Iterator[str]:
    """Volumes that are mounted and are not there, and keys of ConfigMaps and Secrets that have not got them."""
    volumes = {volume["name"] for volume in template.spec.get("volumes", [])}
    owner = bundle.find(template.kind, template.name) if template.kind == "StatefulSet" else None
    claims = [] if owner is None else owner["spec"].get("volumeClaimTemplates", [])
    volumes |= {claim["metadata"]["name"] for claim in claims}
    for container in template.containers:
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"there is no volume {mount['name']}"
    for volume in template.spec.get("volumes", []):
        if len(sources := sorted(set(volume) - {"name"})) > 1:
            yield f"the volume {volume['name']} is {' and '.join(sources)}; expected one of them"
        for kind, field, key in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
            source = volume.get(field, {})
            known = keys_of(bundle, kind, source.get(key, ""))
            for item in source.get("items", []):
                if known is not None and item["key"] not in known:
                    yield f"{kind} {source[key]} has no key {item['key']}; it has {sorted(known)}"
    for container in template.containers:
        for variable in container.get("env", []):
            for kind, field in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                named = variable.get("valueFrom", {}).get(field, {})
                known = keys_of(bundle, kind, named.get("name", ""))
                if known is not None and named["key"] not in known and not named.get("optional"):
                    yield f"{kind} {named['name']} has no key {named['key']}; it has {sorted(known)}"


def _call_faults(bundle: Bundle, template: Template) -> Iterator[str]:
    for argument in (str(one) for container in template.containers for one in container.get("args", [])):
        match = SERVED.fullmatch(argument)
        service = match and bundle.find("Service", match[1])
        if match and service and int(match[3]) not in _ports(service):
            yield f"{argument}: {label(service)} has no port {match[3]}; it has {sorted(_ports(service))}"


def _ports(service: Manifest) -> dict[Any, str]:
    """Numbers and names of a Service's ports."""
    ports = service["spec"].get("ports", [])
    return {port["port"]: port.get("name", "") for port in ports}


def _target_faults(bundle: Bundle) -> Iterator[str]:
    scaled: dict[tuple[str | None, str], str] = {}
    for one in bundle.every("HorizontalPodAutoscaler", "ScaledObject"):
        target, namespace = one["spec"]["scaleTargetRef"], one["metadata"].get("namespace")
        found = bundle.beside(namespace).find(target.get("kind", "Deployment"), target["name"])
        if found is None:
            continue  # `missing` tells
        if "replicas" in found["spec"]:
            yield f"{label(one)}: {label(found)} states replicas, which every apply would set back"
        if (namespace, target["name"]) in scaled:
            yield f"{label(one)}: {scaled[namespace, target['name']]} scales {target['name']} too"
        scaled[namespace, target["name"]] = label(one)


def _route_faults(bundle: Bundle) -> Iterator[str]:
    for route in bundle.every("GRPCRoute", "HTTPRoute", "Ingress"):
        beside = bundle.beside(route["metadata"].get("namespace"))
        for parent in near(route["spec"].get("parentRefs", []), "Gateway"):
            gateway = beside.find("Gateway", parent["name"])
            listeners = [] if gateway is None else [one["name"] for one in gateway["spec"]["listeners"]]
            if gateway is not None and parent.get("sectionName") not in (None, *listeners):
                yield f"{label(route)}: Gateway {parent['name']} has no listener {parent['sectionName']}"
        for backend in backends(route):
            service = beside.find("Service", backend["name"])
            if service is not None and backend["port"] not in (*_ports(service), *_ports(service).values()):
                yield f"{label(route)}: Service {backend['name']} has no port {backend['port']}"
        for rule in route["spec"].get("rules", []):
            named = [
                (one.get("kind", "Service"), one.get("namespace"), one["name"]) for one in rule.get("backendRefs", [])
            ]
            if len(set(named)) < len(named):
                yield f"{label(route)}: one of its rules names a backend twice"
            if named and not any(one.get("weight", 1) for one in rule["backendRefs"]):
                yield f"{label(route)}: all weights of a rule are 0, and so every call of it fails"
