"""The Helm chart renders what kustomize does, with each component and all; every value does something."""

import json
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from chart.emit import emit
from chart.generate import BY_HAND, CHART, chart_files
from chart.helm import RefusedError, run_helm, template
from chart.nodes import ABSENT, Choice, Splice, weave
from chart.source import CONDITIONS, ELSEWHERE, keyed, with_policy
from chart.values import VALUES, Value
from manifests.bundle import K8S, Bundle, Manifest, render
from manifests.check import faults
from manifests.facts import ServerFacts
from manifests.rules_names import name_faults
from manifests.schemas import VERSIONS, unknown_kinds

CHOSEN: dict[str, dict[str, Any]] = {
    "gpu": {"gpu.enabled": True},
    "priority": {"priority.enabled": True},
    "tls": {"tls.enabled": True},
    "tokens": {"tokens.enabled": True},
    "networkpolicy": {"networkPolicy.enabled": True},
    "monitoring": {"monitoring.enabled": True},
    "hpa": {"autoscaling.kind": "hpa"},
    "keda": {"autoscaling.kind": "keda"},
    "gateway": {"gateway.enabled": True},
    "gateway-tls": {"tls.enabled": True, "gateway.enabled": True},
    "models-image": {"models.from": "image", "models.image.reference": "registry.example.com/inferry-models:1"},
    "models-bucket": {"models.from": "bucket", "models.bucket.url": "s3://example-models/repository"},
}
IMPLIED = {"gateway-tls": ("tls", "gateway")}  # by what the values of a component say
ONE_OF = (("hpa", "keda"), ("models-image", "models-bucket"))
OWN_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")


def combinations() -> Iterator[tuple[str, ...]]:
    yield ()
    yield from ((*IMPLIED.get(one, ()), one) for one in CONDITIONS)
    rest = [one for one in CONDITIONS if not any(one in group for group in ONE_OF)]
    for picked in product(*ONE_OF):
        yield tuple(one for one in CONDITIONS if one in (*rest, *picked))


def comparable(tree: Any) -> Any:
    """Without what each of the two says of itself, and without the order of containers, volumes and mounts."""
    match tree:
        case dict():
            own = {key: comparable(value) for key, value in tree.items() if key not in OWN_LABELS}
            own.pop("checksum/settings", None)
            own.pop("helm.sh/resource-policy", None)
            return {key: value for key, value in own.items() if value != {} or key == "podSelector"}
        case list():
            return sorted((comparable(one) for one in tree), key=lambda one: json.dumps(one, sort_keys=True))
        case _:
            return tree


def objects(bundle: Bundle) -> dict[str, Manifest]:
    found: dict[str, Manifest] = {}
    for name, one in keyed(bundle).items():
        own = comparable(one)
        own["metadata"].pop("labels", None)  # `test_every_object_says_whose_it_is` asks for them
        found[name] = own
    return found


@pytest.fixture(scope="module")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deploy")


def values_of(components: Sequence[str]) -> dict[str, Any]:
    return {path: value for one in components for path, value in CHOSEN[one].items()}


def test_every_component_is_in_the_chart_or_is_helms_own() -> None:
    assert {*CONDITIONS, *ELSEWHERE} == {path.name for path in (K8S / "components").iterdir()}
    assert CHOSEN.keys() == CONDITIONS.keys()


def test_the_chart_is_made_of_the_manifests_as_they_are() -> None:
    """If this fails: `make chart`."""
    made = chart_files()
    there = {str(path.relative_to(CHART)): path.read_text() for path in CHART.rglob("*") if path.is_file()}
    assert {name: text for name, text in there.items() if name not in BY_HAND} == made
    assert set(BY_HAND) <= set(there)


@pytest.mark.parametrize("components", list(combinations()), ids="+".join)
def test_the_chart_renders_what_kustomize_renders(components: tuple[str, ...], k8s: Path, facts: ServerFacts) -> None:
    rendered = template(values_of(components))
    assert objects(rendered) == objects(render(with_policy(k8s, components)))
    assert faults(rendered, facts, versions=(VERSIONS[0], VERSIONS[-1])) == []
    assert unknown_kinds(rendered, VERSIONS[-1]) == []


OUTSIDE = {  # values that name what is in the cluster already, with what the check says as it does not see it
    "models.claim.name": "there is no PersistentVolumeClaim shared",
    "priority.className": "there is no PriorityClass high",
    "tls.secretName": "there is no Secret own-tls, nor a Certificate that makes it",
    "imagePullSecrets": "there is no Secret registry, nor a Certificate that makes it",
    "tokens.secretName": "there is no Secret own-policy, nor a Certificate that makes it",
    "gateway.canary.service": "there is no Service next-inferry-server-vip",
    "gateway.canary.weight": "there is no Service next-inferry-server-vip",
}


@pytest.mark.parametrize("value", VALUES, ids=lambda one: one.path)
def test_every_value_changes_what_is_rendered_and_nothing_is_wrong(value: Value, facts: ServerFacts) -> None:
    alone = value.path == "models.from"  # its neighbour, a bucket, is refused without it
    before, after = template({} if alone else value.beside), template({**value.beside, value.path: value.example})
    assert before.objects != after.objects
    found = faults(after, facts, versions=VERSIONS[-1:])
    assert [one for one in found if not one.endswith(OUTSIDE.get(value.path, "\n"))] == []
    assert len(found) == (value.path in OUTSIDE)


def test_two_releases_in_one_namespace_have_nothing_in_common(facts: ServerFacts) -> None:
    everything = values_of(("tls", "networkpolicy", "monitoring", "keda", "gateway"))
    one, two = template(everything, release="inferry"), template(everything, release="next")
    assert not {(a["kind"], a["metadata"]["name"]) for a in one.objects} & {
        (b["kind"], b["metadata"]["name"]) for b in two.objects
    }
    both = Bundle([*one.objects, *two.objects])
    assert faults(both, facts, versions=VERSIONS[-1:]) == []
    for service in both.every("Service"):
        (owner,) = both.selected(service["spec"]["selector"])
        assert owner.owner.removeprefix("Deployment ") == service["metadata"]["name"].removesuffix("-vip")


def test_a_second_release_is_a_canary_that_gets_its_part(facts: ServerFacts) -> None:
    stable = {"gateway.enabled": True, "gateway.canary.service": "next-inferry-server-vip", "gateway.canary.weight": 10}
    both = Bundle([*template(stable).objects, *template({"replicas": 1}, release="next").objects])
    assert faults(both, facts, versions=VERSIONS[-1:]) == []
    (rule,) = both.every("GRPCRoute")[0]["spec"]["rules"]
    assert {one["name"]: one["weight"] for one in rule["backendRefs"]} == {
        "inferry-server-vip": 90, "next-inferry-server-vip": 10,
    }  # fmt: skip


def test_a_canary_with_tls_tells_the_gateway_of_the_other_release(facts: ServerFacts) -> None:
    stable = {"gateway.enabled": True, "gateway.canary.service": "next-inferry-server-vip", "tls.enabled": True}
    first = template(stable).objects
    alone = {"replicas": 1, "tls.enabled": True}
    found = faults(Bundle([*first, *template(alone, release="next").objects]), facts, versions=VERSIONS[-1:])
    assert any("Service next-inferry-server-vip speak TLS, and no BackendTLSPolicy says so" in one for one in found)
    told = template({**alone, "gateway.ofAnotherRelease": True}, release="next")
    assert faults(Bundle([*first, *told.objects]), facts, versions=VERSIONS[-1:]) == []
    assert told.names("BackendTLSPolicy") == {"next-inferry-server"}
    assert not told.every("Gateway", "GRPCRoute")


def test_names_follow_release_and_namespace() -> None:
    rendered = template(values_of(("tls", "keda")), release="r" * 53, namespace="vision")
    assert all(len(one["metadata"]["name"]) <= 63 for one in rendered.objects)
    names = rendered.every("Certificate")[-1]["spec"]["dnsNames"]
    server = rendered.every("Deployment")[0]["metadata"]["name"]
    assert f"{server}.vision.svc" in names
    queries = [one["metadata"]["query"] for one in rendered.every("ScaledObject")[0]["spec"]["triggers"]]
    assert all('namespace="vision"' in one and f'pod=~"{server}-' in one for one in queries)


RELEASES = (  # any two of them might have come to the same names
    "inferry", "x", "x-inferry", "x.y", "x-y", "1st", "inferry-1st", "inferry-server", "inferry-server-vip", "0",
    "a.b.c", "vision-production-models-of-europe-west-1-blue", "vision-production-models-of-europe-west-1-green",
    "r" * 53, "r" * 52 + "1", "inferry." + "1" * 45, "inferry-" + "1" * 45,
)  # fmt: skip


def test_releases_of_any_name_are_valid_and_have_nothing_in_common(facts: ServerFacts) -> None:
    values = values_of(("priority", "tls", "keda", "gateway"))
    rendered = [template(values, release=one) for one in RELEASES]
    together = Bundle([one for bundle in rendered for one in bundle.objects])
    assert list(name_faults(together)) == []  # names that are there twice are named
    assert faults(together, facts, versions=VERSIONS[-1:]) == []


@pytest.mark.parametrize("release", ["Upper", "under_score", "r" * 54, "x-", "x..y", "x y"])
def test_a_name_that_no_release_may_have_is_refused(release: str) -> None:
    with pytest.raises(RefusedError, match="name"):
        template({}, release=release)


@pytest.mark.parametrize("name", ["a.b", "1st", "a" * 41, "A", "a-"])
def test_a_name_that_no_service_may_have_is_refused(name: str) -> None:
    with pytest.raises(RefusedError, match="fullnameOverride"):
        template({"fullnameOverride": name})


def test_every_object_says_whose_it_is() -> None:
    for one in template(values_of(("monitoring", "networkpolicy", "hpa", "gateway"))).objects:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/instance"] == "inferry"


@pytest.mark.parametrize(
    ("settings", "variable", "text"),
    [
        ({"max_queue_bytes": 268435456}, "MAX_QUEUE_BYTES", "268435456"),
        ({"max_total_queue_bytes": 1 << 40}, "MAX_TOTAL_QUEUE_BYTES", "1099511627776"),
        ({"latency_objective_ms": 0.25}, "LATENCY_OBJECTIVE_MS", "0.25"),
        ({"cuda_graphs": True}, "CUDA_GRAPHS", "true"),
        ({"log_level": "debug"}, "LOG_LEVEL", "debug"),
    ],
)
def test_settings_keep_their_digits(settings: dict[str, Any], variable: str, text: str) -> None:
    data = template({"settings": settings}).every("ConfigMap")[0]["data"]
    assert data[f"INFERRY_{variable}"] == text


def test_a_changed_setting_is_a_rolling_update() -> None:
    def annotations(values: dict[str, Any]) -> Any:
        return template(values).every("Deployment")[0]["spec"]["template"]["metadata"]["annotations"]

    assert annotations({}) == annotations({"replicas": 5}) != annotations({"settings.log_level": "debug"})


@pytest.mark.parametrize("seconds", [0.5, 45, 600])
def test_grace_and_liveness_follow_the_drain(seconds: float, facts: ServerFacts) -> None:
    rendered = template({"settings.drain_timeout_s": seconds, "settings.drain_delay_s": 7.5})
    assert faults(rendered, facts, versions=VERSIONS[-1:]) == []


def test_helms_own_linter_finds_nothing() -> None:
    assert "0 chart(s) failed" in run_helm("lint", str(CHART), "--strict")


def test_a_difference_in_a_list_without_names_is_told_whole() -> None:
    woven = weave({"a": [1, 2]}, [("x", {"a": [1, 3]}), ("y", {"a": [1, 2]})])
    assert woven == {"a": Choice((("x", [1, 3]),), [1, 2])}
    assert weave({"a": 1}, [("x", {}), ("y", {"a": 2})]) == {"a": Choice((("y", 2), ("x", ABSENT)), 1)}


def test_what_would_render_as_no_yaml_is_refused_when_the_chart_is_made() -> None:
    for tree in ({"a": {"b": Choice((("x", 1),))}}, {"a": [Splice("x")]}, {"a": [{"b": Choice((("x", 1),))}]}):
        with pytest.raises(ValueError, match="conditional"):
            emit(tree)
