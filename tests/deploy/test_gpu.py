"""The GPU images and the component build on the CPU ones, and change only what a GPU needs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from inferry_server.settings.settings import Settings
from inferry_server.settings.sources import read_settings

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
K8S = ROOT / "deploy" / "k8s"
COMPONENT = K8S / "components" / "gpu"


def read(name: str) -> str:
    """A Dockerfile, continued lines joined and comments dropped."""
    lines = [line for line in (DOCKER / name).read_text().splitlines() if not line.lstrip().startswith("#")]
    return re.sub(r"\\\n\s*", "", "\n".join(lines))


def environment(name: str) -> dict[str, str]:
    (variables,) = re.findall(r"^ENV (.*)$", read(name), re.MULTILINE)
    return dict(variable.split("=", 1) for variable in variables.split())


def manifest(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.mark.parametrize(("name", "provider"), [("gpu.Dockerfile", "cuda"), ("tensorrt.Dockerfile", "tensorrt")])
def test_each_image_demands_its_provider(name: str, provider: str) -> None:
    chosen = {key: value for key, value in environment(name).items() if key.startswith("INFERRY_")}
    assert read_settings({}, environment={"INFERRY_REPOSITORY": "/models", **chosen}).provider == provider


def test_the_gpu_image_adds_what_the_lock_says_checked_by_hash_and_is_not_root() -> None:
    text = read("gpu.Dockerfile")
    (install,) = re.findall(r"pip --python .*install.*", text)
    assert "--require-hashes" in install
    assert "source=requirements-cuda.txt" in text
    allowed = (DOCKER / "gpu.Dockerfile.dockerignore").read_text().splitlines()
    assert [line for line in allowed if not line.startswith("#")] == ["*", "!requirements-cuda.txt"]
    (server_user,) = re.findall(r"^USER (.*)$", (DOCKER / "server.Dockerfile").read_text(), re.MULTILINE)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1] == server_user


def test_the_lock_holds_the_onnx_runtime_of_the_server_and_every_library_that_it_needs() -> None:
    def pins(name: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))

    cuda, server = pins("requirements-cuda.txt"), pins("requirements-server.txt")
    assert cuda["onnxruntime-gpu"] == server["onnxruntime-gpu"]
    assert {"nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-cufft", "nvidia-curand"} <= set(cuda)


def test_images_follow_one_another_in_one_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"ARG SERVER_IMAGE=inferry-server:{version}" in read("gpu.Dockerfile")
    assert f"ARG GPU_IMAGE=inferry-server-gpu:{version}" in read("tensorrt.Dockerfile")
    deployment = manifest(K8S / "base" / "deployment.yaml")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    (replaced,) = manifest(COMPONENT / "kustomization.yaml")["images"]
    assert image == f"{replaced['name']}:{version}"


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
