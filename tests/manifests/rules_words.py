"""Rules of words and amounts: those that the API server takes. The published schemas of Kubernetes take any text."""

import re
from collections.abc import Iterator
from typing import Any

from manifests.bundle import Bundle, Manifest, label

_SCALED = ("Resource", "ContainerResource", "Pods", "Object", "External")
_WORDS: dict[tuple[str, str], tuple[str, ...]] = {  # by the key above and the key; an empty one above: any
    ("", "protocol"): ("TCP", "UDP", "SCTP", "HTTP", "HTTPS", "TLS", "GRPC"),
    ("", "imagePullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("image", "pullPolicy"): ("Always", "IfNotPresent", "Never"),
    ("", "restartPolicy"): ("Always", "OnFailure", "Never"),
    ("", "whenUnsatisfiable"): ("DoNotSchedule", "ScheduleAnyway"),
    ("", "accessModes"): ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"),
    ("", "policyTypes"): ("Ingress", "Egress"),
    ("", "unhealthyPodEvictionPolicy"): ("IfHealthyBudget", "AlwaysAllow"),
    ("", "concurrencyPolicy"): ("Allow", "Forbid", "Replace"),
    ("", "completionMode"): ("NonIndexed", "Indexed"),
    ("", "preemptionPolicy"): ("Never", "PreemptLowerPriority"),
    ("", "fsGroupChangePolicy"): ("OnRootMismatch", "Always"),
    ("", "dnsPolicy"): ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"),
    ("", "pathType"): ("Exact", "Prefix", "ImplementationSpecific"),
    ("emptyDir", "medium"): ("", "Memory", "HugePages"),
    ("", "scheme"): ("HTTP", "HTTPS", "http", "https"),
    ("", "metricType"): ("AverageValue", "Value", "Utilization"),
    ("tolerations", "operator"): ("", "Exists", "Equal"),
    ("tolerations", "effect"): ("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
    ("matchExpressions", "operator"): ("In", "NotIn", "Exists", "DoesNotExist"),
    ("strategy", "type"): ("RollingUpdate", "Recreate"),
    ("metrics", "type"): _SCALED,
    ("target", "type"): ("Utilization", "AverageValue", "Value"),
    ("policies", "type"): ("Pods", "Percent"),
    ("seccompProfile", "type"): ("RuntimeDefault", "Localhost", "Unconfined"),
    ("labels", "pod-security.kubernetes.io/enforce"): ("privileged", "baseline", "restricted"),
    ("labels", "pod-security.kubernetes.io/audit"): ("privileged", "baseline", "restricted"),
    ("labels", "pod-security.kubernetes.io/warn"): ("privileged", "baseline", "restricted"),
}
_TARGETS = {"Utilization": "averageUtilization", "AverageValue": "averageValue", "Value": "value"}
_AMOUNTS = ("requests", "limits")
_QUANTITY = re.compile(r"\d+(\.\d+)?([eE][+-]?\d+|[nu]|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_OF_NODES = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")  # affinity to nodes compares numbers too
_NODES = ("nodeSelectorTerms", "preference")
_GROUPS = {  # whose words these are; other kinds have words of their own
    "v1", "apps", "autoscaling", "batch", "cert-manager.io", "gateway.envoyproxy.io", "gateway.networking.k8s.io",
    "keda.sh", "monitoring.coreos.com", "networking.k8s.io", "policy", "scheduling.k8s.io", "serving.kserve.io",
}  # fmt: skip
_FREE = ("annotations", "data", "stringData", "matchLabels", "nodeSelector")  # keys and values of anybody's
_STANDARDS = "pod-security.kubernetes.io/"


def word_faults(bundle: Bundle) -> Iterator[str]:
    """Words that are none, amounts in no unit, and what an object says nothing without."""
    for one in bundle.objects:
        if one["apiVersion"].partition("/")[0] in _GROUPS:
            yield from (f"{label(one)}: {fault}" for fault in (*_faults(one, ()), *_object_faults(bundle, one)))
    yield from _namespace_faults(bundle)


def _faults(tree: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(tree, list):
        for each in tree:
            yield from _faults(each, path)
    elif isinstance(tree, dict):
        for name, value in tree.items():
            if not _is_free(str(name), path):
                yield from _faults(value, (*path, str(name)))
    else:
        yield from _leaf_faults(tree, ("", "", *path))


def _is_free(name: str, path: tuple[str, ...]) -> bool:
    """Whether a key is somebody's own, or holds what is."""
    return name in _FREE or (path[-1:] == ("labels",) and not name.startswith(_STANDARDS))


def _leaf_faults(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    above, key = path[-2:]
    known = _WORDS.get((above, key)) or _WORDS.get(("", key))
    if known is not None and above == "matchExpressions" and set(_NODES) & set(path):
        known = _OF_NODES
    if known is not None and isinstance(value, str) and value not in known:
        yield f"{key} is {value}; expected {', '.join(filter(None, known))}"
    is_amount = path[-3] == "resources" and above in _AMOUNTS
    if (is_amount or key == "sizeLimit") and not _QUANTITY.fullmatch(str(value)):
        yield f"{key} is {value}; expected a quantity as 512Mi"


def _namespace_faults(bundle: Bundle) -> Iterator[str]:
    """Namespaces that are made for nothing; an object may be in another one, which the cluster has."""
    made = bundle.names("Namespace")
    used = sorted({one["metadata"]["namespace"] for one in bundle.objects if "namespace" in one["metadata"]})
    if made and used and not made & set(used):
        yield f"objects are in {', '.join(used)}, and the namespaces here are {', '.join(sorted(made))}"


def _object_faults(bundle: Bundle, one: Manifest) -> Iterator[str]:
    spec: Any = one.get("spec") or {}
    match one["kind"]:
        case "Service" if spec.get("type", "ClusterIP") not in (
            "ClusterIP",
            "NodePort",
            "LoadBalancer",
            "ExternalName",
        ):
            yield f"type is {spec['type']}; expected ClusterIP, NodePort, LoadBalancer or ExternalName"
        case "PersistentVolumeClaim":
            if not spec.get("accessModes") or "storage" not in spec.get("resources", {}).get("requests", {}):
                yield "expected accessModes, and resources.requests.storage"
        case "PodDisruptionBudget" if ("minAvailable" in spec) == ("maxUnavailable" in spec):
            yield "expected either minAvailable or maxUnavailable"
        case "HorizontalPodAutoscaler":
            for metric in spec.get("metrics", []):
                target: Any = next((part["target"] for part in metric.values() if isinstance(part, dict)), {})
                wanted = _TARGETS.get(target.get("type", ""))
                if wanted is not None and wanted not in target:
                    yield f"a target of type {target['type']} has no {wanted}"
    target = spec.get("scaleTargetRef") or {}
    found = bundle.find(target.get("kind", "Deployment"), target.get("name", ""))
    if found is not None and target.get("apiVersion", found["apiVersion"]) != found["apiVersion"]:
        yield f"scaleTargetRef is of {target['apiVersion']}; {label(found)} is of {found['apiVersion']}"
