"""Objects that others name: in what is checked, or in the cluster already."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from manifests.bundle import RUNTIMES, Bundle, Manifest, Template, label
from manifests.rules_references import SERVED, backends, near

_HASH = re.compile(r"-[2456789bcdfghkmt]{10}$")  # of what kustomize generates
_SYSTEM_PRIORITIES = {"system-cluster-critical", "system-node-critical"}
_MAKERS = ("Secret", "SealedSecret", "ExternalSecret")  # what leaves a Secret of its own name


@dataclass(frozen=True)
class Need:
    """A name without its object.

    Attributes:
        owner: the object that names it.
        kind: of what is named.
        name: of what is named.
    """

    owner: str
    kind: str
    name: str

    def fault(self) -> str:
        """Where everything should be there."""
        more = ", nor a Certificate that makes it" if self.kind == "Secret" else ""
        return f"{self.owner}: there is no {self.kind} {self.name}{more}"

    def note(self, bundle: Bundle) -> str:
        """Where it may be in the cluster; with the nearest name that is here, which may be the right one."""
        here = {_HASH.sub("", name): name for name in sorted(bundle.names(self.kind))}
        near = get_close_matches(self.name, here, n=1, cutoff=0.8)
        return f"{self.owner} needs the {self.kind} {self.name}, which is not here" + (
            f" (there is {here[near[0]]})" if near else ""
        )

    def is_generated(self, bundle: Bundle) -> bool:
        """Whether it is here under the name that kustomize generated, which whoever names it does not know."""
        return self.kind in ("ConfigMap", "Secret") and any(
            _HASH.sub("", name) == self.name for name in bundle.names(self.kind)
        )


def needs(bundle: Bundle) -> list[Need]:
    """What is named and is not among the objects of the same namespace, nor of the cluster; each once."""
    stated = dict.fromkeys(one["metadata"]["namespace"] for one in bundle.objects if "namespace" in one["metadata"])
    return list(dict.fromkeys(need for one in stated or (None,) for need in _needs(bundle.beside(one))))


def _needs(bundle: Bundle) -> Iterator[Need]:
    secrets = bundle.names(*_MAKERS) | {one["spec"]["secretName"] for one in bundle.every("Certificate")}
    for need in _named(bundle):
        there = (
            secrets if need.kind == "Secret" else bundle.names(*(RUNTIMES if need.kind in RUNTIMES else (need.kind,)))
        )
        if need.name not in there:
            yield need


def _named(bundle: Bundle) -> Iterator[Need]:
    for template in bundle.templates():
        yield from _by_pod(template)
    for one in bundle.objects:
        owner, spec = label(one), one.get("spec") or {}
        match one["kind"]:
            case "ServiceAccount":
                for secret in one.get("imagePullSecrets", []):
                    yield Need(owner, "Secret", secret["name"])
            case "HorizontalPodAutoscaler" | "ScaledObject":
                target = spec["scaleTargetRef"]
                yield Need(owner, target.get("kind", "Deployment"), target["name"])
            case "GRPCRoute" | "HTTPRoute" | "Ingress":
                for parent in near(spec.get("parentRefs", []), "Gateway"):
                    yield Need(owner, "Gateway", parent["name"])
                for backend in backends(one):
                    yield Need(owner, "Service", backend["name"])
            case "BackendTrafficPolicy" | "BackendTLSPolicy":
                for target in spec["targetRefs"]:
                    yield Need(owner, target["kind"], target["name"])
                for authority in spec.get("validation", {}).get("caCertificateRefs", []):
                    yield Need(owner, authority["kind"], authority["name"])
            case "Certificate" if spec["issuerRef"].get("kind", "Issuer") == "Issuer":
                yield Need(owner, "Issuer", spec["issuerRef"]["name"])
            case "Issuer" if "ca" in spec:
                yield Need(owner, "Secret", spec["ca"]["secretName"])
            case "InferenceService" if runtime := spec["predictor"].get("model", {}).get("runtime"):
                yield Need(owner, RUNTIMES[0], runtime)
            case "StatefulSet":
                yield Need(owner, "Service", spec["serviceName"])
            case "PodMonitor":
                for endpoint in spec.get("podMetricsEndpoints", []):
                    if (secret := monitor_token(endpoint)) is not None:
                        yield Need(owner, "Secret", secret["name"])


def monitor_token(endpoint: Manifest) -> Manifest | None:
    """The Secret and its key with the token that a monitor shows, if it shows one."""
    found: Manifest | None = endpoint.get("authorization", {}).get("credentials") or endpoint.get("bearerTokenSecret")
    return found


def _by_pod(template: Template) -> Iterator[Need]:
    spec, owner = template.spec, template.owner
    if spec.get("serviceAccountName", "default") != "default":  # every namespace has that
        yield Need(owner, "ServiceAccount", spec["serviceAccountName"])
    if spec.get("priorityClassName", "system-node-critical") not in _SYSTEM_PRIORITIES:
        yield Need(owner, "PriorityClass", spec["priorityClassName"])
    for secret in spec.get("imagePullSecrets", []):
        yield Need(owner, "Secret", secret["name"])
    for container in template.containers:
        for variable in container.get("env", []):
            yield from _by_source(owner, variable.get("valueFrom", {}), "secretKeyRef", "configMapKeyRef")
        for source in container.get("envFrom", []):
            yield from _by_source(owner, source, "secretRef", "configMapRef")
        for called in filter(None, (SERVED.fullmatch(str(one)) for one in container.get("args", []))):
            if called[2] in (None, template.namespace):
                yield Need(owner, "Service", called[1])
    for volume in spec.get("volumes", []):
        if "persistentVolumeClaim" in volume:
            yield Need(owner, "PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"])
        for source in (volume, *volume.get("projected", {}).get("sources", [])):
            yield from _by_source(owner, source, "secret", "configMap")


def _by_source(owner: str, source: dict[str, Any], secret: str, config: str) -> Iterator[Need]:
    for key, kind in ((secret, "Secret"), (config, "ConfigMap")):
        named = source.get(key)
        if named is not None and not named.get("optional"):
            yield Need(owner, kind, named.get("secretName") or named["name"])
