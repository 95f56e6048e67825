"""Every overlay, every component, every two of them and all together render, and nothing is wrong with them."""

import re
import shutil
from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path

import pytest

from manifests.bundle import K8S, ROOT, Bundle, label, render, render_with
from manifests.check import asked_paths, faults
from manifests.facts import ServerFacts
from manifests.schemas import VERSIONS, unknown_kinds

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
README = (ROOT / "deploy" / "README.md").read_text()
COMPONENTS = re.findall(
    r"^\| `([a-z-]+)` \|", README.split("| component |")[1].split("\n\n")[0], re.MULTILINE
)  # in order
ONE_OF = (("hpa", "keda"), ("models-image", "models-bucket"))  # who scales, and where models come from

NEWEST_AND_OLDEST = (VERSIONS[0], VERSIONS[-1])


def chosen() -> Iterator[tuple[str, ...]]:
    """The combinations: few enough for every run, and any two that do not get on are among them."""
    yield from ((one,) for one in COMPONENTS)
    yield from (pair for pair in combinations(COMPONENTS, 2) if pair not in ONE_OF)
    others = {one for group in ONE_OF for one in group}
    for picked in product(*ONE_OF):
        yield tuple(one for one in COMPONENTS if one in picked or one not in others)


@pytest.fixture(scope="module")
def k8s(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "k8s"
    shutil.copytree(K8S, folder)
    return folder


def test_every_component_is_used_alone_and_with_every_other() -> None:
    assert sorted(COMPONENTS) == sorted(path.name for path in (K8S / "components").iterdir())
    assert len(COMPONENTS) >= 11
    assert {one for group in ONE_OF for one in group} <= set(COMPONENTS)
    pairs = len(COMPONENTS) * (len(COMPONENTS) - 1) // 2 - len(ONE_OF)
    assert len(list(chosen())) == len(COMPONENTS) + pairs + 4


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_no_fault_on_any_version_of_kubernetes(overlay: str, facts: ServerFacts) -> None:
    bundle = render(K8S / "overlays" / overlay)
    assert bundle.objects
    assert asked_paths(bundle) <= facts.paths
    assert faults(bundle, facts) == []
    assert unknown_kinds(bundle, VERSIONS[-1]) == []


@pytest.mark.parametrize("components", list(chosen()), ids="+".join)
def test_components_get_on_with_one_another(components: tuple[str, ...], k8s: Path, facts: ServerFacts) -> None:
    folder = k8s / "overlays" / "-".join(components)
    folder.mkdir(exist_ok=True)
    listed = "\n".join(f"  - ../../components/{one}" for one in components)
    (folder / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        f"resources:\n  - ../../base\ncomponents:\n{listed}\n"
    )
    assert faults(render(folder), facts, versions=NEWEST_AND_OLDEST) == []


def test_a_canary_as_the_readme_has_it_is_none_of_the_stable_pods(k8s: Path, facts: ServerFacts) -> None:
    (overlay,) = [block for block in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL) if "-canary" in block]
    folder = k8s / "overlays" / "canary-of-the-readme"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(overlay)
    stable, canary = render(K8S / "base"), render(folder)
    both = Bundle([*stable.objects, *canary.objects])
    assert faults(both, facts, versions=NEWEST_AND_OLDEST) == []
    for service in both.every("Service", "PodDisruptionBudget"):
        selector = service["spec"]["selector"]
        (template,) = both.selected(selector.get("matchLabels", selector))
        assert service["metadata"]["name"].endswith("-canary") == template.owner.endswith("-canary")
    assert {"inferry-server-vip", "inferry-server-vip-canary"} <= both.names("Service")


def test_what_components_after_the_namespace_bring_is_named(k8s: Path, facts: ServerFacts) -> None:
    rest = ("priority", "tls", "networkpolicy", "monitoring", "keda", "gateway", "models-bucket")
    bundle = render_with(k8s.parent, ("namespace", *rest))
    outside = [label(one) for one in bundle.objects if "namespace" not in one["metadata"]]
    found = [fault for fault in faults(bundle, facts, versions=VERSIONS[-1:]) if "states no namespace" in fault]
    assert len(found) >= len(rest)
    clusters_own = {"Namespace inferry", "PriorityClass inferry-serving", "PriorityClass inferry-jobs"}
    assert {fault.partition(":")[0] for fault in found} == set(outside) - clusters_own
