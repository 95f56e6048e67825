"""The check of manifests names what only a cluster would show: policies, scalers and disks that hold pods back."""

import copy
from pathlib import Path

import pytest

from manifests.bundle import K8S, Bundle, Manifest, parse, render, render_with
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.planting import container, data, spec
from manifests.rules_scaling import volume_faults
from manifests.schemas import VERSIONS


@pytest.mark.parametrize(
    "egress",
    [
        [{}],
        [{"ports": [{"port": 4317}, {"port": 53, "protocol": "UDP"}]}],
        [{"ports": [{"port": 4000, "endPort": 5000}]}, {"ports": [{"protocol": "UDP"}]}],
        [{"ports": [{"port": "otlp"}]}, {"ports": [{"port": "dns", "protocol": "UDP"}]}],
    ],
)
def test_a_policy_that_lets_the_server_reach_what_it_calls_is_right(
    egress: list[Manifest], everything: Bundle, facts: ServerFacts
) -> None:
    bundle = Bundle(copy.deepcopy(everything.objects))
    data(bundle).update(INFERRY_TRACE_ENDPOINT="http://collector.monitoring:4317")
    spec(bundle, "NetworkPolicy").update(egress=egress)
    assert faults(bundle, facts, versions=VERSIONS[-1:]) == []


CPU = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ({"type": "Resource", "resource": CPU}, "the mean over the containers ['server', 'sync']"),
        ({"type": "ContainerResource", "containerResource": {**CPU, "container": "web"}}, "no container web"),
        ({"type": "ContainerResource", "containerResource": {**CPU, "container": "server", "name": "nvidia.com/gpu"}},
         "no cluster measures the resource nvidia.com/gpu"),
        ({"type": "Pods", "pods": {"metric": {"name": "inferry_queue_ms"}, "target": CPU["target"]}}, "queue_ms"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_scaler_beside_another_container_is_named(
    metric: Manifest, expected: str, facts: ServerFacts, tmp_path: Path
) -> None:
    bundle = render_with(tmp_path, ("hpa", "models-bucket"))
    assert faults(bundle, facts, versions=VERSIONS[-1:]) == []
    spec(bundle, "HorizontalPodAutoscaler").update(metrics=[metric])
    assert any(expected in fault for fault in faults(bundle, facts, versions=VERSIONS[-1:]))


def test_a_scaler_of_a_share_of_what_is_not_requested_is_named(facts: ServerFacts, tmp_path: Path) -> None:
    bundle = render_with(tmp_path, ("hpa",))
    for amounts in container(bundle)["resources"].values():
        amounts.pop("cpu")
    assert any("requests no cpu" in fault for fault in faults(bundle, facts, versions=VERSIONS[-1:]))


@pytest.mark.parametrize(
    ("parallelism", "modes", "wrong"),
    [(4, ["ReadWriteOnce"], True), (1, ["ReadWriteOncePod"], False), (4, ["ReadWriteOnce", "ReadOnlyMany"], False)],
)
def test_a_disk_of_one_node_is_enough_for_one_pod(parallelism: int, modes: list[str], wrong: bool) -> None:
    bundle = render(K8S / "jobs" / "classify")
    spec(bundle, "Job", "inferry-classify").update(parallelism=parallelism)
    spec(bundle, "PersistentVolumeClaim", "inferry-pictures").update(accessModes=modes)
    assert bool(list(volume_faults(bundle))) == wrong


def test_a_job_that_may_not_look_up_the_servers_is_named(facts: ServerFacts) -> None:
    """A policy that holds back everything, as namespaces often begin with."""
    (deny,) = parse(
        """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"""
    ).objects
    bundle = Bundle([*render(K8S / "base").objects, *render(K8S / "jobs" / "classify").objects, deny])
    found = [fault for fault in faults(bundle, facts, versions=VERSIONS[-1:]) if "Job inferry-classify" in fault]
    assert len(found) == 2
    assert "calls grpc://inferry-server:8001, and no NetworkPolicy lets it reach port 8001" in found[0]
    assert "lets it ask DNS" in found[1]


def test_a_copy_from_a_bucket_that_may_not_look_up_names_is_named(facts: ServerFacts, tmp_path: Path) -> None:
    bundle = render_with(tmp_path, ("models-bucket",))
    spec(bundle, "NetworkPolicy")["egress"] = [{"ports": [{"port": 443}]}]
    assert any(
        "s3://example-models/repository by name" in fault for fault in faults(bundle, facts, versions=VERSIONS[-1:])
    )
