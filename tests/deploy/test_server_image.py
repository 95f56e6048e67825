"""The Dockerfile agrees with the repository and with the manifests; `test_image_build.py` builds it."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from inferry_server.settings.settings import Settings
from inferry_server.settings.sources import read_settings
from testkit import onnx_models
from testkit.servers import running_server

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
IMAGES = {"server": "inferry-serve", "server-gpu": "inferry-serve", "clients": "inferry", "trainer": "inferry-train"}
PROVIDERS = {"server": "auto", "server-gpu": "cuda", "server-tensorrt": "tensorrt"}


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """What each stage begins with, and its own instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = (base, [])
        elif found:
            list(found.values())[-1][1].append((word, rest))
    return found


def arguments(stage: str, instruction: str) -> list[str]:
    """Of a stage and what it is built on, the nearest first."""
    known, found = stages(), []
    while stage in known:
        base, own = known[stage]
        found += [rest for word, rest in reversed(own) if word == instruction]
        stage = base
    return found


def environment(stage: str) -> dict[str, str]:
    variables: dict[str, str] = {}
    for line in reversed(arguments(stage, "ENV")):
        variables |= dict(variable.split("=", 1) for variable in line.split())
    return variables


def settings(stage: str) -> Settings:
    chosen = {key: value for key, value in environment(stage).items() if key.startswith("INFERRY_")}
    return read_settings({}, environment=chosen)


def copied_from_the_repository() -> set[str]:
    copies = [rest.split() for word, rest in instructions() if word == "COPY" and not rest.startswith("--from=")]
    return {source for *sources, _ in copies for source in sources}


def installs() -> Sequence[str]:
    runs = [rest for word, rest in instructions() if word == "RUN"]
    return [part for run in runs for part in run.split("&&") if re.search(r"\bpip\b.*\b(install|wheel)\b", part)]


def test_every_image_is_there_and_the_plain_build_is_the_server() -> None:
    assert {*IMAGES, "server-tensorrt"} <= set(stages())
    assert list(stages())[-1] == "server"


def test_copied_paths_exist_and_dockerignore_lets_exactly_them_in() -> None:
    assert [source for source in copied_from_the_repository() if not (ROOT / source).exists()] == []
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert patterns[0] == "*"
    assert {
        pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")
    } == copied_from_the_repository()


def test_every_package_root_is_in_some_image_and_a_server_has_no_trainer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    roots = set(project["tool"]["setuptools"]["packages"]["find"]["where"])
    files = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert roots | files <= copied_from_the_repository()
    assert {rest.split()[0] for rest in arguments("server-wheel", "COPY")} & roots == {"proto", "server"}


@pytest.mark.parametrize(("image", "script"), IMAGES.items())
def test_entrypoint_is_a_declared_script_in_exec_form_that_the_image_keeps(image: str, script: str) -> None:
    (entrypoint,) = arguments(image, "ENTRYPOINT")
    assert json.loads(entrypoint) == [script]
    assert script in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    removed = [rest for rest in arguments(f"{image}-environment", "RUN") if "&& rm " in rest]
    assert removed
    assert not any(f"/bin/{script} " in f"{rest} " for rest in removed)


def test_base_image_is_pinned_to_a_patch_release_that_the_project_supports() -> None:
    images = [rest for word, rest in instructions() if word == "ARG"]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.1[123]\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", images[0])
    outside = {base for base, _ in stages().values()} - set(stages())
    assert outside == {"${PYTHON_IMAGE}", "${TENSORRT_IMAGE}"}


@pytest.mark.parametrize(
    ("image", "pinned", "code", "told"),
    [
        ("python:3.12.14-slim-trixie", "false", 0, True),
        ("python:3.12.14-slim-trixie", "true", 1, True),
        ("python:3.12.14-slim-trixie@sha256:" + "0" * 64, "false", 0, False),
        ("registry.example.com:5000/python@sha256:" + "0" * 64, "true", 0, False),
    ],
)
def test_a_build_says_when_its_base_may_be_moved_and_ends_where_that_is_forbidden(
    image: str, pinned: str, code: int, told: bool
) -> None:
    (program,) = arguments("base", "RUN")
    done = subprocess.run(
        ["sh", "-c", program], env={"PYTHON_IMAGE": image, "PINNED": pinned}, capture_output=True, text=True
    )
    assert (done.returncode, bool(done.stderr)) == (code, told)
    assert image in done.stderr or not told


@pytest.mark.parametrize("image", [*IMAGES, "server-tensorrt"])
def test_an_image_names_the_base_that_it_was_built_on(image: str) -> None:
    assert 'org.opencontainers.image.base.name="${PYTHON_IMAGE}"' in arguments(image, "LABEL")
    assert arguments(image, "ARG").count("PYTHON_IMAGE") == 1


def test_everything_from_an_index_is_checked_by_hash() -> None:
    assert len(installs()) >= 10
    for install in installs():
        assert "--require-hashes" in install or "--no-index" in install


@pytest.mark.parametrize(
    ("stage", "locks"),
    [
        ("server-environment", {"requirements-server-cpu.txt"}),
        ("server-gpu-environment", {"requirements-server.txt", "requirements-cuda.txt"}),
        ("clients-environment", {"requirements-clients.txt"}),
        ("trainer-environment", {"requirements.txt"}),
    ],
)
def test_each_environment_is_made_from_its_lock(stage: str, locks: set[str]) -> None:
    asked = {lock for rest in arguments(stage, "RUN") for lock in re.findall(r"--requirement (\S+)", rest)}
    assert asked == locks


def test_an_image_has_one_onnx_runtime_and_the_cpu_one_no_cuda() -> None:
    pins = {
        name: set(re.findall(r"^([a-z0-9-]+)==", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-server-cpu.txt", "requirements-clients.txt")
    }
    assert "onnxruntime" in pins["requirements-server-cpu.txt"]
    assert not {name for name in pins["requirements-server-cpu.txt"] if name.startswith(("nvidia", "onnxruntime-gpu"))}
    assert not {"onnxruntime", "onnxruntime-gpu", "tensorflow"} & pins["requirements-clients.txt"]


def test_what_builds_wheels_is_as_in_development_and_compiles_for_any_cpu_of_a_kind() -> None:
    pins = {
        name: dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements-compile.txt", "requirements-dev.txt")
    }
    build, development = pins.values()
    assert {"mypy", "setuptools", "ziglang"} <= build.keys()
    assert {name: pin for name, pin in build.items() if name != "ziglang"}.items() <= development.items()
    assert "ziglang cc -mcpu=baseline" in DOCKERFILE.read_text()  # else for the CPU that builds the image


@pytest.mark.parametrize("image", [*IMAGES, "server-tensorrt"])
def test_user_is_the_numeric_one_that_kubernetes_expects(image: str) -> None:
    pod = yaml.safe_load((ROOT / "deploy/k8s/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert arguments(image, "USER") == [f"{context['runAsUser']}:{context['runAsGroup']}"]
    assert context["runAsUser"] > 0


@pytest.mark.parametrize(("image", "provider"), PROVIDERS.items())
def test_a_server_image_alone_starts_a_reachable_server_that_demands_its_provider(image: str, provider: str) -> None:
    chosen = settings(image)
    assert str(chosen.repository) == "/models"
    assert chosen.provider == provider
    grpc_port, http_port = (str(address).rpartition(":")[2] for address in (chosen.grpc_address, chosen.http_address))
    assert {str(each).partition(":")[0] for each in (chosen.grpc_address, chosen.http_address)} == {"0.0.0.0"}
    assert arguments(image, "EXPOSE") == [f"{grpc_port} {http_port}"]


@pytest.mark.parametrize("image", IMAGES)
def test_output_is_unbuffered_nothing_is_written_beside_the_code_and_nothing_is_reported(image: str) -> None:
    variables = environment(image)
    assert variables["PYTHONUNBUFFERED"] == variables["PYTHONDONTWRITEBYTECODE"] == "1"
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"


def test_the_health_check_tells_a_ready_server_from_one_that_is_not(tmp_path: Path) -> None:
    (check,) = [rest for word, rest in stages()["serving"][1] if word == "HEALTHCHECK"]
    program = json.loads(check.partition("CMD ")[2])
    assert program[0] == "python"
    onnx_models.save_doubler(tmp_path)
    with running_server(tmp_path) as server:
        variables = {"INFERRY_HTTP_ADDRESS": f"0.0.0.0:{server.http_address.port}" if server.http_address else ""}

        def status() -> int:
            return subprocess.run([sys.executable, *program[1:]], env=variables, capture_output=True).returncode

        assert status() == 0
        server.readiness.report_fault("the device is lost")
        assert status() == 1
    assert status() == 1


@pytest.mark.parametrize("image", IMAGES)
def test_a_wheel_of_ours_has_the_time_that_the_build_is_given(image: str) -> None:
    stage = "server-wheel" if image.startswith("server") else f"{image}-wheel"
    assert "SOURCE_DATE_EPOCH" in arguments(stage, "ARG")


def test_sigterm_stops_the_server() -> None:
    assert arguments("server", "STOPSIGNAL") == ["SIGTERM"]


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), DOCKERFILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
