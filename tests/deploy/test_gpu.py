"""The GPU images and the component build on the CPU ones, and change only what a GPU needs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferry_server.settings.settings import Settings
from inferry_server.settings.sources import read_settings
from manifests.bundle import render
from manifests.planting import container, data
from manifests.rules_devices import device_faults

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy" / "k8s"
COMPONENT = K8S / "components" / "gpu"


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_the_lock_holds_the_onnx_runtime_of_the_server_and_every_library_that_it_needs() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))

    cuda, server = pins("requirements-cuda.txt"), pins("requirements-server.txt")
    assert cuda["onnxruntime-gpu"] == server["onnxruntime-gpu"]
    assert {"nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cufft", "nvidia-curand"} <= set(cuda)


def test_the_component_takes_the_gpu_image_of_the_same_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    deployment = manifest(K8S / "base" / "deployment.yaml")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    (replaced,) = manifest(COMPONENT / "kustomization.yaml")["images"]
    assert image == f"{replaced['name']}:{version}"
    assert replaced["newName"] == "inferry-server-gpu"


def test_the_component_asks_for_one_whole_gpu_and_never_for_a_spare_one() -> None:
    spec = manifest(COMPONENT / "deployment.yaml")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    base = manifest(K8S / "base" / "deployment.yaml")
    assert container["name"] in {one["name"] for one in base["spec"]["template"]["spec"]["containers"]}
    assert base["metadata"]["name"] == manifest(COMPONENT / "deployment.yaml")["metadata"]["name"]


def test_the_components_settings_are_settings() -> None:
    (generator,) = manifest(COMPONENT / "kustomization.yaml")["configMapGenerator"]
    chosen = dict(line.split("=", 1) for line in generator["literals"])
    settings: Settings = read_settings({}, environment={"INFERRY_REPOSITORY": "/models", **chosen})
    assert settings.self_check_interval_s == 60
    assert generator["behavior"] == "merge"


def test_the_overlay_joins_what_is_there() -> None:
    overlay = K8S / "overlays" / "gpu"
    joined = manifest(overlay / "kustomization.yaml")
    for path in joined["resources"] + joined["components"]:
        assert (overlay / path / "kustomization.yaml").is_file()


@pytest.mark.parametrize(
    ("limits", "wrong"),
    [
        ({"nvidia.com/gpu": "1"}, False),
        ({"nvidia.com/mig-1g.10gb": "1"}, False),
        ({"amd.com/gpu": "1"}, True),
        ({}, True),
    ],
)
def test_a_server_that_demands_a_gpu_and_asks_for_none_is_named(limits: dict[str, str], wrong: bool) -> None:
    bundle = render(K8S / "overlays" / "gpu")
    resources = container(bundle)["resources"]
    for kind in resources:
        resources[kind] = {"cpu": "2", "memory": "8Gi", **limits}
    assert bool(list(device_faults(bundle))) == wrong


def test_a_provider_that_is_set_demands_a_gpu_whatever_the_image() -> None:
    bundle = render(K8S / "base")
    assert list(device_faults(bundle)) == []
    data(bundle).update(INFERRY_PROVIDER="cuda")
    assert len(list(device_faults(bundle))) == 1
