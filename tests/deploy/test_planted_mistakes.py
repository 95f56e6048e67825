"""The check of manifests notices a mistake of each kind, and names it."""

import copy
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from manifests.bundle import K8S, Bundle, parse, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.planting import (
    Change,
    container,
    data,
    http,
    one,
    planted,
    pod,
    policy,
    probe,
    rules,
    spec,
    traced,
    without,
)
from manifests.rules_metrics import query_faults
from manifests.rules_resources import quantity
from manifests.schemas import VERSIONS, unknown_kinds


@pytest.fixture(scope="module")
def kserve() -> Bundle:
    return render(K8S / "overlays" / "kserve")


GRPC_PROBE = {"grpc": {"port": 8001, "service": ""}, "periodSeconds": 2, "failureThreshold": 3}

MISTAKES: dict[str, tuple[Change, str]] = {
    # schemas
    "a misspelt field": (lambda b: spec(b, "Service").update(clusterIp="None"), "clusterIp"),
    "a misspelt field of KEDA": (lambda b: spec(b, "ScaledObject").update(minReplicas=2), "'minReplicas' was unexp"),
    "a misspelt field of the route": (lambda b: spec(b, "GRPCRoute")["rules"][0].update(retry={}), "'retry' was unex"),
    "a missing field of the monitor": (lambda b: spec(b, "PodMonitor").pop("selector"), "'selector' is a required"),
    "a certificate without a Secret": (lambda b: spec(b, "Certificate").pop("secretName"), "'secretName' is a requ"),
    "a rule that is no text": (lambda b: rules(b)[0].update(labels={"severity": 1}), "1 is not of type 'string'"),
    "an unknown trigger of retries": (
        lambda b: spec(b, "BackendTrafficPolicy")["retry"]["retryOn"]["triggers"].append("unavailible"), "unavailible",
    ),
    # selectors and ports
    "a Service for nobody": (lambda b: spec(b, "Service").update(selector={"app": "x"}), "no pod has the labels"),
    "a budget for nobody": (lambda b: spec(b, "PodDisruptionBudget").update(selector={"matchLabels": {"app": "x"}}),
                            "PodDisruptionBudget inferry-server: no pod"),
    "a policy for nobody": (lambda b: spec(b, "NetworkPolicy").update(podSelector={"matchLabels": {"app": "x"}}),
                            "NetworkPolicy inferry-server: no pod"),
    "a spread of others": (
        lambda b: pod(b)["topologySpreadConstraints"][0].update(labelSelector={"matchLabels": {"app": "x"}}), "spread",
    ),
    "a port that no pod has": (lambda b: spec(b, "Service", "inferry-server-vip")["ports"][0].update(targetPort="rpc"),
                               "has no port rpc"),
    "a headless port that is another": (
        lambda b: spec(b, "Service", "inferry-server")["ports"][0].update(port=80), "translates no ports",
    ),
    "a monitor of no port": (lambda b: spec(b, "PodMonitor")["podMetricsEndpoints"][0].update(port="metrics"),
                             "has no port metrics"),
    "a policy of no port": (lambda b: spec(b, "NetworkPolicy")["ingress"][0]["ports"][0].update(port=9000),
                            "has no port 9000"),
    # references
    "a claim that is not there": (without("PersistentVolumeClaim"), "no PersistentVolumeClaim inferry-models"),
    "settings that are not there": (without("ConfigMap"), "no ConfigMap inferry-server-"),
    "an account that is not there": (without("ServiceAccount"), "no ServiceAccount inferry-server"),
    "a priority that is not there": (lambda b: pod(b).update(priorityClassName="high"), "no PriorityClass high"),
    "a gateway that is not there": (without("Gateway"), "there is no Gateway inferry"),
    "a listener that is not there": (lambda b: spec(b, "GRPCRoute")["parentRefs"][0].update(sectionName="tls"),
                                     "no listener tls"),
    "a backend that is not there": (
        lambda b: spec(b, "GRPCRoute")["rules"][0]["backendRefs"][0].update(name="canary"), "no Service canary",
    ),
    "a backend's port that is not there": (
        lambda b: spec(b, "GRPCRoute")["rules"][0]["backendRefs"][0].update(port=80), "has no port 80",
    ),
    "retries of no route": (lambda b: spec(b, "BackendTrafficPolicy")["targetRefs"][0].update(name="x"),
                            "there is no GRPCRoute x"),
    "a scaler of nothing": (lambda b: spec(b, "ScaledObject")["scaleTargetRef"].update(name="x"), "no Deployment x"),
    "a scaler and a fixed number": (lambda b: spec(b, "Deployment").update(replicas=2), "states replicas"),
    "an issuer that is not there": (lambda b: spec(b, "Certificate", "inferry-server")["issuerRef"].update(name="x"),
                                    "there is no Issuer x"),
    "a secret that nobody makes": (lambda b: spec(b, "Certificate", "inferry-server").update(secretName="x"),
                                   "there is no Secret inferry-server-tls"),
    # a gateway before servers with TLS
    "a gateway that speaks in the clear": (without("BackendTLSPolicy"), "no BackendTLSPolicy says so"),
    "a policy of TLS for another Service": (
        lambda b: spec(b, "BackendTLSPolicy")["targetRefs"][0].update(name="inferry-server"), "no BackendTLSPolicy",
    ),
    "a policy of TLS for another port": (
        lambda b: spec(b, "BackendTLSPolicy")["targetRefs"][0].update(sectionName="http"), "no BackendTLSPolicy",
    ),
    "a policy of TLS for no port": (
        lambda b: spec(b, "BackendTLSPolicy")["targetRefs"][0].update(sectionName="rpc"), "has no port named rpc",
    ),
    "a name that the certificate has not": (
        lambda b: spec(b, "BackendTLSPolicy")["validation"].update(hostname="example.com"), "is not for example.com",
    ),
    "an authority that nobody makes": (
        lambda b: spec(b, "BackendTLSPolicy")["validation"]["caCertificateRefs"][0].update(name="x"), "no Secret x",
    ),
    "two authorities": (
        lambda b: spec(b, "BackendTLSPolicy")["validation"].update(wellKnownCACertificates="System"), "expected either",
    ),
    "TLS to servers without": (
        lambda b: [data(b).pop(f"INFERRY_TLS_{one}") for one in ("CERTIFICATE", "PRIVATE_KEY")], "speak no TLS",
    ),
    "client certificates behind a gateway": (
        lambda b: data(b).update(INFERRY_TLS_CLIENT_CA="/tls/ca.crt"), "a BackendTLSPolicy shows none",
    ),
    # tokens
    "a policy that is not mounted": (
        lambda b: data(b).update(INFERRY_ACCESS_POLICY="/x/policy.toml"), "access_policy is /x/policy.toml, and",
    ),
    "a policy under another name": (
        lambda b: data(b).update(INFERRY_ACCESS_POLICY="/access/access.toml"), "inferry-access has no access.toml",
    ),
    "a policy that the server refuses": (policy('[callers.a]\nroles = ["writer"]'), "that is no role"),
    "a policy with the digest of nothing": (
        policy(f'[callers.a]\nroles = ["infer"]\ntokens_sha256 = ["{sha256(b"").hexdigest()}"]'), "was TOKEN set?",
    ),
    "a monitor without a token": (policy('metrics = "read"'), "PodMonitor inferry-server shows no token"),
    "a Secret without the policy": (without("Secret"), "there is no Secret inferry-access"),
    # what a cluster makes of it
    "an object outside the namespace": (
        lambda b: one(b, "NetworkPolicy")["metadata"].pop("namespace"), "NetworkPolicy inferry-server: it states no",
    ),
    "a disk of one node for several pods": (
        lambda b: spec(b, "PersistentVolumeClaim").update(accessModes=["ReadWriteOnce"]),
        "PersistentVolumeClaim inferry-models is ReadWriteOnce, and several pods ask for it",
    ),
    "a scaler that asks about elsewhere": (
        lambda b: spec(b, "ScaledObject")["triggers"][1]["metadata"].update(
            query='sum(process_cpu_seconds_total{namespace="other"})'
        ), "asks for series of the namespace other; it is in inferry",
    ),
    "a certificate for elsewhere": (
        lambda b: spec(b, "Certificate", "inferry-server")["dnsNames"].append("inferry-server.other.svc"),
        "inferry-server.other.svc is one of the namespace other",
    ),
    "traces that a policy holds back": (
        lambda b: data(b).update(INFERRY_TRACE_ENDPOINT="http://10.0.0.7:4317"), "lets it reach port 4317",
    ),
    "names that a policy holds back": (traced({"port": 4317}), "lets it ask DNS"),
    "names asked of DNS by TCP alone": (traced({"port": 4317}, {"port": 53}), "lets it ask DNS"),
    # security
    "root": (lambda b: pod(b)["securityContext"].update(runAsUser=0), "may run as root"),
    "a writable root": (lambda b: container(b)["securityContext"].update(readOnlyRootFilesystem=False), "readOnlyRoot"),
    "a folder of the node": (lambda b: pod(b)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "volume h"),
    "a token of the API": (lambda b: pod(b).pop("automountServiceAccountToken"), "token of the Kubernetes API"),
    "an image without a version": (lambda b: container(b).update(image="inferry-server"), "no tag of a version"),
    # settings
    "an unknown setting": (lambda b: data(b).update(INFERRY_MAX_QUEUE_ROWS="5"), "INFERRY_MAX_QUEUE_ROWS is no sett"),
    "a value out of range": (lambda b: data(b).update(INFERRY_MAX_BATCH_SIZE="0"), "max_batch_size is 0"),
    "an unknown flag": (lambda b: container(b).update(args=["--max-delay=5"]), "refuses the arguments"),
    "loopback": (lambda b: data(b).update(INFERRY_GRPC_ADDRESS="127.0.0.1:8001"), "where no other pod reaches it"),
    "another port": (lambda b: data(b).update(INFERRY_GRPC_ADDRESS="0.0.0.0:9000"), "gRPC listens on port 9000"),
    "another folder": (lambda b: data(b).update(INFERRY_REPOSITORY="/data"), "the repository is /data"),
    "models that can be written": (lambda b: [one.pop("readOnly", 0) for one in container(b)["volumeMounts"]],
                                   "mounted writable"),
    "a certificate that is not mounted": (lambda b: data(b).update(INFERRY_TLS_CERTIFICATE="/x/tls.crt"),
                                          "tls_certificate is /x/tls.crt"),
    "no end of connections": (lambda b: data(b).pop("INFERRY_MAX_CONNECTION_AGE_S"), "max_connection_age_s is not set"),
    # probes
    "a probe over gRPC beside TLS": (lambda b: container(b).update(readinessProbe=GRPC_PROBE), "know no TLS"),
    "a path that is not there": (http("readiness", path="/healthz"), "does not answer /healthz"),
    "a probe of the wrong port": (http("liveness", port="grpc"), "it asks port grpc, and HTTP is on 8002"),
    "a probe by HTTPS": (http("startup", scheme="HTTPS"), "it asks by HTTPS"),
    "liveness that follows readiness": (http("liveness", path="/readyz"), "would be killed"),
    "readiness that follows liveness": (http("readiness", path="/livez"), "would be taken for ready"),
    "no probe": (lambda b: container(b).pop("livenessProbe"), "there is no liveness probe"),
    "a probe of the socket": (
        lambda b: container(b).update(livenessProbe={"tcpSocket": {"port": 8001}, "periodSeconds": 60}), "hangs passes",
    ),
    # times
    "a grace that is short": (lambda b: pod(b).update(terminationGracePeriodSeconds=30), "the drain takes 40 s"),
    "a sleep before SIGTERM": (
        lambda b: container(b).update(lifecycle={"preStop": {"sleep": {"seconds": 5}}}), "the drain takes 45 s",
    ),
    "a start that is short": (probe("startup", failureThreshold=10), "the startup probe gives up after 20 s"),
    "a roll-out that is short": (lambda b: spec(b, "Deployment").pop("progressDeadlineSeconds"), "Seconds is 600"),
    "readiness that is slow": (probe("readiness", periodSeconds=10), "believed after 30 s"),
    "liveness that is quick": (probe("liveness", failureThreshold=2), "may kill it while it finishes"),
    # resources
    "a cap below what waits": (
        lambda b: container(b).update(resources={k: {"cpu": "2", "memory": "512Mi"} for k in ("limits", "requests")}),
        "may take 918 MiB",
    ),
    "a cap below what waits, of an image with another name": (
        lambda b: container(b).update(
            image="registry.test/ml/serving:1",
            resources={k: {"cpu": "2", "memory": "16Mi"} for k in ("limits", "requests")}
        ),
        "may take 918 MiB",
    ),
    "memory in no unit": (
        lambda b: container(b).update(resources={k: {"cpu": "2", "memory": "2gb"} for k in ("limits", "requests")}),
        "expected a quantity as 512Mi, not '2gb'",
    ),
    "a part of a core": (
        lambda b: container(b).update(resources={k: {"cpu": "1500m", "memory": "2Gi"} for k in ("limits", "requests")}),
        "not a whole number of cores",
    ),
    "cores of others": (lambda b: container(b)["resources"]["requests"].update(cpu="1"), "may not be its own"),
    # protocols
    "HTTP/2 in the clear to TLS": (
        lambda b: spec(b, "Service", "inferry-server")["ports"][0].update(appProtocol="http"), "which speaks TLS",
    ),
    # metrics
    "an alert on no metric": (lambda b: rules(b)[0].update(expr="inferry_is_ready == 0"), "metric inferry_is_ready"),
    "an alert on no label": (lambda b: rules(b)[0].update(expr='inferry_ready{model="x"}'), "has no label model"),
    "a scaler on no metric": (
        lambda b: spec(b, "ScaledObject")["triggers"][1]["metadata"].update(query="sum(inferry_queue_ms)"), "queue_ms",
    ),
}  # fmt: skip


def test_there_is_nothing_wrong_before_a_mistake_is_planted(everything: Bundle, facts: ServerFacts) -> None:
    assert faults(everything, facts, versions=VERSIONS[-1:]) == []


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(name: str, everything: Bundle, facts: ServerFacts) -> None:
    change, expected = MISTAKES[name]
    changed = planted(everything, change)
    found = faults(changed, facts, versions=VERSIONS[-1:])
    assert any(expected in fault for fault in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("--repository=/mnt/models", "--repository=/models", "KServe puts models into /mnt/models"),
        ("--drain-timeout-s=15", "--drain-timeout-s=60", "the drain takes 70 s"),
        ("--max-connection-age-s=120", "--max-age=120", "refuses the arguments"),
    ],
)
def test_a_mistake_in_kserves_runtime_is_named(
    old: str, new: str, expected: str, kserve: Bundle, facts: ServerFacts
) -> None:
    changed = Bundle(copy.deepcopy(kserve.objects))
    arguments = spec(changed, "ClusterServingRuntime")["containers"][0]["args"]
    arguments[arguments.index(old)] = new
    assert any(expected in fault for fault in faults(changed, facts, versions=VERSIONS[-1:]))


def test_a_misspelt_field_of_kserves_own_or_of_its_container_is_named(kserve: Bundle, facts: ServerFacts) -> None:
    for change in (
        lambda b: spec(b, "InferenceService")["predictor"].update(minReplica=1),
        lambda b: spec(b, "ClusterServingRuntime").update(supportedFormats=[]),
        lambda b: spec(b, "ClusterServingRuntime")["containers"][0].update(readynessProbe={}),
    ):
        changed = planted(kserve, change)
        assert faults(changed, facts, versions=VERSIONS[-1:])


def test_an_image_volume_is_not_asked_of_versions_that_do_not_know_it(facts: ServerFacts, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    folder = tmp_path / "k8s" / "overlays" / "image"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        "resources: [../../base]\ncomponents: [../../components/models-image]\n"
    )
    bundle = render(folder)
    assert faults(bundle, facts) == []
    pod(bundle)["volumes"][0]["image"]["refrence"] = "x"
    assert faults(bundle, facts, versions=VERSIONS[-1:])


def test_an_overlay_may_have_what_is_not_known_here(everything: Bundle, facts: ServerFacts) -> None:
    """Kinds without a schema are told apart, and the rules go on; shapes that the base does not use are no faults."""
    own = parse(
        """
apiVersion: example.com/v1
kind: Thing
metadata: {name: thing}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: inferry}
spec: {type: ExternalName, externalName: models.example.com}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: expressed, namespace: inferry}
spec:
  maxUnavailable: 1
  selector: {matchExpressions: [{key: app.kubernetes.io/component, operator: Exists}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: range, namespace: inferry}
spec:
  podSelector: {matchLabels: {app.kubernetes.io/component: server}}
  ingress: [{ports: [{port: 8000, endPort: 9000, protocol: TCP}, {protocol: TCP}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: other, namespace: inferry}
spec:
  parentRefs: [{name: shared, namespace: gateways}]
  rules: [{backendRefs: [{name: x, kind: InferencePool, group: inference.networking.k8s.io}]}, {}]
"""
    )
    bundle = Bundle([*everything.objects, *own.objects])
    assert unknown_kinds(bundle, VERSIONS[-1]) == ["Thing thing: no schema is known of example.com/v1/Thing"]
    assert faults(bundle, facts, versions=VERSIONS[-1:]) == []


def test_what_does_not_render_says_why(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(ValueError, match=r"missing\.yaml"):
        render(tmp_path)
    assert parse("---\n---\n").objects == []


@pytest.mark.parametrize(
    "query",
    [
        'sum by (model) (rate(a_total{model=~"x|y", pod="p"}[5m])) / on (model) group_left sum(b)',
        "a_total offset 5m > 0 and b unless absent(a_total)",
        'histogram_quantile(0.99, sum by (le) (rate(c_bucket[1m]))) or a_total{model="{b}"}',
    ],
)
def test_queries_for_what_there_is_are_right(query: str) -> None:
    metrics = {"a_total": frozenset({"model"}), "b": frozenset({"model"}), "c_bucket": frozenset({"le"})}
    assert list(query_faults(query, metrics)) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [("sum(rate(d_total[5m]))", "d_total"), ("sum by (modell) (a)", "modell"), ("1 > 0", "no series"),
     ('a{version!="1"}', "version")],
)  # fmt: skip
def test_queries_for_what_there_is_not_are_named(query: str, expected: str) -> None:
    assert any(expected in fault for fault in query_faults(query, {"a": frozenset({"model"})}))


@pytest.mark.parametrize(("text", "number"), [("512Mi", 512 << 20), ("2Gi", 2 << 30), ("1.5G", 1.5e9), ("7", 7)])
def test_quantities_are_read_as_kubernetes_does(text: str, number: float) -> None:
    assert quantity(text) == number


@pytest.mark.parametrize("text", ["", "Mi", "2 Gi", "2GB", "-1"])
def test_other_texts_are_no_quantities(text: str) -> None:
    with pytest.raises(ValueError, match="expected a quantity"):
        quantity(text)
