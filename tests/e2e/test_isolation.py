"""The built wheel, each extra alone in a fresh environment: what it needs is there, and nothing else.

These are slow: they install every lock anew. `make test-all` runs them.
"""

import json
import re
import subprocess
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from testkit import onnx_models
from testkit.wheels import build_wheel

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
ENVIRONMENTS_TIMEOUT_S = 900


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment."""

    folder: Path

    def run(self, program: str, *arguments: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "bin" / program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd="/")

    def succeed(self, program: str, *arguments: object, timeout_s: float = 120) -> str:
        done = self.run(program, *arguments, timeout_s=timeout_s)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def has(self, module: str) -> bool:
        return self.run("python", "-c", f"import {module}").returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("source"))[0]


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Environment]:
    """Makes an environment with one extra, or gives the one it made before."""
    constraints = tmp_path_factory.mktemp("locks") / "constraints.txt"
    constraints.write_text(without_hashes((ROOT / "requirements.txt").read_text()))
    made: dict[str, Environment] = {}

    def make(extra: str) -> Environment:
        if extra not in made:
            environment = Environment(tmp_path_factory.mktemp(extra))
            venv.create(environment.folder, with_pip=True)
            requirement = f"inferry[{extra}] @ {wheel.as_uri()}"
            environment.succeed(
                "pip", "install", "--quiet", "--constraint", constraints, requirement, timeout_s=ENVIRONMENTS_TIMEOUT_S
            )
            made[extra] = environment
        return made[extra]

    return make


def without_hashes(lock: str) -> str:
    """Pins alone: with hashes pip would ask for the wheel's too."""
    return re.sub(r"\s*\\\n\s+--hash=\S+", "", lock)


@contextmanager
def serving(environment: Environment, repository: Path) -> Iterator[str]:
    """The server of an environment; its gRPC address."""
    command = [environment.folder / "bin" / "inferry-serve", "--repository", repository, "--provider", "cpu"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True, cwd="/") as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split("gRPC ")[1].split(",")[0]
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_the_wheel_carries_stubs_contracts_and_types_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = ("inferry_proto", "inferry_trainer", "inferry_server", "inferry_client")
    assert {f"{package}/py.typed" for package in packages} <= names
    for contract in ("open_inference", "model_config", "classifier", "manifest"):
        assert {f"inferry_proto/{contract}{end}" for end in (".proto", "_pb2.py", "_pb2.pyi")} <= names
    page = ROOT / "server" / "inferry_server" / "http" / "page"
    assert {f"inferry_server/http/page/{file.name}" for file in page.iterdir()} <= names
    assert {name.partition("/")[0] for name in names if "dist-info" not in name} == set(packages)


def test_a_client_has_neither_tensorflow_nor_onnx_runtime(install: Callable[[str], Environment]) -> None:
    client = install("client")
    assert "classify" in client.succeed("inferry", "--help")
    assert client.has("inferry_client.client")
    assert not any(client.has(module) for module in ("tensorflow", "onnxruntime", "keras", "pyarrow", "locust"))


@pytest.mark.parametrize(
    ("program", "arguments", "extra"),
    [
        ("inferry-serve", ["--repository", "/"], "server"),
        ("inferry-train", ["run", "digits", "--out", "/nowhere"], "train"),
        ("inferry", ["batch", "/tmp", "--model", "m", "--out", "/nowhere"], "batch"),  # noqa: S108
        ("inferry", ["load", "--model", "m"], "load"),
    ],
)
def test_a_program_without_its_extra_says_in_one_line_what_to_install(
    install: Callable[[str], Environment], program: str, arguments: list[str], extra: str
) -> None:
    done = install("client").run(program, *arguments)
    assert done.returncode == 1
    assert f"pip install '.[{extra}]' in a checkout of Inferry" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_server_client_batch_and_load_work_together_each_from_its_own_extra(
    install: Callable[[str], Environment], tmp_path: Path
) -> None:
    server = install("server")
    assert "--repository" in server.succeed("inferry-serve", "--help")
    assert not any(server.has(module) for module in ("tensorflow", "keras", "onnx", "tf2onnx", "pyarrow", "locust"))
    onnx_models.save_brightness(tmp_path / "models")
    (tmp_path / "pictures").mkdir()
    for level in (10, 200):
        Image.fromarray(np.full((9, 9), level, np.uint8)).save(tmp_path / "pictures" / f"{level}.png")
    assert not server.has("opentelemetry")
    to_collector = ("--repository", tmp_path / "models", "--trace-endpoint", "http://127.0.0.1:4317")
    refused = server.run("inferry-serve", *to_collector)
    assert refused.returncode == 1
    assert "pip install '.[server,tracing]' in a checkout of Inferry" in refused.stderr
    with serving(server, tmp_path / "models") as address:
        to_server = ("--server", address)
        assert "brightness" in install("client").succeed("inferry", "models", *to_server)
        picture = tmp_path / "pictures" / "10.png"
        assert install("client").succeed("inferry", "classify", picture, *to_server) == "dark  96.08 %\n"
        batch = install("batch")
        assert not batch.has("onnxruntime")
        batch.succeed("inferry", "batch", tmp_path / "pictures", "--out", tmp_path / "out", *to_server)
        assert list((tmp_path / "out").glob("*.parquet"))
        load = install("load")
        assert not load.has("onnxruntime")
        report = tmp_path / "load.json"
        load.succeed("inferry", "load", "--users", 4, "--duration", "2s", "--json", report, *to_server)
        assert json.loads(report.read_text())["failures"] == 0


def test_the_trainer_trains_and_publishes_without_grpc(install: Callable[[str], Environment], tmp_path: Path) -> None:
    trainer = install("train")
    assert not any(trainer.has(module) for module in ("prometheus_client", "locust"))
    run, models = tmp_path / "run", tmp_path / "models"
    trainer.succeed("inferry-train", "run", "digits", "--epochs", 1, "--out", run, timeout_s=600)
    trainer.succeed("inferry-train", "export", run, "--repository", models, timeout_s=600)
    with serving(install("server"), models) as address:
        assert "digits" in install("client").succeed("inferry", "models", "--server", address)
