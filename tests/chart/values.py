"""The chart's values: each with its default, what it may be, what it does, and an example that the tests render."""

import types
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from inferry_server.settings.settings import Settings

PLACED = ("repository", "grpc_address", "http_address")  # settings that the pod's mounts and ports go with


@dataclass(frozen=True)
class Value:
    """One value.

    Attributes:
        path: its keys, with dots.
        doc: a comment for values.yaml.
        schema: of JSON.
        default: what it is unless set; empty: what the manifests have.
        example: another, to be rendered.
        beside: other values that the example needs, by path.
    """

    path: str
    doc: str
    schema: Mapping[str, Any]
    default: Any
    example: Any
    beside: Mapping[str, Any] = field(default_factory=dict)


def _text(path: str, doc: str, example: str, *, pattern: str = "", default: str = "", **beside: Any) -> Value:
    schema = {"type": "string"} | ({"pattern": pattern} if pattern else {})
    return Value(path, doc, schema, default, example, _dotted(beside))


def _choice(path: str, doc: str, *choices: str, **beside: Any) -> Value:
    return Value(path, doc, {"enum": list(choices)}, choices[0], choices[-1], _dotted(beside))


def _switch(path: str, doc: str) -> Value:
    return Value(path, doc, {"type": "boolean"}, default=False, example=True)


def _count(path: str, doc: str, example: int, *, default: int | None = None, least: int = 1, **beside: Any) -> Value:
    kind: Any = "integer" if default is not None else ["integer", "null"]
    return Value(path, doc, {"type": kind, "minimum": least}, default, example, _dotted(beside))


def _mapping(path: str, doc: str, example: Any, *, texts: bool = False, **beside: Any) -> Value:
    schema: dict[str, Any] = {"type": "object"} | ({"additionalProperties": {"type": "string"}} if texts else {})
    return Value(path, doc, schema, {}, example, _dotted(beside))


def _list(path: str, doc: str, example: Any, *, of: str = "object", **beside: Any) -> Value:
    return Value(path, doc, {"type": "array", "items": {"type": of}}, [], example, _dotted(beside))


def _dotted(beside: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in beside.items()}


def _settings_schema() -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", float: "number"}
    properties: dict[str, Any] = {}
    for one in fields(Settings):
        if one.name in PLACED:
            continue
        types_of = get_args(one.type) if isinstance(one.type, types.UnionType) else (one.type,)
        kind = next((kinds[each] for each in types_of if each in kinds), "string")
        choices = one.metadata.get("choices")
        properties[one.name] = {"description": one.metadata["description"]} | (
            {"enum": list(choices)} if choices else {"type": kind}
        )
    return {"type": "object", "properties": properties, "additionalProperties": False}


_QUANTITY = r"^([0-9.]+(Ki|Mi|Gi|Ti|K|M|G|T)?)?$"
_TOLERATION = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
_SPREAD = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}

VALUES = (
    _text("fullnameOverride", "What the names of all objects begin with; empty: the release's name.", "digits",
          pattern="^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$"),
    _text("image.registry", "Before the names of all images.", "registry.example.com:5000/team"),
    _text("image.repository", "Of the server's image; empty: inferry-server, or inferry-server-gpu.", "vision/server"),
    _text("image.tag", "Of the server's image; empty: the chart's appVersion.", "0.2.0"),
    _text("image.digest", "Of the server's image, instead of the tag.", "sha256:" + "5" * 64,
          pattern="^(sha256:[0-9a-f]{64})?$"),
    _choice("image.pullPolicy", "Of the server's image; empty: as Kubernetes does.", "",
            "IfNotPresent", "Never", "Always"),
    _list("imagePullSecrets", "Secrets for the registry.", [{"name": "registry"}]),
    _count("replicas", "Servers, unless something scales them.", 3, default=2, least=0),
    Value("settings", "Settings of the server by the names that `inferry-serve --help` lists: max_batch_size: 64. The\n"
          "grace period and the liveness probe follow drain_delay_s and drain_timeout_s.",
          _settings_schema(), {}, {"max_batch_size": 64, "max_queue_bytes": 134217728, "parallel_runs": False,
                                   "latency_objective_ms": 0.5, "drain_timeout_s": 90, "log_level": "debug"}),
    _mapping("resources", "Of a server, requests equal to limits; empty: 2 cores and 2Gi, with gpu 8Gi and one GPU.",
             {kind: {"cpu": "4", "memory": "3Gi"} for kind in ("requests", "limits")}),
    _count("startSeconds", "A pod may take this long to load its models; empty: 15 minutes, with gpu half an hour.",
           1800, least=60),
    _mapping("strategy", "Of the Deployment; empty: one more, none less; with gpu one less.", {"type": "Recreate"}),
    _mapping("podAnnotations", "More annotations of pods.", {"example.com/owner": "vision"}, texts=True),
    _mapping("podLabels", "More labels of pods.", {"team": "vision"}, texts=True),
    _mapping("nodeSelector", "Of pods.", {"kubernetes.io/arch": "amd64"}, texts=True),
    _list("tolerations", "Of pods, beside the GPU's.", [_TOLERATION]),
    _mapping("affinity", "Of pods.", {"podAntiAffinity": {}}),
    _list("topologySpreadConstraints", "Of pods; empty: by node and zone, where possible.", [_SPREAD]),
    _text("runtimeClassName", "Of pods, as GPU operators of some clusters want it.", "nvidia"),
    _list("env", "More variables of the server's container.", [{"name": "TZ", "value": "Etc/UTC"}]),
    _list("volumes", "More volumes of pods.",
          [{"name": "policy", "secret": {"secretName": "policy", "optional": True}}]),
    _list("volumeMounts", "Where the server's container has them.",
          [{"name": "policy", "mountPath": "/policy", "readOnly": True}],
          volumes=[{"name": "policy", "emptyDir": {}}]),
    _mapping("serviceAccount.annotations", "Of the service account, as workload identities want them.",
             {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/models"}, texts=True),
    Value("disruptionBudget.maxUnavailable", "Servers, or percent of them, that may be put out at a time.",
          {"type": ["integer", "string"]}, 1, "25%"),
    _choice("models.from", "A volume claim (claim), an OCI image (image, Kubernetes 1.35), or a bucket (bucket).",
            "claim", "image", "bucket"),
    _text("models.claim.name", "A claim that is there; empty: the chart makes one, and leaves it when uninstalled.",
          "shared"),
    _text("models.claim.size", "Of the claim that the chart makes.", "20Gi", pattern=_QUANTITY, default="5Gi"),
    _text("models.claim.storageClassName", "Its class, for shared files; empty: the cluster's default.",
          "shared-files"),
    _list("models.claim.accessModes", "Its modes; ReadWriteOnce holds one node's pods alone.", ["ReadOnlyMany"],
          of="string"),
    _text("models.image.reference", "The image with the repository at its root.",
          "registry.example.com/models@sha256:1",
          models__from="image", default="registry.example.com/inferry-models:1"),
    _choice("models.image.pullPolicy", "When it is pulled.", "IfNotPresent", "Never", "Always", models__from="image"),
    _text("models.bucket.url", "The folder with the repository: s3://, gs://, az://.", "gs://models/production",
          pattern=r"^[a-z0-9]+://.+$", models__from="bucket", default="s3://example-models/repository"),
    _text("models.bucket.secretName", "A Secret with variables for the store's client, optional.", "bucket",
          models__from="bucket"),
    _list("models.bucket.egress", "Whom the copy reaches; empty: names, HTTPS and the clouds' identities.",
          [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 9000}]}], models__from="bucket"),
    _text("models.bucket.size", "Of the copy.", "20Gi", pattern=_QUANTITY, models__from="bucket", default="5Gi"),
    _switch("gpu.enabled", "One NVIDIA GPU a pod, the GPU's image, and times that suit it."),
    _switch("priority.enabled", "Priority classes, the cluster's: servers before jobs. For one release alone."),
    _text("priority.className", "A class that is there, for the servers.", "high"),
    _switch("tls.enabled", "TLS on the gRPC port; health and metrics stay in the clear. By cert-manager, or a Secret."),
    _text("tls.secretName", "A Secret with tls.crt and tls.key that is there; empty: cert-manager makes one.",
          "own-tls",
          tls__enabled=True),
    _mapping("tls.issuer", "cert-manager's issuer; empty: an authority of the release's own.",
             {"name": "company", "kind": "ClusterIssuer"}, texts=True, tls__enabled=True),
    _list("tls.dnsNames", "More names for the certificate.", ["models.example.com"], of="string", tls__enabled=True),
    _switch("tokens.enabled", "Only callers with a token are answered: the policy says which, and what they may do."),
    _text("tokens.policy", "The policy file, as docs/access.md has it.", 'anonymous = ["infer"]',
          default="anonymous = []", tokens__enabled=True),
    _text("tokens.secretName", "A Secret with policy.toml that is there; empty: the chart makes one.", "own-policy",
          tokens__enabled=True),
    _switch("networkPolicy.enabled", "Who reaches the servers, and whom they reach: nobody."),
    _list("networkPolicy.clients", "Who reaches gRPC; empty: this namespace, those labelled inferry-access: grpc.",
          [{"ipBlock": {"cidr": "10.0.0.0/8"}}], networkPolicy__enabled=True),
    _text("networkPolicy.monitoringNamespace", "Where Prometheus is.", "observability", default="monitoring",
          networkPolicy__enabled=True),
    _list("networkPolicy.egress", "Whom servers reach, as a collector of traces.", [{"ports": [{"port": 4317}]}],
          networkPolicy__enabled=True),
    _switch("monitoring.enabled", "PodMonitor and alerts, for the Prometheus operator."),
    _mapping("monitoring.labels", "By which the operator finds them.", {"release": "prometheus"}, texts=True,
             monitoring__enabled=True),
    _choice("autoscaling.kind", "Nobody (none), by CPU (hpa), or by what Prometheus knows (keda).",
            "none", "hpa", "keda"),
    _count("autoscaling.minReplicas", "At least.", 3, default=2, autoscaling__kind="hpa"),
    _count("autoscaling.maxReplicas", "At most.", 20, default=10, autoscaling__kind="keda"),
    _count("autoscaling.cpuPercent", "With hpa: how busy servers are to be.", 50, default=70, autoscaling__kind="hpa"),
    _text("autoscaling.prometheus", "With keda: where Prometheus answers.", "http://prometheus.observability:9090",
          default="http://prometheus-operated.monitoring.svc:9090", autoscaling__kind="keda"),
    _switch("gateway.enabled", "Gateway, GRPCRoute and retries, for the Gateway API and Envoy Gateway."),
    _text("gateway.className", "The Gateway's class.", "cilium", default="eg", gateway__enabled=True),
    _list("gateway.hostnames", "Names that the route is for; empty: all.", ["models.example.com"], of="string",
          gateway__enabled=True),
    _text("gateway.canary.service", "The Service of another release, which gets a part of the calls.",
          "next-inferry-server-vip", gateway__enabled=True),
    Value("gateway.canary.weight", "Its part, in percent.", {"type": "integer", "minimum": 0, "maximum": 100}, 0, 10,
          {"gateway.enabled": True, "gateway.canary.service": "next-inferry-server-vip"}),
)  # fmt: skip


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by path as a tree."""
    found: dict[str, Any] = {}
    for path, value in values.items():
        *keys, last = path.split(".")
        at = found
        for key in keys:
            at = at.setdefault(key, {})
        at[last] = value
    return found
