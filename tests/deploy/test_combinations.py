"""Every overlay with every component, every two components and all together render, and nothing is wrong with them."""

import random
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from manifests.bundle import K8S, ROOT, label, render, render_with, takes, write_overlay
from manifests.check import asked_paths, faults
from manifests.facts import ServerFacts
from manifests.layers import leaves
from manifests.planting import POLICY, data
from manifests.schemas import VERSIONS, unknown_kinds
from manifests.together import together

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
OF_SERVERS = ("cpu", "gpu", "dev")  # KServe makes the Deployment of the fourth; `canary` is made on others
README = (ROOT / "deploy" / "README.md").read_text()
TABLE = re.findall(r"^\| `([a-z-]+)` \|", README.split("| component |")[1].split("\n\n")[0], re.MULTILINE)  # in order
ON_OTHERS = ("canary", "jobs-tls", "jobs-tokens")  # for overlays that are applied beside the servers'
COMPONENTS = [one for one in TABLE if one not in ON_OTHERS]
ONE_OF = (("hpa", "keda"), ("models-image", "models-bucket"))  # who scales, and where models come from
REFUSED = {  # with what is said: `dev` is one small server on a disk of its node
    ("dev", "hpa"): "PersistentVolumeClaim inferry-models is ReadWriteOnce, and several pods ask for it",
    ("dev", "gpu"): "it demands a GPU, and its limits",
    ("dev", "keda"): "PersistentVolumeClaim inferry-models is ReadWriteOnce, and several pods ask for it",
}
ASKS = {"gateway-tls": ("tls", "gateway")}  # what a component is of no use without

NEWEST_AND_OLDEST = (VERSIONS[0], VERSIONS[-1])


def complete(components: tuple[str, ...]) -> tuple[str, ...]:
    """With what they ask for, in the table's order; and a gateway that speaks TLS where the servers do."""
    wanted = {*components, *(other for one in components for other in ASKS.get(one, ()))}
    wanted |= {"gateway-tls"} if {"tls", "gateway"} <= wanted else set()
    return tuple(one for one in COMPONENTS if one in wanted)


def fits(components: tuple[str, ...]) -> bool:
    return not any(set(group) <= set(components) for group in ONE_OF)


def chosen() -> list[tuple[str, ...]]:
    """Each component alone; and few combinations, in which any two are together, and each is without any other."""
    found = [complete((one,)) for one in COMPONENTS]
    left = {case for one in candidates(500) for case in cases(one)} - {case for one in found for case in cases(one)}
    while left:
        best = max(candidates(100, seed=len(found)), key=lambda one: len(left & cases(one)))
        found.append(best)
        left -= cases(best)
    return list(dict.fromkeys(found))


def cases(components: tuple[str, ...]) -> set[tuple[str, str, bool]]:
    """Two components that are together, or one that is without the other."""
    return {(one, other, other in components) for one in components for other in COMPONENTS if one != other}


def candidates(count: int, *, seed: int = 0) -> list[tuple[str, ...]]:
    """Combinations by chance, the same in every run."""
    chance = random.Random(seed)
    found = [tuple(one for one in COMPONENTS if chance.random() < 0.6) for _ in range(2 * count)]
    return [complete(one) for one in found if fits(one)] or [complete((COMPONENTS[0],))]


def of_overlays() -> Iterator[tuple[str, str]]:
    """Overlays of servers with each component that they have not."""
    for overlay in OF_SERVERS:
        has = own_components(overlay)
        yield from ((overlay, one) for one in COMPONENTS if one not in has and fits((*has, one)))


def fitting(*, with_canary: bool) -> list[tuple[str, str]]:
    """Those that nothing is wrong with: of `cpu` with a canary of each, and of the others with one of a few."""
    canaries = [("gpu", "tls"), ("dev", "models-image")]
    pairs = [pair for pair in of_overlays() if pair not in REFUSED]
    return [pair for pair in pairs if (pair[0] == "cpu" or pair in canaries) == with_canary]


def own_components(overlay: str) -> tuple[str, ...]:
    text = yaml.safe_load((K8S / "overlays" / overlay / "kustomization.yaml").read_text())
    return tuple(Path(one).name for one in text.get("components", []))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deploy")


def extended(folder: Path, overlay: str, component: str) -> Path:
    """The overlay as somebody copies it, with one more component in its list."""
    made = write_overlay(folder, (component,), resources=(f"overlays/{overlay}",))
    own = yaml.safe_load((folder / "k8s" / "overlays" / overlay / "kustomization.yaml").read_text())
    wanted = complete((*own_components(overlay), component))
    own["components"] = [f"../../components/{one}" for one in wanted]
    policy = POLICY if "tokens" in wanted else ""
    (made / "kustomization.yaml").write_text(yaml.safe_dump(own, sort_keys=False) + policy)
    return made


def test_every_component_is_used_alone_and_with_every_other() -> None:
    assert sorted(TABLE) == sorted(path.name for path in (K8S / "components").iterdir())
    assert {*OF_SERVERS, "kserve", "canary"} == set(OVERLAYS)
    assert {one for group in ONE_OF for one in group} <= set(COMPONENTS)
    together = {case[:2] for one in chosen() for case in cases(one) if case[2]}
    assert {pair for pair in combinations(COMPONENTS, 2) if pair not in together} == set(ONE_OF)
    assert len(chosen()) < 30
    assert len(list(of_overlays())) >= 25


@pytest.mark.parametrize("overlay", [one for one in OVERLAYS if one != "canary"])
def test_an_overlay_has_no_fault_on_any_version_of_kubernetes(overlay: str, facts: ServerFacts) -> None:
    bundle = render(K8S / "overlays" / overlay)
    assert bundle.objects
    assert asked_paths(bundle) <= facts.paths
    assert faults(bundle, facts) == []
    assert unknown_kinds(bundle, VERSIONS[-1]) == []


@pytest.mark.parametrize("components", chosen(), ids="+".join)
def test_components_get_on_with_one_another(components: tuple[str, ...], copy: Path, facts: ServerFacts) -> None:
    made = write_overlay(copy, components, more=POLICY if "tokens" in components else "")
    assert faults(render(made), facts, versions=NEWEST_AND_OLDEST) == []


@pytest.mark.parametrize(("overlay", "component"), REFUSED)
def test_what_does_not_suit_an_overlay_is_named(overlay: str, component: str, copy: Path, facts: ServerFacts) -> None:
    found = faults(render(extended(copy, overlay, component)), facts, versions=VERSIONS[-1:])
    assert any(REFUSED[overlay, component] in fault for fault in found), found


@pytest.mark.parametrize(("overlay", "component"), fitting(with_canary=False))
def test_an_overlay_takes_any_component(overlay: str, component: str, copy: Path, facts: ServerFacts) -> None:
    assert faults(render(extended(copy, overlay, component)), facts, versions=VERSIONS[-1:]) == []


@pytest.mark.parametrize(("overlay", "component"), fitting(with_canary=True))
def test_a_canary_of_an_overlay_with_any_component_shares_what_is_not_its_own(
    overlay: str, component: str, copy: Path, facts: ServerFacts
) -> None:
    made = extended(copy, overlay, component)
    stable = render(made)
    canary = render_with(copy, ("canary",), resources=(f"overlays/{made.name}",))
    both, differing = together([stable, canary])
    assert differing == []
    assert faults(both, facts, versions=VERSIONS[-1:]) == []
    assert len(both.objects) == len(stable.objects) + len(canary.objects)
    kinds = {"Deployment", "ConfigMap", "Service", "PodDisruptionBudget", "BackendTLSPolicy"}
    assert {one["kind"] for one in canary.objects} <= kinds
    assert all("-canary" in one["metadata"]["name"] for one in canary.objects)
    for service in both.every("Service"):
        (template,) = both.selected(service["spec"]["selector"])
        assert service["metadata"]["name"].endswith("-canary") == template.owner.endswith("-canary")


def test_a_canary_takes_no_job_along_and_no_other_program(copy: Path, facts: ServerFacts) -> None:
    jobs = ("jobs/classify", "jobs/load", "jobs/retrain")
    made = write_overlay(copy, ("gateway", "namespace"), resources=("base", *jobs))
    (made / "redis.yaml").write_text(yaml.safe_dump(REDIS))
    own = yaml.safe_load((made / "kustomization.yaml").read_text())
    own["resources"].append("redis.yaml")
    (made / "kustomization.yaml").write_text(yaml.safe_dump(own))
    stable, canary = render(made), render_with(copy, ("canary",), resources=(f"overlays/{made.name}",))
    assert {"inferry-load", "redis"} <= stable.names("Service")
    assert sorted(label(one) for one in canary.objects if one["kind"] != "ConfigMap") == [
        "Deployment inferry-server-canary", "PodDisruptionBudget inferry-server-canary",
        "Service inferry-server-canary", "Service inferry-server-vip-canary",
    ]  # fmt: skip
    both, differing = together([stable, canary])
    assert [*differing, *faults(both, facts, versions=VERSIONS[-1:])] == []


REDIS = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "redis"},
    "spec": {"type": "ExternalName", "externalName": "redis.example.com"},
}  # fmt: skip


def test_a_canary_has_settings_of_its_own_beside_those_of_the_overlay(copy: Path) -> None:
    made = write_overlay(copy, ("models-bucket", "namespace"))
    own = "configMapGenerator: [{name: inferry-server, behavior: merge, literals: [INFERRY_LOG_LEVEL=debug]}]\n"
    canary = render(write_overlay(copy, ("canary",), resources=(f"overlays/{made.name}",), more=own))
    assert data(canary).items() >= {"INFERRY_LOG_LEVEL": "debug", "INFERRY_MODEL_CONTROL": "poll"}.items()
    assert "INFERRY_LOG_LEVEL" not in data(render(made))
    (template,) = canary.templates()
    named = [source["configMapRef"]["name"] for source in template.servers[0]["envFrom"]]
    assert named == [one["metadata"]["name"] for one in canary.every("ConfigMap")]


def test_a_canary_has_one_replica_whoever_scales_the_others(copy: Path) -> None:
    for component in ("hpa", "keda"):
        made = write_overlay(copy, (component,))
        (server,) = render_with(copy, ("canary",), resources=(f"overlays/{made.name}",)).every("Deployment")
        assert server["spec"]["replicas"] == 1


def test_monitors_policies_and_budgets_take_the_canarys_pods(copy: Path) -> None:
    made = write_overlay(copy, ("networkpolicy", "monitoring", "models-bucket"))
    canary = render_with(copy, ("canary",), resources=(f"overlays/{made.name}",))
    both, _ = together([render(made), canary])
    (template,) = canary.templates()
    for kind, field in (
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
        ("PodDisruptionBudget", "selector"),
    ):
        assert [one for one in both.every(kind) if takes(one["spec"][field], template.labels)], kind
    assert len([one for one in both.every("NetworkPolicy") if takes(one["spec"]["podSelector"], template.labels)]) == 2


@pytest.mark.parametrize(
    ("kind", "field"),
    [("NetworkPolicy", "podSelector"), ("PodMonitor", "selector"), ("PodDisruptionBudget", "selector")],
)
def test_a_canary_that_escapes_is_named(kind: str, field: str, copy: Path, facts: ServerFacts) -> None:
    made = write_overlay(copy, ("networkpolicy", "monitoring"))
    both, _ = together([render(made), render_with(copy, ("canary",), resources=(f"overlays/{made.name}",))])
    only = {"app.kubernetes.io/name": "inferry", "app.kubernetes.io/component": "server"}
    both.objects = [
        one for one in both.objects if one["kind"] != kind or not one["metadata"]["name"].endswith("canary")
    ]
    for one in both.every(kind):
        one["spec"][field] = {"matchLabels": only}
    found = faults(both, facts, versions=VERSIONS[-1:])
    assert any(f"Deployment inferry-server-canary: no {kind} takes its pods" in fault for fault in found), found


def test_the_canarys_overlay_and_the_one_of_the_readme_are_none_of_the_stable_pods(
    copy: Path, facts: ServerFacts
) -> None:
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "components/canary" in block]
    (production,) = [
        block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "imagePullSecrets" in block
    ]
    write_overlay(copy, ())
    for name, own in (("production", production), ("canary-of-the-readme", text)):
        folder = copy / "k8s" / "overlays" / name
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(own)
    for stable, canary in (("production", "canary-of-the-readme"), ("cpu", "canary")):
        overlays = copy / "k8s" / "overlays"
        both, differing = together([render(overlays / stable), render(overlays / canary)])
        found = [
            fault for fault in faults(both, facts, versions=NEWEST_AND_OLDEST) if "no Secret registry" not in fault
        ]
        assert [*differing, *found] == []
        assert {"inferry-server-vip", "inferry-server-vip-canary"} <= both.names("Service")
    images = {template.owner: template.servers[0]["image"] for template in render(folder).templates()}
    assert images == {"Deployment inferry-server-canary": "registry.example.com/inferry-server:0.2.0"}


def test_no_component_takes_back_what_another_one_sets(copy: Path) -> None:
    """So their order is of no consequence, but for the namespace, which holds what was there before it."""
    base = leaves(render_with(copy, ()))
    changed = {}
    for component in COMPONENTS:
        own = leaves(render_with(copy, (component,)))
        changed[component] = {path: own.get(path) for path in {*base, *own} if own.get(path) != base.get(path)}
    for one, other in combinations([name for name in COMPONENTS if name != "namespace"], 2):
        if (one, other) not in ONE_OF:
            shared = changed[one].keys() & changed[other].keys()
            assert [path for path in shared if changed[one][path] != changed[other][path]] == [], (one, other)


def test_what_components_after_the_namespace_bring_is_named(copy: Path, facts: ServerFacts) -> None:
    rest = ("priority", "tls", "networkpolicy", "monitoring", "keda", "gateway", "gateway-tls", "models-bucket")
    bundle = render_with(copy, ("namespace", *rest))
    outside = [label(one) for one in bundle.objects if "namespace" not in one["metadata"]]
    found = [fault for fault in faults(bundle, facts, versions=VERSIONS[-1:]) if "states no namespace" in fault]
    assert len(found) >= len(rest)
    clusters_own = {"Namespace inferry", "PriorityClass inferry-serving", "PriorityClass inferry-jobs"}
    assert {fault.partition(":")[0] for fault in found} == set(outside) - clusters_own
