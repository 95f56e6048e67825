"""A component that takes back what an overlay says is named, until a patch says which is meant."""

from pathlib import Path

import pytest

from manifests.__main__ import main
from manifests.bundle import K8S, render, write_overlay
from manifests.layers import override_faults


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


SETTING = """
configMapGenerator:
  - name: inferry-server
    behavior: merge
    literals: [INFERRY_MODEL_CONTROL=explicit]
"""
REPLICAS = "replicas: [{name: inferry-server, count: 5}]\n"
PATCH = """
patches:
  - target: {kind: ConfigMap}
    patch: |-
      - {op: replace, path: /data/INFERRY_MODEL_CONTROL, value: CHOSEN}
"""
MEMORY = """
patches:
  - target: {kind: Deployment}
    patch: |-
      - {op: replace, path: /spec/template/spec/containers/0/resources/limits/memory, value: 16Gi}
      - {op: replace, path: /spec/template/spec/containers/0/resources/requests/memory, value: 16Gi}
"""
PROVIDER = """
patches:
  - target: {kind: Deployment}
    patch: |-
      - op: add
        path: /spec/template/spec/containers/0/env
        value: [{name: INFERRY_LOG_LEVEL, value: debug}]
      - op: add
        path: /spec/template/spec/containers/0/args
        value: [--max-batch-size=64]
"""


def layered(folder: Path, below: str, component: str, above: str = "") -> Path:
    """An overlay that says something, and one on it that adds a component."""
    lower = write_overlay(folder, (), more=below)
    lower = lower.rename(lower.with_name("production"))
    return write_overlay(folder, (component,), resources=("overlays/production",), more=above)


@pytest.mark.parametrize(
    ("below", "component", "expected"),
    [
        (SETTING, "models-bucket", "makes poll of ConfigMap inferry-server, data/INFERRY_MODEL_CONTROL"),
        (MEMORY, "gpu", "makes 8Gi of Deployment inferry-server"),
        ("namespace: vision\n", "namespace", "metadata/namespace, which was set to vision before"),
    ],
)
def test_a_component_that_takes_back_a_layers_word_is_named(
    below: str, component: str, expected: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = layered(folder, below, component)
    assert [fault for fault in override_faults(made) if expected in fault], override_faults(made)
    assert main([str(made)]) == 1
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize("component", ["debug", "batch"])
def test_variables_and_arguments_are_among_them(component: str, folder: Path) -> None:
    made = layered(folder, PROVIDER, "monitoring")
    own = folder / "k8s" / "components" / component
    own.mkdir()
    changed = {
        "debug": "env: [{name: INFERRY_LOG_LEVEL, value: info}]",
        "batch": "args: [--max-batch-size=8]",
    }[component]
    (own / "kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches:\n"
        "  - target: {kind: Deployment}\n    patch: |-\n"
        "      apiVersion: apps/v1\n      kind: Deployment\n      metadata: {name: inferry-server}\n"
        f"      spec: {{template: {{spec: {{containers: [{{name: server, {changed}}}]}}}}}}\n"
    )
    assert override_faults(made) == []
    made = write_overlay(folder, (component,), resources=("overlays/production",))
    (fault,) = override_faults(made)
    assert ("INFERRY_LOG_LEVEL/value" if component == "debug" else "containers/server/args") in fault


def test_a_setting_of_the_components_own_overlay_is_taken_back_too(folder: Path) -> None:
    made = write_overlay(folder, ("models-bucket",), more=SETTING)
    (fault,) = override_faults(made)
    assert "makes poll of ConfigMap inferry-server, data/INFERRY_MODEL_CONTROL, which was set to explicit" in fault
    assert render(made).every("ConfigMap")[0]["data"]["INFERRY_MODEL_CONTROL"] == "poll"  # this is what kustomize does


@pytest.mark.parametrize("chosen", ["explicit", "poll"])
def test_a_patch_that_says_which_is_meant_is_right(chosen: str, folder: Path) -> None:
    made = write_overlay(folder, ("models-bucket",), more=SETTING + PATCH.replace("CHOSEN", chosen))
    assert override_faults(made) == []
    assert render(made).every("ConfigMap")[0]["data"]["INFERRY_MODEL_CONTROL"] == chosen


def test_a_setting_that_agrees_with_the_component_is_right(folder: Path) -> None:
    assert override_faults(layered(folder, SETTING, "models-bucket", SETTING.replace("explicit", "poll"))) == []


OLDER = {
    "patchesStrategicMerge": "[own.yaml]",
    "patchesJson6902": "[{target: {version: v1, kind: ConfigMap, name: x}, path: own.yaml}]",
}


@pytest.mark.parametrize("kind", OLDER)
def test_patches_of_the_older_kinds_say_it_too(kind: str, folder: Path) -> None:
    made = write_overlay(folder, ("models-bucket",), more=f"{SETTING}{kind}: {OLDER[kind]}\n")
    (made / "own.yaml").write_text("data: {INFERRY_MODEL_CONTROL: explicit}\n")
    assert override_faults(made) == []


def test_settings_from_files_are_settings(folder: Path) -> None:
    made = write_overlay(folder, ("models-bucket",), more=SETTING.replace("literals: [", "envs: [more.env] # "))
    (made / "more.env").write_text("INFERRY_MODEL_CONTROL=explicit\n")
    assert len(override_faults(made)) == 1


def test_layers_below_are_asked_too(folder: Path) -> None:
    made = layered(folder, SETTING, "models-bucket")
    top = write_overlay(folder, ("priority",), resources=(f"overlays/{made.name}",))
    assert len(override_faults(top)) == 1


def test_components_that_only_add_are_right(folder: Path) -> None:
    for component in ("tls", "hpa", "canary", "models-image"):
        made = layered(folder / component, SETTING + MEMORY + REPLICAS, component)
        assert override_faults(made) == [], component


@pytest.mark.parametrize("overlay", sorted(path.name for path in (K8S / "overlays").iterdir()))
def test_the_shipped_overlays_say_all_that_they_mean(overlay: str) -> None:
    assert override_faults(K8S / "overlays" / overlay) == []
