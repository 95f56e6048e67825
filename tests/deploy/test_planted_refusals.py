"""The check of manifests names what only the API server or the kubelet would refuse, and lets what they take pass."""

import copy
from pathlib import Path

import pytest

from manifests.bundle import K8S, Bundle, Manifest, render, render_with
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.planting import Change, container, data, one, planted, pod, rules, spec
from manifests.rules_refused import refused_faults
from manifests.schemas import VERSIONS


def volume(bundle: Bundle, name: str) -> Manifest:
    return next(found for found in pod(bundle)["volumes"] if found["name"] == name)


def endpoint(bundle: Bundle) -> Manifest:
    found: Manifest = spec(bundle, "PodMonitor")["podMetricsEndpoints"][0]
    return found


def trigger(bundle: Bundle) -> Manifest:
    found: Manifest = spec(bundle, "ScaledObject")["triggers"][0]["metadata"]
    return found


def vip(bundle: Bundle) -> Manifest:
    return spec(bundle, "Service", "inferry-server-vip")


def limits(*items: Manifest) -> Change:
    """A LimitRange of the namespace."""
    found = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "own", "namespace": "inferry"}}
    return lambda b: b.objects.append(copy.deepcopy(found | {"spec": {"limits": list(items)}}))


MISTAKES: dict[str, tuple[Change, str]] = {
    "a container twice": (
        lambda b: pod(b)["containers"].append(copy.deepcopy(container(b))), "the container server is there twice",
    ),
    "a volume twice": (
        lambda b: pod(b)["volumes"].append({"name": "tmp", "emptyDir": {}}), "the volume tmp is there twice",
    ),
    "a port's name twice": (
        lambda b: container(b)["ports"].append({"name": "grpc", "containerPort": 9}), "the port grpc is there twice",
    ),
    "a long name of a port": (
        lambda b: container(b)["ports"].append({"name": "sixteen-letters-", "containerPort": 9}), "15 at most",
    ),
    "two mounts of one path": (
        lambda b: container(b)["volumeMounts"].append({"name": "tls", "mountPath": "/access"}), "/access is mounted tw",
    ),
    "a variable of two sources": (
        lambda b: container(b).update(
            env=[{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        ), "has value and valueFrom",
    ),
    "a server that ends for good": (lambda b: pod(b).update(restartPolicy="Never"), "a Deployment takes Always"),
    "a probe that must succeed twice": (
        lambda b: container(b)["livenessProbe"].update(successThreshold=2), "successThreshold is 2; expected 1",
    ),
    "a probe without time": (
        lambda b: container(b)["readinessProbe"].update(timeoutSeconds=0), "timeoutSeconds is 0; expected 1",
    ),
    "a toleration that contradicts itself": (
        lambda b: pod(b).update(tolerations=[{"key": "a", "operator": "Exists", "value": "b"}]), "operator Exists and",
    ),
    "a misspelt operator of a toleration": (
        lambda b: pod(b).update(tolerations=[{"key": "gpu", "operator": "Exsts"}]),
        "operator is Exsts; expected Exists, Equal",
    ),
    "a misspelt effect of a toleration": (
        lambda b: pod(b).update(tolerations=[{"key": "gpu", "operator": "Exists", "effect": "NoSchedul"}]),
        "effect is NoSchedul; expected NoSchedule",
    ),
    "a toleration of nothing": (
        lambda b: pod(b).update(tolerations=[{"value": "a100", "effect": "NoSchedule"}]), "no key, and operator Equal",
    ),
    "a toleration that ends for nobody": (
        lambda b: pod(b).update(tolerations=[{"key": "a", "operator": "Exists", "tolerationSeconds": 60}]),
        "tolerationSeconds without effect NoExecute",
    ),
    "names that nobody resolves": (lambda b: pod(b).update(dnsPolicy="Cluster"), "dnsPolicy is Cluster"),
    "a medium that is none": (lambda b: volume(b, "tmp").update(emptyDir={"medium": "memory"}), "medium is memory"),
    "a Service's port twice": (lambda b: vip(b)["ports"][1].update(port=8001), "the port 8001 is there twice"),
    "a Service of no name": (lambda b: vip(b).update(type="ExternalName"), "externalName is not stated"),
    "a Service of pods that load": (
        lambda b: vip(b).update(publishNotReadyAddresses=True), "publishes pods that are not ready",
    ),
    "a network that is none": (
        lambda b: spec(b, "NetworkPolicy")["ingress"][0].update({"from": [{"ipBlock": {"cidr": "10.0.0.300/8"}}]}),
        "10.0.0.300/8 is no network",
    ),
    "an address for a network": (
        lambda b: spec(b, "NetworkPolicy")["ingress"][0].update({"from": [{"ipBlock": {"cidr": "10.0.0.3"}}]}),
        "10.0.0.3 is no network",
    ),
    "a key that only root reads": (
        lambda b: volume(b, "tls")["secret"].update(defaultMode=0o400), "the mode 0400: root's alone",
    ),
    "a route to HTTP": (
        lambda b: spec(b, "GRPCRoute")["rules"][0]["backendRefs"][0].update(port=8002), "does not lead to gRPC",
    ),
    "a listener without a certificate": (
        lambda b: spec(b, "Gateway")["listeners"][0].update(protocol="HTTPS"), "is HTTPS, and has no certificate",
    ),
    "a host name that no listener is for": (
        lambda b: (
            spec(b, "Gateway")["listeners"][0].update(hostname="*.example.com"),
            spec(b, "GRPCRoute").update(hostnames=["models.example.org"]),
        ), "its host name models.example.org meets no listener; they are for *.example.com",
    ),
    "a Service with one address instead of all": (
        lambda b: spec(b, "Service", "inferry-server").pop("clusterIP"),
        "Service inferry-server has one address, and no Service of these pods is headless",
    ),
    "limits of the namespace that the server is above": (
        limits({"type": "Container", "max": {"memory": "1Gi"}}),
        "container server: its limits have 2Gi of memory, and 1Gi is the most of LimitRange own",
    ),
    "an alert after no duration": (
        lambda b: rules(b)[0].update({"for": "5 minutes"}), "for is '5 minutes'; expected a duration of Prometheus",
    ),
    "a trigger that asks nobody": (lambda b: trigger(b).pop("serverAddress"), "no serverAddress says"),
    "a trigger by words": (lambda b: trigger(b).update(threshold="many"), "threshold is many; expected a number"),
    "a query without an end": (lambda b: trigger(b).update(query="sum(rate(inferry_batches_total[1m])"), "brackets"),
    "metrics by TLS": (lambda b: endpoint(b).update(scheme="HTTPS"), "metrics are asked by https"),
    "metrics without a client's certificate": (
        lambda b: data(b).update(INFERRY_TLS_CLIENT_CA="/tls/ca.crt"),
        "PodMonitor inferry-server: metrics are asked without a certificate",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(name: str, everything: Bundle, facts: ServerFacts) -> None:
    change, expected = MISTAKES[name]
    changed = planted(everything, change)
    found = faults(changed, facts, versions=VERSIONS[-1:])
    assert any(expected in fault for fault in found), found


RIGHT: dict[str, Change] = {
    "tolerations": lambda b: pod(b).update(tolerations=[
        {"operator": "Exists"}, {"key": "gpu", "value": "a100"}, {"key": "gpu", "operator": "Exists", "effect": ""},
        {"key": "down", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
    ]),
    "a host name that a listener is for": lambda b: (
        spec(b, "Gateway")["listeners"][0].update(hostname="*.example.com"),
        spec(b, "GRPCRoute").update(hostnames=["models.example.com"]),
    ),
    "one address for a gateway alone": lambda b: b.objects.remove(one(b, "Service", "inferry-server")),
    "limits of the namespace that the server is within": limits(
        {"type": "Container", "max": {"memory": "2048Mi", "cpu": 2}, "min": {"cpu": "500m"}},
        {"type": "Pod", "max": {"memory": "4Gi"}},
        {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "10Gi"}},
    ),
    "an alert after a duration": lambda b: rules(b)[0].update({"for": "1h30m", "keep_firing_for": "90s"}),
    "a key that a group reads": lambda b: (
        volume(b, "tls")["secret"].update(defaultMode=0o440), pod(b)["securityContext"].update(fsGroup=10001),
    ),
    "a listener with a certificate": lambda b: spec(b, "Gateway")["listeners"][0].update(
        protocol="HTTPS", port=443, tls={"mode": "Terminate", "certificateRefs": [{"name": "public-tls"}]}
    ),
    "networks": lambda b: spec(b, "NetworkPolicy")["ingress"][0].update(
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"ipBlock": {"cidr": "fd00::/8"}}]}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_has_no_fault(name: str, everything: Bundle, facts: ServerFacts) -> None:
    right = Bundle(copy.deepcopy(everything.objects))
    RIGHT[name](right)
    assert faults(right, facts, versions=VERSIONS[-1:]) == []


def test_metrics_may_be_told_to_who_has_no_certificate(facts: ServerFacts, tmp_path: Path) -> None:
    bundle = render_with(tmp_path, ("tls", "monitoring"))
    data(bundle).update(INFERRY_TLS_CLIENT_CA="/tls/ca.crt", INFERRY_METRICS_WITHOUT_CERTIFICATE="true")
    assert faults(bundle, facts, versions=VERSIONS[-1:]) == []


@pytest.mark.parametrize("policy", ["Always", None])
def test_a_job_that_would_be_started_for_ever_is_named(policy: str | None) -> None:
    bundle = render(K8S / "jobs" / "train")
    template = one(bundle, "Job")["spec"]["template"]["spec"]
    template.pop("restartPolicy")
    template |= {} if policy is None else {"restartPolicy": policy}
    assert any("a Job takes OnFailure or Never" in fault for fault in refused_faults(bundle))


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        ("0 3 * * 0", False), ("*/15 3-5 1,15 * mon-fri", False), ("@weekly", False), ("0 3 * jan 7", False),
        ("0 25 * * 0", True), ("0 3 * * SUNDAY", True), ("0 3 * *", True), ("0 0 3 * * 0", True), ("@often", True),
    ],
)  # fmt: skip
def test_a_schedule_is_one_of_cron(schedule: str, wrong: bool) -> None:
    bundle = render(K8S / "jobs" / "retrain")
    spec(bundle, "CronJob").update(schedule=schedule)
    assert bool(list(refused_faults(bundle))) == wrong
