"""The programs in examples/ do what they say."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit import brightness_model
from testkit.onnx_models import save_brightness
from testkit.servers import running_server

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    repository = tmp_path_factory.mktemp("models")
    save_brightness(repository, name="mnist", side=8)
    with running_server(repository) as server:
        yield str(server.grpc_address)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(6):
        (folder / f"{number}.png").write_bytes(brightness_model.picture(255 * (number % 2)))
    return folder


def run(name: str, *arguments: object, address: str, status: int = 0) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"INFERRY_SERVER": address, "PATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout


def test_pictures_are_classified_in_ten_lines(address: str, pictures: Path) -> None:
    assert "1.png  bright  9" in run("classify.py", "mnist", pictures / "1.png", pictures / "2.png", address=address)
    assert len((EXAMPLES / "classify.py").read_text().strip().splitlines()) <= 10


def test_a_folder_is_classified_at_the_same_time(address: str, pictures: Path) -> None:
    assert run("fan_out.py", "mnist", pictures, address=address).split() == ["3", "dark", "3", "bright"]


def test_pictures_of_a_folder_are_classified_as_they_come(address: str, pictures: Path) -> None:
    lines = run("stream_folder.py", "mnist", pictures, 6, address=address).splitlines()
    assert lines == [f"{number}  {('dark', 'bright')[number % 2]}" for number in range(6)]


def test_tritons_client_speaks_to_the_server(address: str) -> None:
    assert run("with_tritonclient.py", "mnist", 4, address=address).count("[") == 1


def test_a_batch_job_goes_on_where_it_was(address: str, pictures: Path, tmp_path: Path) -> None:
    for _ in ("begun", "complete"):
        lines = run("batch_job.py", "mnist", pictures, tmp_path / "out", address=address).splitlines()
        assert sorted(lines[-2:]) == ["3  bright", "3  dark"]


@pytest.mark.parametrize(("p99_ms", "status"), [(60_000, 0), (0.001, 1)])
def test_a_load_test_says_whether_the_objective_was_held(address: str, p99_ms: float, status: int) -> None:
    assert "right answers/s" in run("load_test.py", "mnist", 2, p99_ms, address=address, status=status)


@pytest.mark.slow
def test_a_keras_model_of_ones_own_is_published_and_served(pictures: Path, tmp_path: Path) -> None:
    run("own_model.py", tmp_path / "models", address="")
    with running_server(tmp_path / "models") as server:
        lines = run(
            "classify.py", "brightness", pictures / "0.png", pictures / "1.png", address=str(server.grpc_address)
        )
    assert [line.split()[1] for line in lines.splitlines()] == ["dark", "bright"]


@pytest.mark.slow
def test_node_speaks_to_the_server_with_our_proto_file(address: str, pictures: Path, tmp_path: Path) -> None:
    node, npm = shutil.which("node"), shutil.which("npm")
    if not (node and npm):
        pytest.skip("Node.js (node and npm) is not installed")
    folder = shutil.copytree(EXAMPLES / "node", tmp_path / "node", ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=120, capture_output=True)
    environment = os.environ | {"INFERRY_SERVER": address, "INFERRY_PROTO": str(EXAMPLES.parent / "proto")}

    def ask(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [node, "classify.js", *map(str, arguments)]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    done = ask("mnist", pictures / "1.png", pictures / "2.png")
    assert "1.png  bright  9" in done.stdout, done.stderr
    assert "2.png  dark  9" in done.stdout
    refused = ask("cats", pictures / "1.png")
    assert refused.returncode == 1
    assert refused.stderr.startswith("NOT_FOUND: ")


def test_every_example_is_listed() -> None:
    text = (EXAMPLES / "README.md").read_text()
    assert all(f"[{path.name}]({path.name})" in text for path in EXAMPLES.glob("*.py"))
    assert "(node/classify.js)" in text
