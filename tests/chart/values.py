"""The chart's values: each with its default, what it may be, what it does, and an example that the tests render."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chart import shapes
from chart.settings_schema import settings_schema


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


def _mapping(path: str, doc: str, example: Any, schema: shapes.Schema, **beside: Any) -> Value:
    return Value(path, doc, schema, {}, example, _dotted(beside))


def _list(path: str, doc: str, example: Any, item: shapes.Schema, **beside: Any) -> Value:
    return Value(path, doc, shapes.listed(item), [], example, _dotted(beside))


def _dotted(beside: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("__", "."): value for name, value in beside.items()}


USUAL_POLICY = "anonymous = []"  # nobody may call
_TOLERATION = {"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}
_SPREAD = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
_NAMED = shapes.having("name", name={"type": "string", "pattern": shapes.DNS_LABEL})
_RULE = {"type": "object"}
_ISSUER = shapes.or_empty(
    shapes.closed("name", name={"type": "string"}, kind={"type": "string"}, group={"type": "string"})
)
_MODELS = "registry.example.com/inferry-models:1"
_BUCKET = "s3://example-models/repository"

VALUES = (
    _text("fullnameOverride", "What the names of all objects begin with; empty: the release's name.", "digits",
          pattern="^([a-z]([-a-z0-9]{0,38}[a-z0-9])?)?$"),
    _text("image.registry", "Before the names of all images.", "registry.example.com:5000/team",
          pattern=shapes.REGISTRY),
    _text("image.repository", "Of the server's image; empty: inferry-server, or inferry-server-gpu.", "vision/server",
          pattern=shapes.IMAGE_PATH),
    _text("image.tag", "Of the server's image; empty: the chart's appVersion.", "0.2.0", pattern=shapes.IMAGE_TAG),
    _text("image.digest", "Of the server's image, instead of the tag.", "sha256:" + "5" * 64,
          pattern="^(sha256:[0-9a-f]{64})?$"),
    _choice("image.pullPolicy", "Of the server's image; empty: as Kubernetes does.", "",
            "IfNotPresent", "Never", "Always"),
    _list("imagePullSecrets", "Secrets for the registry.", [{"name": "registry"}], _NAMED),
    _count("replicas", "Servers, unless something scales them.", 3, default=2, least=0),
    Value("settings", "Settings of the server by the names that `inferry-serve --help` lists: max_batch_size: 64. The\n"
          "grace period and the liveness probe follow drain_delay_s and drain_timeout_s.",
          settings_schema(), {}, {"max_batch_size": 64, "max_queue_bytes": 134217728, "parallel_runs": False,
                                  "latency_objective_ms": 0.5, "drain_timeout_s": 90, "log_level": "debug"}),
    _mapping("resources", "Of a server, requests equal to limits; empty: 2 cores and 2Gi, with gpu 8Gi and one GPU.",
             {kind: {"cpu": "4", "memory": "3Gi"} for kind in ("requests", "limits")}, shapes.RESOURCES),
    _count("startSeconds", "A pod may take this long to load its models; empty: 15 minutes, with gpu half an hour.",
           1800, least=60),
    _mapping("strategy", "Of the Deployment; empty: one more, none less; with gpu one less.", {"type": "Recreate"},
             shapes.STRATEGY),
    _mapping("podAnnotations", "More annotations of pods.", {"example.com/owner": "vision"}, shapes.ANNOTATIONS),
    _mapping("podLabels", "More labels of pods.", {"team": "vision"}, shapes.LABELS),
    _mapping("nodeSelector", "Of pods.", {"kubernetes.io/arch": "amd64"}, shapes.LABELS),
    _list("tolerations", "Of pods, beside the GPU's.", [_TOLERATION], shapes.TOLERATION),
    _mapping("affinity", "Of pods.", {"podAntiAffinity": {}}, {"type": "object"}),
    _list("topologySpreadConstraints", "Of pods, of this release's unless they say others; empty: by node and zone,\n"
          "where possible.", [_SPREAD], shapes.having("maxSkew", "topologyKey", "whenUnsatisfiable")),
    _text("runtimeClassName", "Of pods, as GPU operators of some clusters want it.", "nvidia",
          pattern=f"^$|{shapes.DNS_NAME}"),
    _list("env", "More variables of the server's container; its settings are under settings.",
          [{"name": "TZ", "value": "Etc/UTC"}], shapes.having("name", name={"type": "string", "minLength": 1})),
    _list("volumes", "More volumes of pods.",
          [{"name": "policy", "secret": {"secretName": "policy", "optional": True}}], _NAMED),
    _list("volumeMounts", "Where the server's container has them.",
          [{"name": "policy", "mountPath": "/policy", "readOnly": True}],
          shapes.having("name", "mountPath", mountPath={"type": "string", "pattern": "^/."}),
          volumes=[{"name": "policy", "emptyDir": {}}]),
    _mapping("serviceAccount.annotations", "Of the service account, as workload identities want them.",
             {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/models"}, shapes.ANNOTATIONS),
    Value("disruptionBudget.maxUnavailable", "Servers, or percent of them, that may be put out at a time.",
          {"type": ["integer", "string"], "minimum": 1, "pattern": "^([1-9]|[1-9][0-9]|100)%$"}, 1, "25%"),
    _choice("models.from", "A volume claim (claim), an OCI image (image, Kubernetes 1.35), or a bucket (bucket).",
            "claim", "image", "bucket", models__bucket__url=_BUCKET),
    _text("models.claim.name", "A claim that is there; empty: the chart makes one, and leaves it when uninstalled.",
          "shared", pattern=f"^$|{shapes.DNS_NAME}"),
    _text("models.claim.size", "Of the claim that the chart makes.", "20Gi", pattern=shapes.QUANTITY, default="5Gi"),
    _text("models.claim.storageClassName", "Its class, for shared files; empty: the cluster's default.",
          "shared-files", pattern=f"^$|{shapes.DNS_NAME}"),
    _list("models.claim.accessModes", "Its modes; ReadWriteOnce holds one node's pods alone.", ["ReadOnlyMany"],
          {"enum": ["ReadWriteMany", "ReadOnlyMany", "ReadWriteOnce", "ReadWriteOncePod"]}),
    _text("models.image.reference", "The image with the repository at its root, as registry.example.com/models:1.",
          "registry.example.com/models@sha256:" + "1" * 64, pattern=shapes.IMAGE_REFERENCE,
          models__from="image", models__image__reference=_MODELS),
    _choice("models.image.pullPolicy", "When it is pulled.", "IfNotPresent", "Never", "Always", models__from="image",
            models__image__reference=_MODELS),
    _text("models.bucket.url", "The folder with the repository: s3://, gs://, az://.", "gs://models/production",
          pattern="^$|^(s3a?|gs|az|azure|adl|abfss?|https)://.+$", models__from="bucket",
          models__bucket__url=_BUCKET),
    _text("models.bucket.secretName", "A Secret with variables for the store's client, optional.", "bucket",
          pattern=f"^$|{shapes.DNS_NAME}", models__from="bucket", models__bucket__url=_BUCKET),
    _list("models.bucket.egress", "Whom the copy reaches; empty: names, HTTPS and the clouds' identities.",
          [{"ports": [{"port": 53, "protocol": "UDP"}, {"port": 9000}]}], _RULE, models__from="bucket",
          models__bucket__url=_BUCKET),
    _text("models.bucket.size", "Of the copy.", "20Gi", pattern=shapes.QUANTITY, default="5Gi", models__from="bucket",
          models__bucket__url=_BUCKET),
    _switch("gpu.enabled", "One NVIDIA GPU a pod, the GPU's image, and times that suit it."),
    _switch("priority.enabled", "Priority classes, the cluster's: servers before jobs. For one release alone."),
    _text("priority.className", "A class that is there, for the servers.", "high", pattern=f"^$|{shapes.DNS_NAME}"),
    _switch("tls.enabled", "TLS on the gRPC port; health and metrics stay in the clear. By cert-manager, or a Secret."),
    _text("tls.secretName", "A Secret with tls.crt and tls.key that is there; empty: cert-manager makes one.",
          "own-tls", pattern=f"^$|{shapes.DNS_NAME}", tls__enabled=True),
    _mapping("tls.issuer", "cert-manager's issuer; empty: an authority of the release's own.",
             {"name": "company", "kind": "ClusterIssuer"}, _ISSUER, tls__enabled=True),
    _list("tls.dnsNames", "More names for the certificate.", ["models.example.com"],
          {"type": "string", "pattern": shapes.HOST_PATTERN}, tls__enabled=True),
    _switch("tokens.enabled", "Only callers with a token are answered: the policy says which, and what they may do."),
    _text("tokens.policy", "The policy file, as docs/access.md has it.", 'anonymous = ["infer"]',
          default=USUAL_POLICY, tokens__enabled=True),
    _text("tokens.secretName", "A Secret with policy.toml that is there; empty: the chart makes one.", "own-policy",
          pattern=f"^$|{shapes.DNS_NAME}", tokens__enabled=True),
    _switch("networkPolicy.enabled", "Who reaches the servers, and whom they reach: nobody."),
    _list("networkPolicy.clients", "Who reaches gRPC; empty: this namespace, those labelled inferry-access: grpc.",
          [{"ipBlock": {"cidr": "10.0.0.0/8"}}], _RULE, networkPolicy__enabled=True),
    _text("networkPolicy.monitoringNamespace", "Where Prometheus is.", "observability", default="monitoring",
          pattern=shapes.DNS_LABEL, networkPolicy__enabled=True),
    _list("networkPolicy.egress", "Whom servers reach, as a collector of traces.", [{"ports": [{"port": 4317}]}],
          _RULE, networkPolicy__enabled=True),
    _switch("monitoring.enabled", "PodMonitor and alerts, for the Prometheus operator."),
    _mapping("monitoring.labels", "By which the operator finds them.", {"release": "prometheus"}, shapes.LABELS,
             monitoring__enabled=True),
    _choice("autoscaling.kind", "Nobody (none), by CPU (hpa), or by what Prometheus knows (keda).",
            "none", "hpa", "keda"),
    _count("autoscaling.minReplicas", "At least.", 3, default=2, autoscaling__kind="hpa"),
    _count("autoscaling.maxReplicas", "At most.", 20, default=10, autoscaling__kind="keda"),
    Value("autoscaling.cpuPercent", "With hpa: how busy servers are to be. Above 90 none would ever be added: a tenth\n"
          "more than that is tolerated, and requests are limits.",
          {"type": "integer", "minimum": 1, "maximum": 90}, 70, 50, {"autoscaling.kind": "hpa"}),
    _text("autoscaling.prometheus", "With keda: where Prometheus answers.", "http://prometheus.observability:9090",
          default="http://prometheus-operated.monitoring.svc:9090", pattern="^https?://[^/].*$",
          autoscaling__kind="keda"),
    _switch("gateway.enabled", "Gateway, GRPCRoute and retries, for the Gateway API and Envoy Gateway."),
    _text("gateway.className", "The Gateway's class.", "cilium", default="eg", pattern=shapes.DNS_NAME,
          gateway__enabled=True),
    _list("gateway.hostnames", "Names that the route is for; empty: all.", ["models.example.com"],
          {"type": "string", "pattern": shapes.HOST_PATTERN}, gateway__enabled=True),
    Value("gateway.ofAnotherRelease", "With tls: another release's gateway calls these servers, as those of a canary.",
          {"type": "boolean"}, default=False, example=True, beside={"tls.enabled": True}),
    _text("gateway.canary.service", "The Service of another release, which gets a part of the calls.",
          "next-inferry-server-vip", pattern=f"^$|{shapes.DNS_LABEL}", gateway__enabled=True),
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
