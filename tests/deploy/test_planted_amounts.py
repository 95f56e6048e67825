"""Host names, limits of a namespace and durations: which are right, which are not, and what is said of the latter."""

from pathlib import Path
from typing import Any

import pytest

from manifests.bundle import K8S, Bundle, Manifest, parse, render, render_with
from manifests.planting import one, rules, spec
from manifests.rules_durations import duration_faults, duration_s
from manifests.rules_hostnames import have_common_hosts, hostname_faults
from manifests.rules_limits import limit_faults
from manifests.rules_metrics import query_faults
from manifests.rules_programs import program_faults


@pytest.mark.parametrize(
    ("route", "listener", "meet"),
    [
        ("a.example.com", "", True), ("a.example.com", "a.example.com", True), ("A.example.com", "a.Example.com", True),
        ("a.example.com", "*.example.com", True), ("a.b.example.com", "*.example.com", True),
        ("*.example.com", "a.example.com", True), ("*.example.com", "*.b.example.com", True),
        ("*.b.example.com", "*.example.com", True), ("", "*.example.com", True),
        ("example.com", "*.example.com", False), ("*.example.com", "example.com", False),
        ("a.example.org", "*.example.com", False), ("aexample.com", "*.example.com", False),
        ("*.example.org", "*.example.com", False), ("a.example.com", "b.example.com", False),
    ],
)  # fmt: skip
def test_host_names_meet_as_the_gateway_api_has_it(route: str, listener: str, meet: bool) -> None:
    assert have_common_hosts(route, listener) == meet


GATEWAYS = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: eg
  listeners:
    - {name: com, port: 80, protocol: HTTP, hostname: "*.example.com"}
    - {name: org, port: 81, protocol: HTTP, hostname: example.org}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: inner, namespace: gateways}
spec:
  gatewayClassName: eg
  listeners: [{name: net, port: 80, protocol: HTTP, hostname: example.net}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: own}
spec: {}
"""
EDGE, INNER = {"name": "edge"}, {"name": "inner", "namespace": "gateways"}


@pytest.mark.parametrize(
    ("parents", "hostnames", "faults"),
    [
        ([EDGE], ["a.example.com", "example.org"], []),
        ([EDGE], [], []),
        ([EDGE], ["a.example.com", "b.example.net"], ["host name b.example.net meets no listener"]),
        ([EDGE | {"sectionName": "org"}], ["a.example.com"], ["they are for example.org"]),
        ([EDGE | {"port": 81}], ["a.example.com"], ["they are for example.org"]),
        ([EDGE, INNER], ["a.example.com", "example.net"], []),
        ([EDGE, INNER], ["a.example.com"], ["no host name of a.example.com meets the listeners for example.net"]),
        ([EDGE, {"name": "elsewhere"}], ["a.example.com", "example.edu"], []),  # which may be for it
        ([{"name": "edge", "namespace": "other"}], ["example.edu"], []),
        ([{"name": "mesh", "kind": "Service", "group": ""}], ["example.edu"], []),
    ],
)
def test_host_names_are_asked_of_the_listeners_that_a_route_is_attached_to(
    parents: list[Manifest], hostnames: list[str], faults: list[str]
) -> None:
    bundle = parse(GATEWAYS)
    spec(bundle, "GRPCRoute").update(parentRefs=parents, hostnames=hostnames)
    found = list(hostname_faults(bundle))
    assert [fault for fault, expected in zip(found, faults, strict=True) if expected not in fault] == []


LIMITED = """
apiVersion: v1
kind: Pod
metadata: {name: own}
spec:
  initContainers:
    - {name: first, resources: {limits: {cpu: "3", memory: 1Gi}}}
    - {name: beside, restartPolicy: Always, resources: {limits: {cpu: 500m, memory: 512Mi}}}
  containers:
    - {name: server, resources: {requests: {cpu: "1"}, limits: {cpu: "2", memory: 2Gi}}}
    - {name: free}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: own}
spec: {resources: {requests: {storage: 5Gi}}}
"""


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"type": "Container", "max": {"cpu": "3"}}, []),
        ({"type": "Container", "max": {"cpu": "2500m"}}, ["first: its requests have 3 of cpu", "first: its limits"]),
        ({"type": "Container", "min": {"cpu": "500m", "memory": "512Mi"}}, []),
        ({"type": "Container", "min": {"cpu": "600m"}}, ["beside: its requests have 500m", "beside: its limits"]),
        ({"type": "Container", "default": {"memory": "64Mi"}, "min": {"memory": "128Mi"}},
         ["free: its requests have 64Mi of memory, and 128Mi is the least", "free: its limits have 64Mi"]),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, []),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "1.5"}}, ["its limit of cpu is 2 times its request"]),
        ({"type": "Pod", "max": {"cpu": "3", "memory": "2560Mi"}}, []),  # three first, or two and a half together
        ({"type": "Pod", "max": {"memory": "2Gi"}}, ["Pod own: its requests have 2560Mi", "limits have 2560Mi"]),
        ({"type": "Pod", "max": {"nvidia.com/gpu": "1"}}, ["Pod own: it limits no nvidia.com/gpu, and 1 is the most"]),
        ({"type": "Pod", "min": {"ephemeral-storage": "1Gi"}}, ["Pod own: it requests no ephemeral-storage"]),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "5Gi"}}, []),
        ({"type": "PersistentVolumeClaim", "max": {"storage": "4Gi"}}, ["PersistentVolumeClaim own: its requests"]),
        ({"type": "Containers", "max": {"memory": "1Ki"}}, ["the type Containers is none"]),
        ({"type": "Container", "max": {"memory": "4GB"}}, ["max of memory is 4GB; expected a quantity"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("elsewhere", [False, True])
def test_limits_of_a_namespace_hold_for_what_is_in_it(item: Manifest, expected: list[str], elsewhere: bool) -> None:
    bundle = parse(LIMITED)
    metadata = {"name": "limits", **({"namespace": "other"} if elsewhere else {})}
    bundle.objects.append({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": [item]}})
    found = list(limit_faults(bundle))
    if elsewhere:
        assert [fault for fault in found if not fault.startswith("LimitRange limits: ")] == []  # whose own it is
    else:
        assert [fault for fault, one in zip(found, expected, strict=True) if one not in fault] == [], found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0), ("0s", 0), ("90s", 90), ("1h30m", 5400), ("1d", 86_400), ("2w", 1_209_600), ("500ms", 0.5),
        ("10m", 600), ("1y2w3d4h5m6s7ms", 33_019_506.007),
    ],
)  # fmt: skip
def test_durations_are_read_as_prometheus_does(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "5min", "1.5h", "30m1h", "1h1h", "-5m", "five", "5M", 300])
def test_other_texts_are_no_durations(text: Any) -> None:
    assert duration_s(text) is None


def watched(folder: Path) -> Bundle:
    return render_with(folder, ("monitoring", "tls"))


def test_a_wrong_duration_is_named_wherever_it_is(tmp_path: Path) -> None:
    bundle = watched(tmp_path)
    assert list(duration_faults(bundle)) == []
    spec(bundle, "PrometheusRule")["groups"][0].update(interval="half a minute", query_offset="1m")
    rules(bundle)[0].update({"for": "0", "keep_firing_for": "10min"})
    spec(bundle, "PodMonitor")["podMetricsEndpoints"][0].update(interval="15", scrapeTimeout="10s")
    spec(bundle, "Certificate", "inferry-server").update(duration="90d", renewBefore="360h30m")
    found = list(duration_faults(bundle))
    expected = ("interval is 'half a minute'", "keep_firing_for is '10min'", "interval is '15'", "duration is '90d'")
    assert [fault for fault, one in zip(found, expected, strict=True) if one not in fault] == [], found
    spec(bundle, "PodMonitor")["podMetricsEndpoints"][0].update(interval="5s")
    assert any("scrapeTimeout is 10s, and interval 5s" in fault for fault in duration_faults(bundle))


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("rate(a[5m])", []), ("max_over_time(a[1h:30s])", []), ("max_over_time(a[1h:])", []), ("a offset -1d > 5", []),
        ("rate(a[300])", []), ("a{b='[a-z]'}", []), ("a{b=`[0-9]`}", []), ("rate(a[5min])", ["5min"]),
        ("rate(a[])", [""]), ("rate(a[5m:1sec])", ["1sec"]), ("a offset 5minutes", ["5minutes"]),
    ],
)  # fmt: skip
def test_ranges_and_offsets_of_queries_are_durations(query: str, wrong: list[str]) -> None:
    found = [fault for fault in query_faults(query, {"a": frozenset({"b"})}) if "has the time" in fault]
    assert [fault for fault, text in zip(found, wrong, strict=True) if f"has the time {text!r}" not in fault] == []


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("s3://models/production", False), ("gs://models", False), ("az://models/a", False), ("https://h/a", False),
        ("abfss://models@account.dfs.core.windows.net/a", False), ("ftp://models/production", True),
        ("gcs://models/production", True), ("s3:/models", True), ("models/production", True), ("s3://", True),
    ],
)  # fmt: skip
def test_a_copy_is_of_a_store_that_the_client_can_open(url: str, wrong: bool, tmp_path: Path) -> None:
    bundle = render_with(tmp_path, ("models-bucket",))
    copied = [one for template in bundle.templates() for one in template.containers if "sync" in one.get("args", [])]
    assert len(copied) == 2
    for container in copied:
        container["args"][1] = url
    named = [fault for fault in program_faults(bundle) if f"{url} is the address of no store" in fault]
    assert len(named) == 2 * wrong, list(program_faults(bundle))


def test_both_containers_copy_the_same_source(tmp_path: Path) -> None:
    bundle = render_with(tmp_path, ("models-bucket",))
    assert list(program_faults(bundle)) == []
    (template,) = bundle.templates()
    template.spec["initContainers"][0]["args"][1] = "s3://other/repository"
    (fault,) = program_faults(bundle)
    assert "copies s3://example-models/repository to /models, and another container copies s3://other/re" in fault


def test_jobs_that_train_have_claims_of_their_own(tmp_path: Path) -> None:
    train, retrain = (render(K8S / "jobs" / job) for job in ("train", "retrain"))
    assert not train.names("PersistentVolumeClaim") & retrain.names("PersistentVolumeClaim")
    for bundle in (train, retrain):
        (template,) = bundle.templates()
        sources = [volume.get("persistentVolumeClaim", {}) for volume in template.spec["volumes"]]
        claimed = {source["claimName"] for source in sources if source}
        assert claimed == {"inferry-models", *bundle.names("PersistentVolumeClaim")}
        assert one(bundle, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteMany"]
    together = render_with(tmp_path, (), resources=("base", "jobs/train", "jobs/retrain"))
    assert {"inferry-train-data", "inferry-retrain-data"} < together.names("PersistentVolumeClaim")
