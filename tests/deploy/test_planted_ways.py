"""The check of manifests finds what it is to look at, or fails: ways in, files, scalers, budgets, KServe's runtimes."""

import copy
from typing import Any

import pytest

from manifests.bundle import K8S, Bundle, Manifest, parse, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.planting import Change, container, data, one, pod, rules, spec
from manifests.rules_times import hook_seconds
from manifests.schemas import VERSIONS


@pytest.fixture(scope="module")
def kserve() -> Bundle:
    return render(K8S / "overlays" / "kserve")


def wrong(bundle: Bundle, change: Change, facts: ServerFacts) -> list[str]:
    planted = Bundle(copy.deepcopy(bundle.objects))
    change(planted)
    return faults(planted, facts, versions=VERSIONS[-1:])


def file_setting(name: str, path: str, **volume: Any) -> Change:
    """A setting that names a file, and a volume at /own."""

    def change(bundle: Bundle) -> None:
        data(bundle)[f"INFERRY_{name}"] = path
        if volume:
            pod(bundle)["volumes"].append({"name": "own", **volume})
            container(bundle)["volumeMounts"].append({"name": "own", "mountPath": "/own", "readOnly": True})

    return change


def models(bundle: Bundle) -> Manifest:
    return next(volume for volume in pod(bundle)["volumes"] if volume["name"] == "models")


def also(api: str, kind: str, namespace: str = "inferry", **fields: Any) -> Change:
    """One more object."""
    metadata = {"name": "own", "namespace": namespace}
    return lambda b: b.objects.append({"apiVersion": api, "kind": kind, "metadata": metadata, **fields})


def hook(**action: Any) -> Change:
    return lambda b: container(b).update(lifecycle={"preStop": action})


def service_port(place: int, **changed: Any) -> Change:
    return lambda b: spec(b, "Service", "inferry-server-vip")["ports"][place].update(changed)


def budget(**changed: Any) -> Change:
    def change(bundle: Bundle) -> None:
        spec(bundle, "PodDisruptionBudget").pop("maxUnavailable")
        spec(bundle, "PodDisruptionBudget").update(changed)

    return change


def query(text: str) -> Change:
    return lambda b: spec(b, "ScaledObject")["triggers"][0]["metadata"].update(query=text)


MISTAKES: dict[str, tuple[Change, str]] = {
    # servers that are not found
    "a server under two names that nobody knows": (
        lambda b: container(b).update(name="serving", image="registry.test/ml/serving:1"),
        "none of its containers ['serving'] is known for the server",
    ),
    "a command that is another's": (
        lambda b: container(b).update(command=["sh", "-c", "inferry-serve"]), "expected none, or inferry-serve",
    ),
    "a setting from nowhere": (
        lambda b: container(b).update(
            env=[{"name": "INFERRY_LOG_LEVEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        ), "INFERRY_LOG_LEVEL comes from fieldRef",
    ),
    "settings with a prefix that makes them others": (
        lambda b: container(b)["envFrom"][0].update(prefix="INFERRY_"), "INFERRY_INFERRY_",
    ),
    # files
    "a policy where nothing is": (file_setting("ACCESS_POLICY", "/own/policy.toml"), "nothing is mounted there"),
    "a key beside a mount": (
        file_setting("MODEL_KEY", "/owned/key.pem", secret={"secretName": "own", "optional": True}),
        "model_key is /owned/key.pem, and nothing is mounted there",
    ),
    "a key in a folder that stays empty": (file_setting("MODEL_KEY", "/own/key.pem", emptyDir={}), "no other cont"),
    "a key that is the folder": (
        file_setting("MODEL_KEY", "/own", secret={"secretName": "own", "optional": True}), "that is the folder",
    ),
    "a key under another path": (
        file_setting("MODEL_KEY", "/own/key.pem",
                     secret={"secretName": "own", "optional": True, "items": [{"key": "k", "path": "model.pem"}]}),
        "the volume own there has model.pem",
    ),
    "a file that the certificate's Secret has not": (
        lambda b: data(b).update(INFERRY_TLS_CLIENT_CA="/tls/clients.crt"), "has ca.crt, tls.crt, tls.key",
    ),
    "models in a folder that stays empty": (
        lambda b: (models(b).pop("persistentVolumeClaim"), models(b).update(emptyDir={})), "is an emptyDir",
    ),
    # ways in
    "a port of gRPC that leads to HTTP": (service_port(0, targetPort="http"), "the port grpc leads to 8002"),
    "HTTP/1.1 before a port of another name": (service_port(0, name="rpc", appProtocol="http"), "which speaks TLS"),
    "a monitor of the wrong port": (
        lambda b: spec(b, "PodMonitor")["podMetricsEndpoints"][0].update(port="grpc"), "metrics are asked of port 8001",
    ),
    "a monitor of no path": (
        lambda b: spec(b, "PodMonitor")["podMetricsEndpoints"][0].update(path="/metricz"), "asked at /metricz, which",
    ),
    "annotations of the wrong port": (
        lambda b: spec(b, "Deployment")["template"]["metadata"].update(
            annotations={"prometheus.io/scrape": "true", "prometheus.io/port": "8001"}
        ), "annotations: metrics are asked of port 8001",
    ),
    "a policy that lets nobody in to gRPC": (
        lambda b: spec(b, "NetworkPolicy")["ingress"][0]["ports"][0].update(port="http"), "nobody is let in to gRPC",
    ),
    "a policy that lets nobody in to metrics": (
        lambda b: spec(b, "NetworkPolicy")["ingress"].pop(), "nobody is let in to metrics on port 8002",
    ),
    "a certificate without the name of a Service": (
        lambda b: spec(b, "Certificate", "inferry-server")["dnsNames"].remove("inferry-server-vip"),
        "it lacks the name inferry-server-vip",
    ),
    "a probe of another host": (
        lambda b: container(b)["readinessProbe"]["httpGet"].update(host="example.com"), "asks the host example.com",
    ),
    # selectors
    "a Deployment that takes another's pods": (
        lambda b: b.objects.append({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "other", "namespace": "inferry", "labels": dict(
                spec(b, "Deployment")["template"]["metadata"]["labels"])},
            "spec": copy.deepcopy(pod(b)),
        }), "takes the pods of Pod other too",
    ),
    "a spread of no pods": (
        lambda b: pod(b)["topologySpreadConstraints"][0].pop("labelSelector"), "has no labelSelector",
    ),
    "a Service without a selector": (lambda b: spec(b, "Service").pop("selector"), "nothing here keeps its endpoints"),
    "a selector that is expressed wrongly": (
        lambda b: spec(b, "PodDisruptionBudget").update(
            selector={"matchExpressions": [{"key": "app", "operator": "In", "values": ["x"]}]}
        ), "no pod has the labels",
    ),
    # names
    "an object that is there twice": (
        lambda b: b.objects.append(copy.deepcopy(one(b, "Service"))), "it is there twice",
    ),
    "a Service with a dot": (lambda b: one(b, "Service")["metadata"].update(name="a.b"), "its name has 3 characters"),
    "a label with a space": (
        lambda b: spec(b, "Deployment")["template"]["metadata"]["labels"].update(team="a b"), "the label team: 'a b'",
    ),
    "a kind that is none": (lambda b: one(b, "PodDisruptionBudget").update(kind="PodDisruptionBudjet"), "has no Pod"),
    "a version that is none": (lambda b: one(b, "Service").update(apiVersion="v2"), "has no Service of v2"),
    "an object without a kind": (lambda b: one(b, "Service").pop("kind"), "an object has no kind"),
    "a namespace that nobody makes": (lambda b: one(b, "Namespace")["metadata"].update(name="infery"), "namespaces"),
    "a policy of another word": (lambda b: spec(b, "NetworkPolicy").update(policyTypes=["Ingres"]), "policyTypes is"),
    "a Service of another type": (lambda b: spec(b, "Service", "inferry-server-vip").update(type="Cluster"), "type is"),
    "a standard that is none": (
        lambda b: one(b, "Namespace")["metadata"]["labels"].update({"pod-security.kubernetes.io/enforce": "strict"}),
        "enforce is strict",
    ),
    "a claim without a size": (lambda b: spec(b, "PersistentVolumeClaim").pop("resources"), "requests.storage"),
    "a claim in no unit": (
        lambda b: spec(b, "PersistentVolumeClaim")["resources"]["requests"].update(storage="5GB"), "storage is 5GB",
    ),
    "a budget of nothing": (budget(), "expected either minAvailable or maxUnavailable"),
    "a scaler of another version": (
        lambda b: spec(b, "ScaledObject")["scaleTargetRef"].update(apiVersion="apps/v2"), "is of apps/v2",
    ),
    "a path that tells no health": (
        lambda b: container(b)["livenessProbe"]["httpGet"].update(path="/metrics"), "tells nothing of health",
    ),
    # numbers of pods
    "a budget of no number": (budget(minAvailable="abc"), "minAvailable is 'abc': expected a number"),
    "a budget of all pods": (budget(minAvailable=2), "no node that has one could ever be drained"),
    "a budget of every percent": (budget(minAvailable="51%"), "no node that has one could ever be drained"),
    "a budget that allows nothing": (budget(maxUnavailable=0), "could ever be drained"),
    "a budget that protects nothing": (budget(maxUnavailable="100%"), "all could be put out at once"),
    "more at least than at most": (
        lambda b: spec(b, "ScaledObject").update(minReplicaCount=11), "at least 11 pods and at most 10",
    ),
    "a scaler by others' pods": (query('sum(inferry_busy_seconds_total{pod=~"inferry-servr-.*"})'), "which is none of"),
    "a scaler by another container": (
        query('sum(process_cpu_seconds_total{container="serve"})'), "asks for the container serve",
    ),
    "a roll-out that never ends": (
        lambda b: spec(b, "Deployment").update(
            strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}
        ), "no pod could ever be exchanged",
    ),
    # times
    "a sleep in a shell": (hook(exec={"command": ["sh", "-c", "sleep 20"]}), "the drain takes 60 s"),
    "a hook of its own": (hook(exec={"command": ["/bin/bye"]}), "nobody knows how long the preStop hook exec takes"),
    # GPUs
    "a GPU for the image without CUDA": (
        lambda b: [amounts.update({"nvidia.com/gpu": "1"}) for amounts in container(b)["resources"].values()],
        "it has a GPU and leaves it idle",
    ),
    "the image for GPUs without one": (
        lambda b: container(b).update(image="inferry-server-gpu:0.1.0"), "it demands a GPU",
    ),
    # security
    "the node's network": (lambda b: pod(b).update(hostNetwork=True), "hostNetwork is true"),
    "a port of the node": (lambda b: container(b)["ports"][0].update(hostPort=8001), "takes the node's port 8001"),
    "every privilege": (lambda b: container(b)["securityContext"].update(privileged=True), "privileged is True"),
    "an image that changes": (lambda b: container(b).update(image="r.test/inferry-server:latest"), "no tag of a"),
    # routes
    "weights of nothing": (
        lambda b: spec(b, "GRPCRoute")["rules"][0]["backendRefs"][0].update(weight=0), "all weights of a rule are 0",
    ),
    "a backend twice": (
        lambda b: spec(b, "GRPCRoute")["rules"][0]["backendRefs"].append(
            spec(b, "GRPCRoute")["rules"][0]["backendRefs"][0]
        ), "names a backend twice",
    ),
    "rules of alerts without a rule": (lambda b: spec(b, "PrometheusRule").update(groups=[]), "it has no rules"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_named(name: str, everything: Bundle, facts: ServerFacts) -> None:
    change, expected = MISTAKES[name]
    found = wrong(everything, change, facts)
    assert any(expected in fault for fault in found), found


RIGHT: dict[str, Change] = {
    "a key in a Secret": file_setting("MODEL_KEY", "/own/key.pem", secret={"secretName": "own", "optional": True}),
    "a key under the path that the Secret gives it": file_setting(
        "MODEL_KEY", "/own/key.pem",
        secret={"secretName": "own", "optional": True, "items": [{"key": "k", "path": "key.pem"}]},
    ),
    "a key beside the models": file_setting("MODEL_KEY", "/models/key.pem"),
    "a file of the image": file_setting("MODEL_KEY", "/etc/ssl/certs/ca-certificates.crt"),
    "the server's command": lambda b: container(b).update(command=["inferry-serve", "--log-level=debug"]),
    "a short sleep": lambda b: (hook(sleep={"seconds": 5})(b), pod(b).update(terminationGracePeriodSeconds=50)),
    "one more than half": budget(minAvailable="50%"),
    "settings of its own": lambda b: container(b).update(env=[{"name": "INFERRY_LOG_LEVEL", "value": "debug"}]),
    "requests left to Kubernetes": lambda b: container(b)["resources"].pop("requests"),
    "a tag and a digest": lambda b: container(b).update(image="r.test/inferry-server:1@sha256:" + "0" * 64),
}  # fmt: skip
RIGHT |= {
    "nodes by a number": lambda b: pod(b).update(affinity={"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}]
        }}}),
    "labels and annotations of one's own": lambda b: (
        one(b, "Service")["metadata"]["labels"].update(protocol="grpc"),
        spec(b, "Deployment")["template"]["metadata"]["annotations"].update(scheme="blue"),
    ),
    "a ConfigMap of one's own": also("v1", "ConfigMap", data={"protocol": "grpc", "restartPolicy": "on"}),
    "limits of a namespace": also(
        "v1", "LimitRange", spec={"limits": [{"type": "Container", "max": {"memory": "8Gi"}}]}
    ),
    "an object of the cluster's own namespace": also(
        "rbac.authorization.k8s.io/v1", "RoleBinding", "kube-system",
        roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "x"},
    ),
    "words of a mesh": also(
        "networking.istio.io/v1", "ServiceEntry", spec={"ports": [{"number": 443, "name": "a", "protocol": "HTTP2"}]}
    ),
    "alerts on what others count": lambda b: rules(b).append({
        "alert": "Few", "expr": 'kube_deployment_status_replicas_available{deployment="a"} < 1 or up{job="b"} == 0',
    }),
    "the same amounts in other units": lambda b: container(b).update(
        resources={"limits": {"cpu": 2, "memory": "2Gi"}, "requests": {"cpu": "2000m", "memory": "2048Mi"}}
    ),
    "amounts with exponents": lambda b: [one.update(memory="4e9") for one in container(b)["resources"].values()],
    "thousandths that are whole cores": lambda b: [
        one.update(cpu="2000m") for one in container(b)["resources"].values()
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_has_no_fault(name: str, everything: Bundle, facts: ServerFacts) -> None:
    assert wrong(everything, RIGHT[name], facts) == []


def runtime(bundle: Bundle) -> Manifest:
    return spec(bundle, "ClusterServingRuntime")


def predictor(bundle: Bundle) -> Manifest:
    found: Manifest = spec(bundle, "InferenceService")["predictor"]
    return found


def alone_with(*arguments: str) -> Change:
    """The runtime without an InferenceService."""

    def change(bundle: Bundle) -> None:
        bundle.objects.remove(one(bundle, "InferenceService"))
        runtime(bundle)["containers"][0]["args"] += arguments

    return change


KSERVES: dict[str, tuple[Change, str]] = {
    "a misspelt container": (
        lambda b: runtime(b)["containers"][0].update(name="kserve-contianer"), "takes the container kserve-container",
    ),
    "a misspelt container of an own image": (
        lambda b: runtime(b)["containers"][0].update(name="kserve-contianer", image="r.test/ml/serving:1"),
        "none of its containers ['kserve-contianer'] is known for the server",
    ),
    "an own image and a short grace": (
        lambda b: (
            runtime(b)["containers"][0].update(image="r.test/ml/serving:1"),
            predictor(b).update(terminationGracePeriodSeconds=20),
        ), "terminationGracePeriodSeconds is 20; the drain takes 25 s",
    ),
    "a misspelt runtime": (lambda b: predictor(b)["model"].update(runtime="infery"), "it names the runtime infery"),
    "a short grace": (lambda b: predictor(b).update(terminationGracePeriodSeconds=10), "the drain takes 25 s"),
    "a drain that no default grace has room for": (alone_with("--drain-timeout-s=60"),
                                                   "terminationGracePeriodSeconds is 30; the drain takes 70 s"),
    "an argument of the service's own": (
        lambda b: predictor(b)["model"].update(args=["--drain-timeout-s=40"]), "InferenceService digits",
    ),
    "an unknown argument of the service's own": (
        lambda b: predictor(b)["model"].update(args=["--drain-timeout=40"]), "refuses the arguments",
    ),
    "another format": (lambda b: predictor(b)["model"]["modelFormat"].update(name="keras"), "takes the model format"),
    "another protocol": (lambda b: predictor(b)["model"].update(protocolVersion="v1"), "it asks for the protocol v1"),
    "no runtime that is chosen by itself": (lambda b: predictor(b)["model"].pop("runtime"), "takes the model format"),
    "more at least than at most": (lambda b: predictor(b).update(minReplicas=11), "at least 11 pods and at most 10"),
}  # fmt: skip


@pytest.mark.parametrize("name", KSERVES)
def test_a_mistake_of_kserves_is_named(name: str, kserve: Bundle, facts: ServerFacts) -> None:
    change, expected = KSERVES[name]
    found = wrong(kserve, change, facts)
    assert any(expected in fault for fault in found), found


def test_a_runtime_alone_has_kubernetes_default_grace(kserve: Bundle, facts: ServerFacts) -> None:
    assert wrong(kserve, alone_with(), facts) == []


def test_objects_without_a_pod_are_nothing_that_could_be_checked(facts: ServerFacts) -> None:
    (found,) = faults(parse("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}"), facts)
    assert found.startswith("there is no pod among these objects")


@pytest.mark.parametrize(
    ("action", "seconds"),
    [
        ({"sleep": {"seconds": 3}}, 3),
        ({"exec": {"command": ["sleep", "5"]}}, 5),
        ({"exec": {"command": ["sh", "-c", "sleep 1.5 && sleep 1m"]}}, 61.5),
        ({"exec": {"command": ["sh", "-c", "curl localhost"]}}, None),
        ({"httpGet": {"port": 8002}}, None),
    ],
)
def test_the_time_of_a_hook_is_read_where_it_is_written(action: Manifest, seconds: float | None) -> None:
    assert hook_seconds(action) == seconds
