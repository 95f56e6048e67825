"""The server's Dockerfile agrees with the repository and with the manifests; building it needs a container engine."""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import yaml

from inferry_server.addresses import parse_address
from inferry_server.settings.sources import read_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "server.Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def arguments(instruction: str) -> list[str]:
    return [rest for word, rest in instructions() if word == instruction]


def environment() -> dict[str, str]:
    (variables,) = arguments("ENV")
    return dict(variable.split("=", 1) for variable in variables.split())


def copied_from_the_repository() -> list[str]:
    copies = [rest.split() for rest in arguments("COPY") if not rest.startswith("--from=")]
    return [source for *sources, _ in copies for source in sources]


def test_copied_paths_exist() -> None:
    missing = [source for source in copied_from_the_repository() if not (ROOT / source).exists()]
    assert not missing


def test_dockerignore_lets_exactly_the_copied_paths_in() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    allowed = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    assert allowed == set(copied_from_the_repository())


def test_every_package_root_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    roots = set(project["tool"]["setuptools"]["packages"]["find"]["where"])
    files = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert roots | files <= set(copied_from_the_repository())


def test_entrypoint_is_a_declared_script_in_exec_form() -> None:
    (entrypoint,) = arguments("ENTRYPOINT")
    (script,) = json.loads(entrypoint)
    assert script in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_base_image_is_pinned_to_a_patch_release_that_the_project_supports() -> None:
    (image,) = arguments("ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.1[123]\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", image)
    assert {stage.split()[0] for stage in arguments("FROM")} == {"${PYTHON_IMAGE}"}


def test_everything_from_an_index_is_checked_by_hash() -> None:
    installs = [
        part for run in arguments("RUN") for part in run.split("&&") if re.search(r"\bpip\b.*\b(install|wheel)\b", part)
    ]
    assert len(installs) == 4
    for install in installs:
        assert "--require-hashes" in install or "--no-index" in install
    assert any("--requirement requirements-server.txt" in install for install in installs)


def test_build_backend_is_taken_whole_from_the_development_lock() -> None:
    (program,) = re.findall(r"awk '([^']+)'", DOCKERFILE.read_text())
    taken = subprocess.run(
        ["awk", program, str(ROOT / "requirements-dev.txt")], capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^[a-z][^ ]*", taken, re.MULTILINE) == re.findall(r"^setuptools==[^ ]+", taken)
    assert "--hash=sha256:" in taken


def test_user_is_the_numeric_one_that_kubernetes_expects() -> None:
    pod = yaml.safe_load((ROOT / "deploy/k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert arguments("USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert context["runAsUser"] > 0


def test_image_alone_starts_a_reachable_server() -> None:
    settings = read_settings({}, environment=environment())
    assert str(settings.repository) == "/models"
    grpc_address = parse_address(str(settings.grpc_address))
    assert {grpc_address.host, settings.http_address.host} == {"0.0.0.0"}
    assert arguments("EXPOSE") == [f"{grpc_address.port} {settings.http_address.port}"]
    assert settings.provider == "cpu"


def test_output_is_unbuffered_and_nothing_is_written_beside_the_code() -> None:
    assert environment()["PYTHONUNBUFFERED"] == "1"
    assert environment()["PYTHONDONTWRITEBYTECODE"] == "1"


def test_nothing_is_reported_to_the_makers_of_onnx_runtime() -> None:
    assert environment()["ORT_DISABLE_TELEMETRY"] == "1"


def test_sigterm_stops_the_server_and_health_is_left_to_grpc() -> None:
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert not arguments("HEALTHCHECK")
