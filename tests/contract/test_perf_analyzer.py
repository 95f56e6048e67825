"""Triton's load generator runs against a real server, in every mode, and believes what it hears.

These are slow: they install perf_analyzer into an environment of its own. `make test-all` runs them.
"""

import ctypes
import os
import platform
import re
import subprocess
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from inferry_server.app import Server
from testkit import onnx_models
from testkit.metrics_page import read_metrics
from testkit.servers import running_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="perf_analyzer comes for x86-64 Linux"
    ),
]

# The last of tritonclient's wheels with the program in it, and what it is linked to.
PACKAGES = ("tritonclient==2.50.0", "nvidia-cuda-runtime-cu12>=12,<13")
INSTALL_TIMEOUT_S, RUN_TIMEOUT_S = 300, 120
# Windows of a second; any throughput counts as stable, since nothing here is about speed.
MEASUREMENT = ("--measurement-interval", "1000", "-s", "1000", "-r", "5", "--concurrency-range", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has perf_analyzer."""
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError:
        pytest.skip("perf_analyzer needs the system library libb64.so.0d (Debian: libb64-0d)")
    made = tmp_path_factory.mktemp("perf_analyzer")
    venv.create(made, with_pip=True)
    install = ("-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES)
    subprocess.run([str(made / "bin" / "python"), *install], check=True, timeout=INSTALL_TIMEOUT_S)
    return made


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    onnx_models.save_brightness(repository)
    onnx_models.save_text_echo(repository)
    with running_server(repository, system_shared_memory=True, transport=transport) as running:
        yield running


def analyze(folder: Path, server: Server, *arguments: str, model: str = "brightness") -> str:
    """What perf_analyzer prints when it is content."""
    libraries = next(folder.rglob("libcudart.so.12")).parent
    command = [str(folder / "bin" / "perf_analyzer"), "-m", model, "-u", str(server.grpc_address), "-i", "grpc"]
    done = subprocess.run(
        [*command, *MEASUREMENT, *arguments],
        env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
        capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def outcomes(server: Server) -> dict[tuple[str, str], float]:
    """How many calls ended how, by method and status."""
    counted = re.compile(r'inferry_requests_outcome_total\{code="(\w+)",method="[^"]*/(\w+)",reason="\w*"\}')
    found = {counted.fullmatch(name): count for name, count in read_metrics(server).items()}
    return {(series[2], series[1]): count for series, count in found.items() if series is not None}


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        ("brightness", []),
        ("brightness", ["--async"]),
        ("brightness", ["--async", "--streaming"]),
        ("brightness", ["-b", "8"]),
        ("brightness", ["--shared-memory", "system"]),
        ("brightness", ["--shared-memory", "system", "--async", "--streaming", "-b", "8"]),
        ("echo", ["--shared-memory", "system"]),
    ],
    ids=lambda value: " ".join(value) or "unary" if isinstance(value, list) else value,
)
def test_perf_analyzer_is_content(folder: Path, server: Server, model: str, arguments: list[str]) -> None:
    before = outcomes(server)
    printed = analyze(folder, server, *arguments, model=model)
    throughput = re.search(r"Throughput: ([\d.]+) infer/sec", printed)
    assert throughput is not None
    assert float(throughput[1]) > 0
    counted = re.search(r"Inference count: (\d+)", printed)  # from the server's statistics
    assert counted is not None
    assert int(counted[1]) > 0
    after = outcomes(server)
    calls = {outcome: after[outcome] - before.get(outcome, 0) for outcome in after}
    assert not {outcome for outcome, count in calls.items() if count and outcome[1] != "OK"}
    assert (calls.get(("SystemSharedMemoryRegister", "OK"), 0) > 0) == ("--shared-memory" in arguments)
