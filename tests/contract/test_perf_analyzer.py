"""Triton's load generator runs against a real server, in every mode, and believes what it hears.

These are slow: they install perf_analyzer into an environment of its own, the benchmark's. `make test-all` runs them.
"""

import platform
import re
import subprocess
from collections.abc import Iterator

import pytest

from bench.perf_analyzer import Program, ProgramUnavailableError, installed_program
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

RUN_TIMEOUT_S = 120
# Windows of a second; any throughput counts as stable, since nothing here is about speed.
MEASUREMENT = ("--measurement-interval", "1000", "-s", "1000", "-r", "5", "--concurrency-range", "4")


@pytest.fixture(scope="module")
def program() -> Program:
    """perf_analyzer, installed."""
    try:
        return installed_program()
    except ProgramUnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, transport: str) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("models")
    onnx_models.save_brightness(repository)
    onnx_models.save_text_echo(repository)
    with running_server(repository, system_shared_memory=True, transport=transport) as running:
        yield running


def analyze(program: Program, server: Server, *arguments: str, model: str = "brightness") -> str:
    """What perf_analyzer prints when it is content."""
    command = [str(program.path), "-m", model, "-u", str(server.grpc_address), "-i", "grpc"]
    done = subprocess.run(
        [*command, *MEASUREMENT, *arguments],
        env=program.variables,
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
def test_perf_analyzer_is_content(program: Program, server: Server, model: str, arguments: list[str]) -> None:
    before = outcomes(server)
    printed = analyze(program, server, *arguments, model=model)
    throughput = re.search(r"Throughput: ([\d.]+) infer/sec", printed)
    assert throughput is not None
    assert float(throughput[1]) > 0
    counted = re.search(r"Inference count: (\d+)", printed)  # from the server's statistics
    assert counted is not None
    assert int(counted[1]) > 0
    after = outcomes(server)
    calls = {outcome: after[outcome] - before.get(outcome, 0) for outcome in after}
    ended = {outcome for outcome, count in calls.items() if count and outcome[1] != "OK"}
    assert ended <= {("ModelStreamInfer", "CANCELLED")}  # it half-closes its streams, and gives them up at once
    assert (calls.get(("SystemSharedMemoryRegister", "OK"), 0) > 0) == ("--shared-memory" in arguments)
