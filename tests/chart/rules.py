"""Values that cannot be together: one table, from which the template is made that refuses them.

A rule is a template expression that holds where something is wrong. The expressions may use

    $v   the values
    $d   every setting of the server that has a default: that
    $s   the same, over it what the manifests set, over that the values
    $f   what follows from the values: `inferry.facts` in templates/_facts.tpl
    .    the element, of a rule that is asked of each element of a list

What one value alone may be is in `values.schema.json`, by `values.py`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chart.settings_schema import path_settings
from inferry_server.settings.settings import AT_LEAST


@dataclass(frozen=True)
class Rule:
    """What is refused.

    Attributes:
        wrong: an expression that holds then.
        message: what came and what was expected, with %v for each of `came`.
        came: expressions.
        planted: values by path that are refused.
        right: values next to them that are not.
        each: the list whose elements are asked in turn; empty: the rule is asked once.
    """

    wrong: str
    message: str
    came: Sequence[str]
    planted: Mapping[str, Any]
    right: Mapping[str, Any]
    each: str = ""


def _gib(memory: str, **more: str) -> dict[str, Any]:
    amounts = {"cpu": "2", "memory": memory} | more
    return {"limits": amounts, "requests": amounts}


_GPU = {"nvidia.com/gpu": "1"}
_MODELS = {"models.from": "image", "models.image.reference": "registry.example.com/models:1"}
_CANARY = {"gateway.canary.service": "next-inferry-server-vip", "gateway.canary.weight": 10}
_POLICY = {"settings.access_policy": "/policy/policy.toml"}
_MOUNTED: dict[str, list[Any]] = {
    "volumes": [{"name": "policy", "secret": {"secretName": "policy"}}],
    "volumeMounts": [{"name": "policy", "mountPath": "/policy", "readOnly": True}],
}
_ONE = {"replicas": 1, "strategy": {"type": "Recreate"}}
_COLLECTOR = "http://collector.monitoring:4317"
_OUT = [{"ports": [{"port": 4317}, {"port": 53, "protocol": "UDP"}]}]

_PODS = (
    Rule(
        "and $f.scaled (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas))",
        "autoscaling.minReplicas is %v and autoscaling.maxReplicas is %v: expected at least as many at most",
        ("$v.autoscaling.minReplicas", "$v.autoscaling.maxReplicas"),
        {"autoscaling.kind": "hpa", "autoscaling.minReplicas": 5, "autoscaling.maxReplicas": 4},
        {"autoscaling.kind": "hpa", "autoscaling.minReplicas": 4, "autoscaling.maxReplicas": 4},
    ),
    Rule(
        "and $f.diskOfOneNode (gt (int $f.together) 1)",
        "models.claim.accessModes is %v, which one node's pods can mount, and %v pods may be there at a time (%v): "
        "expected ReadWriteMany among the modes, or replicas 1, autoscaling.kind none and strategy.type Recreate",
        ('join ", " $v.models.claim.accessModes', "$f.together", "$f.togetherBecause"),
        {"models.claim.accessModes": ["ReadWriteOnce"], "replicas": 2},
        {"models.claim.accessModes": ["ReadWriteOnce"], **_ONE},
    ),
    Rule(
        "and $f.diskOfOneNode (gt (int $f.most) 1) $f.scaled",
        "models.claim.accessModes is %v, and autoscaling.maxReplicas is %v: expected ReadWriteMany among the modes",
        ('join ", " $v.models.claim.accessModes', "$f.most"),
        {"models.claim.accessModes": ["ReadWriteOncePod"], "autoscaling.kind": "keda", "autoscaling.minReplicas": 1},
        {"models.claim.accessModes": ["ReadWriteMany"], "autoscaling.kind": "keda", "autoscaling.minReplicas": 1},
    ),
    Rule(
        "and (gt (int $f.least) 1) (ge (int $f.budget) (int $f.least))",
        "disruptionBudget.maxUnavailable is %v, and there may be %v servers: all of them could be put out at once; "
        "expected fewer",
        ("$v.disruptionBudget.maxUnavailable", "$f.least"),
        {"disruptionBudget.maxUnavailable": "100%"},
        {"disruptionBudget.maxUnavailable": "50%"},
    ),
    Rule(
        "and (not $f.recreated) $f.noSurge $f.noneLess",
        "strategy.rollingUpdate has maxSurge %v and maxUnavailable %v: no pod could ever be exchanged; expected one "
        "of them above 0",
        ("$f.surge", "$f.unavailable"),
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
        {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
    ),
    Rule(
        "and (not $f.recreated) (gt (int $f.least) 1) "
        '(ge (include "inferry.podsOf" (list $f.unavailable $f.least) | float64) (float64 $f.least))',
        "strategy.rollingUpdate.maxUnavailable is %v, and there may be %v servers: all of them could be exchanged at "
        "once; expected fewer",
        ("$f.unavailable", "$f.least"),
        {"strategy": {"rollingUpdate": {"maxUnavailable": "100%"}}},
        {"strategy": {"rollingUpdate": {"maxUnavailable": "50%"}}},
    ),
    Rule(
        'and $f.recreated (hasKey $v.strategy "rollingUpdate")',
        "strategy.type is Recreate and strategy.rollingUpdate is %v: leave one of them out",
        ("toJson $v.strategy.rollingUpdate",),
        {"strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
        {"strategy": {"type": "Recreate"}},
    ),
    Rule(
        "and $v.priority.enabled $v.priority.className",
        "priority.className is %v, a class that is there, and priority.enabled makes one: leave one of them out",
        ("$v.priority.className",),
        {"priority.enabled": True, "priority.className": "high"},
        {"priority.enabled": True},
    ),
)

_IMAGES = (
    Rule(
        'and (eq $v.models.from "image") (not $v.models.image.reference)',
        "models.from is %v and models.image.reference is empty: expected the image that has the models",
        ("$v.models.from",),
        {"models.from": "image"},
        _MODELS,
    ),
    Rule(
        'and (eq $v.models.from "bucket") (not $v.models.bucket.url)',
        "models.from is %v and models.bucket.url is empty: expected the folder with the repository, as s3://...",
        ("$v.models.from",),
        {"models.from": "bucket"},
        {"models.from": "bucket", "models.bucket.url": "s3://models/production"},
    ),
    Rule(
        'and (ne $v.models.from "bucket") '
        "(or $v.models.bucket.url $v.models.bucket.secretName $v.models.bucket.egress)",
        "models.from is %v, and models.bucket has url %q, secretName %q and egress %v: nothing would be copied; "
        "expected models.from bucket, or none of them",
        ("$v.models.from", "$v.models.bucket.url", "$v.models.bucket.secretName", "toJson $v.models.bucket.egress"),
        {"models.bucket.url": "s3://models/production"},
        {"models.from": "bucket", "models.bucket.url": "s3://models/production"},
    ),
    Rule(
        'and (ne $v.models.from "image") $v.models.image.reference',
        "models.from is %v, and models.image.reference is %v: no image would be mounted; expected models.from image, "
        "or no reference",
        ("$v.models.from", "$v.models.image.reference"),
        {"models.image.reference": "registry.example.com/models:1"},
        _MODELS,
    ),
    Rule(
        'and (ne $v.models.from "claim") '
        "(or $v.models.claim.name $v.models.claim.storageClassName $v.models.claim.accessModes)",
        "models.from is %v, and models.claim has name %q, storageClassName %q and accessModes %v: there would be no "
        "claim; expected models.from claim, or none of them",
        (
            "$v.models.from",
            "$v.models.claim.name",
            "$v.models.claim.storageClassName",
            "toJson $v.models.claim.accessModes",
        ),
        {**_MODELS, "models.claim.name": "shared"},
        {"models.claim.name": "shared"},
    ),
    Rule(
        'or (and (eq $v.image.tag "latest") (not $v.image.digest)) '
        '(and (eq $v.models.from "image") (hasSuffix ":latest" $v.models.image.reference))',
        "image.tag is %q and models.image.reference %q: what the tag latest means changes, and no roll-back brings it "
        "back; expected the tag of a version, or a digest",
        ("$v.image.tag", "$v.models.image.reference"),
        {"image.tag": "latest"},
        {"image.tag": "0.2.0"},
    ),
)

_RESOURCES = (
    Rule(
        "and $v.gpu.enabled $v.resources (not $f.gpus)",
        "gpu.enabled is true and resources.limits is %v: expected a whole number of nvidia.com/gpu, or of a part such "
        "as nvidia.com/mig-1g.10gb, among them",
        ("toJson $v.resources.limits",),
        {"gpu.enabled": True, "resources": _gib("8Gi")},
        {"gpu.enabled": True, "resources": _gib("8Gi", **_GPU)},
    ),
    Rule(
        "and $f.gpus (not $v.gpu.enabled)",
        "resources.limits is %v and gpu.enabled is false: a GPU for the image without CUDA; expected gpu.enabled true",
        ("toJson $v.resources.limits",),
        {"resources": _gib("8Gi", **_GPU)},
        {"resources": _gib("8Gi")},
    ),
    Rule(
        'and (not $v.gpu.enabled) (has (toString $s.provider) (list "cuda" "tensorrt"))',
        "settings.provider is %v and gpu.enabled is false: the server would end, as there is no GPU; expected "
        "gpu.enabled true, or another provider",
        ("$s.provider",),
        {"settings.provider": "cuda"},
        {"settings.provider": "cuda", "gpu.enabled": True},
    ),
    Rule(
        'and $v.gpu.enabled (eq (toString $s.provider) "cpu")',
        "settings.provider is %v and gpu.enabled is true: the GPU would idle; expected gpu.enabled false, or another "
        "provider",
        ("$s.provider",),
        {"settings.provider": "cpu", "gpu.enabled": True},
        {"settings.provider": "cpu"},
    ),
    Rule(
        "and $v.resources.requests (ne (toJson $v.resources.requests) (toJson $v.resources.limits))",
        "resources.requests is %v and resources.limits is %v: a server counts on the cores of its limit; expected "
        "the same, or limits alone",
        ("toJson $v.resources.requests", "toJson $v.resources.limits"),
        {"resources": {**_gib("2Gi"), "requests": {"cpu": "1", "memory": "2Gi"}}},
        {"resources": {"limits": {"cpu": "2", "memory": "2Gi"}}},
    ),
    Rule(
        'and $v.resources (not (regexMatch "^[1-9][0-9]*(000m)?$" (toString $f.cores)))',
        "resources.limits.cpu is %v: a server computes on whole cores; expected a whole number",
        ("$f.cores",),
        {"resources": {"limits": {"cpu": "1500m", "memory": "2Gi"}}},
        {"resources": {"limits": {"cpu": "2000m", "memory": "2Gi"}}},
    ),
    Rule(
        "lt (float64 $f.memoryBytes) (float64 $f.leastBytes)",
        "resources.limits.memory is %v and settings.max_queue_bytes is %v: at rest, two lanes of a model and pictures "
        "to decode may take %v MiB; expected more memory, or less that waits",
        ("$f.memory", 'include "inferry.text" $s.max_queue_bytes', "divf $f.leastBytes 1048576 | floor | int64"),
        {"settings.max_queue_bytes": 1 << 30},
        {"settings.max_queue_bytes": 1 << 30, "resources": _gib("4Gi")},
    ),
)

_TLS = (
    Rule(
        'and $v.tls.enabled (eq (toString $s.http_inference) "on")',
        "settings.http_inference is %v and tls.enabled is true: the HTTP port would speak TLS, and probes and "
        "Prometheus ask it in the clear; expected auto or off",
        ("$s.http_inference",),
        {"tls.enabled": True, "settings.http_inference": "on"},
        {"tls.enabled": True, "settings.http_inference": "auto"},
    ),
    Rule(
        "or $v.settings.tls_certificate $v.settings.tls_private_key",
        "settings.tls_certificate is %q and settings.tls_private_key is %q: tls.enabled sets them, and the Services "
        "follow it; expected tls.enabled and tls.secretName instead",
        ('$v.settings.tls_certificate | default ""', '$v.settings.tls_private_key | default ""'),
        {"settings.tls_certificate": "/models/tls.crt", "settings.tls_private_key": "/models/tls.key"},
        {"tls.enabled": True, "tls.secretName": "own-tls"},
    ),
    Rule(
        "and $v.settings.tls_client_ca (not $v.tls.enabled)",
        "settings.tls_client_ca is %v and tls.enabled is false: nobody would be asked for a certificate; expected "
        "tls.enabled true",
        ("$v.settings.tls_client_ca",),
        {"settings.tls_client_ca": "/models/ca.crt"},
        {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True},
    ),
    Rule(
        "and $v.settings.metrics_without_certificate (not $v.settings.tls_client_ca)",
        "settings.metrics_without_certificate is %v without settings.tls_client_ca: nobody is asked for a certificate; "
        "leave it out",
        ("$v.settings.metrics_without_certificate",),
        {"settings.metrics_without_certificate": True, "tls.enabled": True},
        {
            "settings.metrics_without_certificate": True,
            "tls.enabled": True,
            "settings.tls_client_ca": "/tls/ca.crt",
        },
    ),
    Rule(
        "and (not $v.tls.enabled) (or $v.tls.secretName $v.tls.issuer $v.tls.dnsNames)",
        "tls.enabled is false, and tls has secretName %q, issuer %v and dnsNames %v: calls would be in the clear; "
        "expected tls.enabled true, or none of them",
        ("$v.tls.secretName", "toJson $v.tls.issuer", "toJson $v.tls.dnsNames"),
        {"tls.secretName": "own-tls"},
        {"tls.secretName": "own-tls", "tls.enabled": True},
    ),
    Rule(
        "and $v.tls.secretName (or $v.tls.issuer $v.tls.dnsNames)",
        "tls.secretName is %v, a Secret that is there, and tls has issuer %v and dnsNames %v for one that is to be "
        "made: leave one of them out",
        ("$v.tls.secretName", "toJson $v.tls.issuer", "toJson $v.tls.dnsNames"),
        {"tls.enabled": True, "tls.secretName": "own-tls", "tls.issuer": {"name": "company"}},
        {"tls.enabled": True, "tls.issuer": {"name": "company"}},
    ),
)

_TOKENS = (
    Rule(
        "and $v.tokens.enabled $v.settings.access_policy",
        "settings.access_policy is %v and tokens.enabled sets it: leave one of them out",
        ("$v.settings.access_policy",),
        {"tokens.enabled": True, **_POLICY, **_MOUNTED},
        {**_POLICY, **_MOUNTED},
    ),
    Rule(
        "and (not $v.tokens.enabled) (or $v.tokens.secretName (ne $v.tokens.policy $f.usualPolicy))",
        "tokens.enabled is false, and tokens has secretName %q and a policy %q: everybody could make every call; "
        "expected tokens.enabled true, or neither of them",
        ("$v.tokens.secretName", "$v.tokens.policy"),
        {"tokens.secretName": "own-policy"},
        {"tokens.secretName": "own-policy", "tokens.enabled": True},
    ),
    Rule(
        "and $v.tokens.secretName (ne $v.tokens.policy $f.usualPolicy)",
        "tokens.secretName is %v, a Secret that is there, and tokens.policy is one for a Secret that is to be made: "
        "leave one of them out",
        ("$v.tokens.secretName",),
        {"tokens.enabled": True, "tokens.secretName": "own-policy", "tokens.policy": 'anonymous = ["infer"]'},
        {"tokens.enabled": True, "tokens.policy": 'anonymous = ["infer"]'},
    ),
)

_REACHED = (
    Rule(
        "and (not $v.networkPolicy.enabled) (or $v.networkPolicy.clients $v.networkPolicy.egress)",
        "networkPolicy.enabled is false, and networkPolicy has clients %v and egress %v: everybody would reach the "
        "servers; expected networkPolicy.enabled true, or neither of them",
        ("toJson $v.networkPolicy.clients", "toJson $v.networkPolicy.egress"),
        {"networkPolicy.clients": [{"podSelector": {}}]},
        {"networkPolicy.clients": [{"podSelector": {}}], "networkPolicy.enabled": True},
    ),
    Rule(
        "and (not $v.monitoring.enabled) $v.monitoring.labels",
        "monitoring.enabled is false, and monitoring.labels is %v: nothing would be watched; expected "
        "monitoring.enabled true, or no labels",
        ("toJson $v.monitoring.labels",),
        {"monitoring.labels": {"release": "prometheus"}},
        {"monitoring.labels": {"release": "prometheus"}, "monitoring.enabled": True},
    ),
    Rule(
        "and $v.monitoring.enabled $v.settings.tls_client_ca (not $v.settings.metrics_without_certificate)",
        "settings.tls_client_ca is %v and monitoring.enabled is true: Prometheus shows no certificate, and would be "
        "refused; expected settings.metrics_without_certificate true too",
        ("$v.settings.tls_client_ca",),
        {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True, "monitoring.enabled": True},
        {
            "settings.tls_client_ca": "/tls/ca.crt",
            "tls.enabled": True,
            "monitoring.enabled": True,
            "settings.metrics_without_certificate": True,
        },
    ),
)

_GATEWAY = (
    Rule(
        "and $v.gateway.enabled $v.settings.tls_client_ca",
        "settings.tls_client_ca is %v and gateway.enabled is true: the gateway shows no certificate, and every call "
        "through it would fail; expected tokens.enabled, or no gateway",
        ("$v.settings.tls_client_ca",),
        {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True, "gateway.enabled": True},
        {"settings.tls_client_ca": "/tls/ca.crt", "tls.enabled": True},
    ),
    Rule(
        "and (not $v.gateway.enabled) (or $v.gateway.canary.service $v.gateway.canary.weight)",
        "gateway.canary has service %q and weight %v, and gateway.enabled is false: nothing would shift calls; "
        "expected gateway.enabled true",
        ("$v.gateway.canary.service", "$v.gateway.canary.weight"),
        _CANARY,
        {**_CANARY, "gateway.enabled": True},
    ),
    Rule(
        "and $v.gateway.canary.weight (not $v.gateway.canary.service)",
        "gateway.canary.weight is %v: it needs gateway.canary.service, the Service of the other release",
        ("$v.gateway.canary.weight",),
        {"gateway.enabled": True, "gateway.canary.weight": 10},
        {**_CANARY, "gateway.enabled": True},
    ),
    Rule(
        "has $v.gateway.canary.service $f.services",
        "gateway.canary.service is %v, a Service of this release itself: expected another release's",
        ("$v.gateway.canary.service",),
        {"gateway.enabled": True, "gateway.canary.service": "inferry-server-vip"},
        {"gateway.enabled": True, "gateway.canary.service": "inferry-2-server-vip"},
    ),
    Rule(
        "and $v.settings.trace_endpoint $f.heldBack (not $v.networkPolicy.egress) (not $v.models.bucket.egress)",
        "settings.trace_endpoint is %v, a collector that the network policy holds back: name it and DNS in "
        "networkPolicy.egress, or in models.bucket.egress",
        ("$v.settings.trace_endpoint",),
        {"settings.trace_endpoint": _COLLECTOR, "networkPolicy.enabled": True},
        {"settings.trace_endpoint": _COLLECTOR, "networkPolicy.enabled": True, "networkPolicy.egress": _OUT},
    ),
)

_TWICE: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    ("ownVolumes", "of volumes, the names",
     {"volumes": [{"name": "a", "emptyDir": {}}] * 2}, {"volumes": [{"name": "a", "emptyDir": {}}]}),
    ("ownMounts", "of volumeMounts, the paths",
     {**_MOUNTED, "volumeMounts": [*_MOUNTED["volumeMounts"], {"name": "models", "mountPath": "/policy/"}]},
     {**_MOUNTED, "volumeMounts": [*_MOUNTED["volumeMounts"], {"name": "models", "mountPath": "/policy2"}]}),
    ("ownVariables", "of env, the variables",
     {"env": [{"name": "TZ", "value": "UTC"}, {"name": "TZ", "value": "CET"}]},
     {"env": [{"name": "TZ", "value": "UTC"}, {"name": "LANG", "value": "C"}]}),
)  # fmt: skip

_MOUNTS = (
    Rule(
        'hasPrefix "INFERRY_" .name',
        "env has %v: the server's settings are under settings, where times and probes follow them; expected "
        "settings.%v",
        (".name", 'trimPrefix "INFERRY_" .name | lower'),
        {"env": [{"name": "INFERRY_DRAIN_TIMEOUT_S", "value": "300"}]},
        {"settings.drain_timeout_s": 300},
        each="$v.env",
    ),
    Rule(
        "not (has .name $f.volumes)",
        "volumeMounts has %v at %v, and there is no such volume: expected one of %v",
        (".name", ".mountPath", 'join ", " $f.volumes'),
        {"volumeMounts": [{"name": "polices", "mountPath": "/policy"}], "volumes": _MOUNTED["volumes"]},
        _MOUNTED,
        each="$v.volumeMounts",
    ),
    *(
        Rule(
            f"ne (len $f.{name}) (len (uniq $f.{name}))",
            f"{what} %v are there twice: expected each once",
            (f'join ", " $f.{name}',),
            planted,
            right,
        )
        for name, what, planted, right in _TWICE
    ),
    *(
        Rule(
            f'and $v.settings.{name} (ne (include "inferry.holdsFile" (list $ $v.settings.{name})) "yes")',
            f"settings.{name} is %v, and no file can be there: expected a path below /models, below /tls with "
            "tls.enabled, or below one of volumeMounts whose volume is no emptyDir; there are %v",
            (f"$v.settings.{name}", 'join ", " $f.mounts'),
            {f"settings.{name}": "/policy/file", "tls.enabled": name == "tls_client_ca"},
            {f"settings.{name}": "/policy/file", "tls.enabled": name == "tls_client_ca", **_MOUNTED},
        )
        for name in path_settings()
        if name not in ("tls_certificate", "tls_private_key")  # of tls.enabled
    ),
)

_TIMES = (
    Rule(
        "lt (float64 $f.startSeconds) (float64 $s.model_load_timeout_s)",
        "settings.model_load_timeout_s is %v, and a pod has %v seconds to start: set startSeconds to more",
        ("$s.model_load_timeout_s", "$f.startSeconds"),
        {"settings.model_load_timeout_s": 3600},
        {"settings.model_load_timeout_s": 3600, "startSeconds": 3600},
    ),
    Rule(
        "le (float64 $s.drain_delay_s) (float64 $f.readinessSeconds)",
        "settings.drain_delay_s is %v: it must be more than %v, which is how long a pod that is not ready may still "
        "get calls",
        ("$s.drain_delay_s", "$f.readinessSeconds"),
        {"settings.drain_delay_s": 6},
        {"settings.drain_delay_s": 6.5},
    ),
)

_SETTINGS = (  # as `Settings` refuses them; a test compares the two
    *(
        Rule(
            f"lt (float64 $s.{name}) (float64 $s.{other})",
            f"settings.{name} is %v and settings.{other} is %v: expected at least as much",
            (f'include "inferry.text" $s.{name}', f'include "inferry.text" $s.{other}'),
            {f"settings.{name}": 1, f"settings.{other}": 2},
            {f"settings.{name}": 512, f"settings.{other}": 256},
        )
        for name, other in AT_LEAST
    ),
    Rule(
        "and (gt (float64 $s.max_total_queue_bytes) 0.0) "
        "(lt (float64 $s.max_total_queue_bytes) (mulf 2 $s.max_queue_bytes))",
        "settings.max_total_queue_bytes is %v and settings.max_queue_bytes is %v: expected 0, or at least twice as "
        "much",
        ('include "inferry.text" $s.max_total_queue_bytes', 'include "inferry.text" $s.max_queue_bytes'),
        {"settings.max_total_queue_bytes": 1 << 28},
        {"settings.max_total_queue_bytes": 1 << 29},
    ),
    Rule(
        'and (ne (toString $s.response_compression) "none") (eq (toString $s.compressed_requests) "false")',
        "settings.response_compression is %v and settings.compressed_requests is false: gRPC turns both off; leave "
        "one of them out",
        ("$s.response_compression",),
        {"settings.response_compression": "gzip", "settings.compressed_requests": False},
        {"settings.response_compression": "gzip"},
    ),
    Rule(
        "and (gt (float64 $s.max_queue_delay_us) 0.0) (eq (int $s.max_batch_size) 1)",
        "settings.max_queue_delay_us is %v and settings.max_batch_size is 1: a batch of one row is full at once; "
        "expected no delay, or larger batches",
        ("$s.max_queue_delay_us",),
        {"settings.max_queue_delay_us": 500, "settings.max_batch_size": 1},
        {"settings.max_queue_delay_us": 500, "settings.max_batch_size": 2},
    ),
    Rule(
        "and $v.settings.latency_objective_ms (gt (float64 $s.max_queue_delay_us) 0.0) "
        '(ge (float64 $s.max_queue_delay_us) (mulf 1000 (get $s "latency_objective_ms" | default 0)))',
        "settings.max_queue_delay_us is %v and settings.latency_objective_ms is %v: who waits for the whole delay is "
        "late already; expected a delay below the objective",
        ("$s.max_queue_delay_us", "$v.settings.latency_objective_ms"),
        {"settings.max_queue_delay_us": 2000, "settings.latency_objective_ms": 2},
        {"settings.max_queue_delay_us": 1999, "settings.latency_objective_ms": 2},
    ),
    Rule(
        "and (not $v.settings.trace_endpoint) (ne (float64 $s.trace_sample_ratio) (float64 $d.trace_sample_ratio))",
        "settings.trace_sample_ratio is %v without settings.trace_endpoint: expected where traces go, or no ratio",
        ("$s.trace_sample_ratio",),
        {"settings.trace_sample_ratio": 0.5},
        {"settings.trace_sample_ratio": 0.5, "settings.trace_endpoint": _COLLECTOR},
    ),
    Rule(
        'and (eq (toString $s.provider) "cpu") $f.changedForGpus',
        "settings.provider is cpu, and %v have no effect then: leave them out, or choose another provider",
        ('join ", " $f.changedForGpus',),
        {"settings.provider": "cpu", "settings.tf32": True},
        {"settings.provider": "cpu"},
    ),
)  # fmt: skip


RULES = (*_PODS, *_IMAGES, *_RESOURCES, *_TLS, *_TOKENS, *_REACHED, *_GATEWAY, *_MOUNTS, *_TIMES, *_SETTINGS)
"""The rules that are the same whatever the manifests have."""


def rules(reserved: Mapping[str, tuple[str, Sequence[str]]]) -> Iterator[Rule]:
    """Every rule.

    Args:
        reserved: of each value that adds to what the chart writes, the key that names its elements (empty: they are
            a mapping's), and the names that are taken.
    """
    for value, (key, names) in reserved.items():
        yield _taken(value, key, names)
    yield from RULES


def _taken(value: str, key: str, names: Sequence[str]) -> Rule:
    one = f'(trimSuffix "/" .{key})' if key else "."
    rest: dict[str, Any] = {"name": "tmp"} if key == "mountPath" else {"emptyDir": {}}
    element, free = rest | {key: names[0]}, rest | {key: "free" if key == "name" else "/free"}
    beside = {"monitoring.enabled": True} if value.startswith("monitoring.") else {}
    return Rule(
        f"has {one} (list {' '.join(json.dumps(name) for name in names)})",
        f"{value} has %v, which the chart writes itself and its other objects go by: expected another",
        (one,),
        {value: [element] if key else {names[0]: "other"}, **beside},
        {value: [free] if key else {"example.com/free": "other"}, **beside},
        each=f"$v.{value}" if key else f"keys $v.{value} | sortAlpha",
    )


def template(table: Sequence[Rule]) -> str:
    """The template that ends rendering with all that is wrong, a line each."""
    lines = ['{{- define "inferry.rules" -}}', "{{- $v := .Values }}", "{{- $wrong := list }}"]
    for name, source in (("$d", "serverDefaults"), ("$s", "effective"), ("$f", "facts")):
        lines.append(f'{{{{- {name} := include "inferry.{source}" . | fromYaml }}}}')
    for rule in table:
        lines += [f"{{{{- range {rule.each} }}}}"] if rule.each else []
        lines.append(f"{{{{- if {rule.wrong} }}}}")
        came = "".join(f" ({one})" if " " in one and not one.startswith("(") else f" {one}" for one in rule.came)
        lines.append(f"{{{{- $wrong = append $wrong (printf {json.dumps(rule.message)}{came}) }}}}")
        lines.append("{{- end }}")
        lines += ["{{- end }}"] if rule.each else []
    lines.append("{{- if $wrong }}")
    lines.append('{{- fail (printf "these values cannot be together:\\n- %s" (join "\\n- " ($wrong | uniq))) }}')
    return "\n".join([*lines, "{{- end }}", "{{- end }}"]) + "\n"
