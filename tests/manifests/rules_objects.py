"""Rules between objects: what one names, another has."""

from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, Template, label

_SYSTEM_PRIORITIES = {"system-cluster-critical", "system-node-critical"}
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
            case "PodDisruptionBudget" | "PodMonitor" if "matchExpressions" not in spec.get("selector", {}):
                selector = spec.get("selector", {}).get("matchLabels")
            case "NetworkPolicy" if "matchExpressions" not in spec["podSelector"]:
                selector = spec["podSelector"].get("matchLabels", {})
            case "Deployment" | "StatefulSet" | "DaemonSet":
                selector = spec["selector"]["matchLabels"]
                own = spec["template"]["metadata"].get("labels", {})
                if not selector.items() <= own.items():
                    yield f"{label(one)}: its selector {selector} does not take its own pods, which have {own}"
                continue
            case _:
                continue
        if not selector and one["kind"] != "NetworkPolicy":
            yield f"{label(one)}: it selects every pod of the namespace, or none"
        elif selector and not bundle.selected(selector):
            yield f"{label(one)}: no pod has the labels {selector}"
    for template in bundle.templates():
        for constraint in template.spec.get("topologySpreadConstraints", []):
            selector = constraint.get("labelSelector", {}).get("matchLabels", {})
            if not selector.items() <= template.labels.items():
                yield f"{template.owner}: a spread constraint counts pods with {selector}, which its own have not"


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
                templates = bundle.selected(spec["selector"].get("matchLabels", {}))
                asked = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"] if "port" in endpoint]
            case "NetworkPolicy" if spec["podSelector"].get("matchLabels"):
                templates = bundle.selected(spec["podSelector"]["matchLabels"])
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
    """Names of objects that are not there. Secrets may come from outside if they are optional."""
    secrets = bundle.names("Secret") | {one["spec"]["secretName"] for one in bundle.every("Certificate")}
    for template in bundle.templates():
        spec = template.spec
        wanted: list[tuple[str, str | None]] = [("ServiceAccount", spec.get("serviceAccountName"))]
        if spec.get("priorityClassName") not in _SYSTEM_PRIORITIES:
            wanted.append(("PriorityClass", spec.get("priorityClassName")))
        sources = [source for container in template.containers for source in container.get("envFrom", [])]
        wanted += [("ConfigMap", source["configMapRef"]["name"]) for source in sources if "configMapRef" in source]
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        for volume in volumes.values():
            wanted.append(("PersistentVolumeClaim", volume.get("persistentVolumeClaim", {}).get("claimName")))
            wanted.append(("ConfigMap", volume.get("configMap", {}).get("name")))
            secret = volume.get("secret", {})
            if secret and not secret.get("optional") and secret["secretName"] not in secrets:
                yield f"{template.owner}: there is no Secret {secret['secretName']}, nor a Certificate that makes it"
        for kind, name in wanted:
            if name is not None and name not in bundle.names(kind):
                yield f"{template.owner}: there is no {kind} {name}"
        for container in template.containers:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{template.owner}: there is no volume {mount['name']}"
    yield from _target_faults(bundle)
    yield from _route_faults(bundle)
    for certificate in bundle.every("Certificate"):
        issuer = certificate["spec"]["issuerRef"]
        if issuer.get("kind", "Issuer") == "Issuer" and issuer["name"] not in bundle.names("Issuer"):
            yield f"{label(certificate)}: there is no Issuer {issuer['name']}"
    for issuer in bundle.every("Issuer"):
        if "ca" in issuer["spec"] and issuer["spec"]["ca"]["secretName"] not in secrets:
            yield f"{label(issuer)}: no Certificate makes the Secret {issuer['spec']['ca']['secretName']}"


def _target_faults(bundle: Bundle) -> Iterator[str]:
    scaled: dict[str, str] = {}
    for one in bundle.every("HorizontalPodAutoscaler", "ScaledObject"):
        target = one["spec"]["scaleTargetRef"]
        found = bundle.find(target.get("kind", "Deployment"), target["name"])
        if found is None:
            yield f"{label(one)}: there is no {target.get('kind', 'Deployment')} {target['name']}"
            continue
        if "replicas" in found["spec"]:
            yield f"{label(one)}: {label(found)} states replicas, which every apply would set back"
        if target["name"] in scaled:
            yield f"{label(one)}: {scaled[target['name']]} scales {target['name']} too"
        scaled[target["name"]] = label(one)


def _route_faults(bundle: Bundle) -> Iterator[str]:
    for route in bundle.every("GRPCRoute"):
        for parent in _near(route["spec"].get("parentRefs", []), "Gateway"):
            gateway = bundle.find("Gateway", parent["name"])
            if gateway is None:
                yield f"{label(route)}: there is no Gateway {parent['name']}"
            elif parent.get("sectionName") not in (None, *(one["name"] for one in gateway["spec"]["listeners"])):
                yield f"{label(route)}: Gateway {parent['name']} has no listener {parent['sectionName']}"
        backends = [one for rule in route["spec"].get("rules", []) for one in rule.get("backendRefs", [])]
        for backend in _near(backends, "Service"):
            service = bundle.find("Service", backend["name"])
            if service is None:
                yield f"{label(route)}: there is no Service {backend['name']}"
            elif backend["port"] not in [port["port"] for port in service["spec"]["ports"]]:
                yield f"{label(route)}: Service {backend['name']} has no port {backend['port']}"
    for policy in bundle.every("BackendTrafficPolicy"):
        for target in policy["spec"]["targetRefs"]:
            if bundle.find(target["kind"], target["name"]) is None:
                yield f"{label(policy)}: there is no {target['kind']} {target['name']}"


def _near(references: list[Manifest], kind: str) -> list[Manifest]:
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
