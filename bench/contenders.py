"""The servers that are compared: how each is started with the same model on the same cores.

Inferry is talked to through its command line and its ports, as the others are. Every peer computes with the same
ONNX Runtime, in `peers/model.py`.
"""

import json
import os
import re
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import numpy as np
import psutil

from bench.environments import PINS, environment, python_library, python_of, site_packages
from bench.processes import accepts, free_port, running, wait_until

MODEL, INPUT, OUTPUT, SHAPE, CLASSES = "mnist", "images", "probabilities", (28, 28, 1), 10
MAX_BATCH_SIZE = 32
COMPARED_CONFIG = f"""
max_batch_size: {MAX_BATCH_SIZE}
input [ {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: [ {", ".join(map(str, SHAPE))} ] }} ]
output [ {{ name: "{OUTPUT}" data_type: TYPE_FP32 dims: [ {CLASSES} ] }} ]
instance_group [ {{ count: 1 kind: KIND_CPU }} ]
"""
"""Of the model that all are compared with, for Triton, besides its name, its backend and how it batches."""
_READY_S = 120.0


@dataclass(frozen=True)
class Counts:
    """What a server has computed so far."""

    batches: int
    rows: int
    expired: int = 0

    def __sub__(self, before: "Counts") -> "Counts":
        return Counts(self.batches - before.batches, self.rows - before.rows, self.expired - before.expired)


@dataclass(frozen=True)
class Running:
    """A server that is ready.

    Attributes:
        port: on loopback, of gRPC or HTTP.
        process: its first process, the root of its tree.
        ready_s: from its start until it was ready.
        metrics: its page, where it counts batches itself.
        counts_file: else two or three int64 that its model keeps.
    """

    port: int
    process: psutil.Process
    ready_s: float
    metrics: str = ""
    counts_file: Path | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def counts(self) -> Counts:
        """Batches and rows computed so far."""
        if self.counts_file is not None:
            return Counts(*map(int, np.fromfile(self.counts_file, np.int64)))
        with urllib.request.urlopen(self.metrics, timeout=10) as page:  # noqa: S310 - a server of our own
            text = page.read().decode()
        return Counts(_sample(text, "inferry_batch_rows_count"), _sample(text, "inferry_rows_computed_total"))


@dataclass(frozen=True)
class Further:
    """A model that is served beside the one that all are compared with.

    Attributes:
        folder: as in a model repository.
        config: for Triton, what its `config.pbtxt` has besides name and backend; empty: Triton does not serve it.
    """

    folder: Path
    config: str = ""


@dataclass(frozen=True)
class Contender:
    """A server that can be started.

    Attributes:
        name: in the tables.
        kind: what it is: `inferry`, or the name of a peer.
        model: the ONNX file it serves.
        threads: that compute a batch.
        flags: of Inferry's command line; of Triton, what stands in its dynamic_batching.
        program: what is run instead of Inferry's own module.
        http: whether it speaks HTTP and no gRPC.
        http_port: on which Triton speaks HTTP too; 0: it does not.
        further: models beside it, for Inferry and Triton.
    """

    name: str
    kind: str
    model: Path
    threads: int
    flags: tuple[str, ...] = ()
    program: tuple[str, ...] = (sys.executable, "-m", "inferry_server")
    environment: Mapping[str, str] = field(default_factory=dict)
    http: bool = False
    http_port: int = 0
    further: tuple[Further, ...] = ()

    @contextmanager
    def serve(self, folder: Path) -> Iterator[Running]:
        """Start it; `folder` is its own, for its repository and its log."""
        folder.mkdir(parents=True)
        start = {"inferry": _inferry, "triton": _triton, "mosec": _mosec, "mlserver": _mlserver}[self.kind]
        command, port, variables = start(self, folder)
        log, started = folder / "server.log", monotonic()
        with running(command, environment=variables | dict(self.environment), log=log, folder=folder) as process:
            if self.kind == "inferry":
                yield _ready_inferry(process, log, started)
                return
            wait_until(lambda: _peer_is_ready(self.kind, port, log), process, log=log, timeout_s=_READY_S)
            yield Running(port, process, monotonic() - started, counts_file=folder / "counts")


def _inferry(contender: Contender, folder: Path) -> tuple[list[str], int, dict[str, str]]:
    link_model(contender.model, folder / "models")
    for one in contender.further:
        (folder / "models" / one.folder.name).symlink_to(one.folder)
    anywhere = "127.0.0.1:0"
    command = [
        *contender.program,
        "--repository",
        str(folder / "models"),
        "--provider",
        "cpu",
        "--log-level",
        "warning",
    ]
    command += ["--grpc-address", anywhere, "--metrics-address", anywhere]
    return [*command, "--intra-op-num-threads", str(contender.threads), *contender.flags], 0, {}


def _ready_inferry(process: psutil.Process, log: Path, started: float) -> Running:
    """From the line that it prints when it is ready."""
    found: list[re.Match[str]] = []

    def is_ready() -> bool:
        line = re.search(r"ready: gRPC [\d.]+:(\d+), metrics (\S+),", log.read_text(errors="replace"))
        found.extend([line] if line else [])
        return line is not None

    wait_until(is_ready, process, log=log, timeout_s=_READY_S)
    return Running(int(found[0][1]), process, monotonic() - started, metrics=found[0][2])


def _triton(contender: Contender, folder: Path) -> tuple[list[str], int, dict[str, str]]:
    """Triton alone, without PyTriton's proxy; metrics off, HTTP off unless asked for, dynamic batching on."""
    made = environment("triton")
    home = site_packages(made) / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    backend, model = folder / "backends" / "python", folder / "models" / MODEL
    backend.mkdir(parents=True)
    for file in (*home.glob("backends/python/*.*"), *home.glob(f"python_backend_stubs/{version}/*")):
        (backend / file.name).symlink_to(file)  # the backend wants the stub of this Python beside itself
    (model / "1").mkdir(parents=True)
    (model / "1" / "model.py").write_text((PINS / "triton_model.py").read_text())
    (model / "config.pbtxt").write_text(
        f'name: "{MODEL}"\nbackend: "python"\n{COMPARED_CONFIG}dynamic_batching {{ {" ".join(contender.flags)} }}\n'
    )
    for one in contender.further:
        if one.config:
            beside = model.parent / one.folder.name
            (beside / "1").mkdir(parents=True)
            (beside / "1" / "model.py").symlink_to(model / "1" / "model.py")
            onnx = f'parameters {{ key: "onnx" value {{ string_value: "{one.folder / "1" / "model.onnx"}" }} }}'
            (beside / "config.pbtxt").write_text(f'name: "{one.folder.name}"\nbackend: "python"\n{onnx}\n{one.config}')
    port = free_port()
    flags = {
        "model-repository": model.parent, "backend-directory": backend.parent, "grpc-address": "127.0.0.1",
        "grpc-port": port, "allow-http": "false", "allow-metrics": "false",
    }  # fmt: skip
    if contender.http_port:
        flags |= {"allow-http": "true", "http-address": "127.0.0.1", "http-port": contender.http_port}
    command = [str(home / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in flags.items())]
    libraries = [site_packages(made) / "nvidia_pytriton.libs", python_library()]
    return (
        command,
        port,
        _peer_variables(contender, folder)
        | {
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            "PATH": os.pathsep.join([str(made / "bin"), os.environ["PATH"]]),  # where the stub looks for its packages
        },
    )


def _mosec(contender: Contender, folder: Path) -> tuple[list[str], int, dict[str, str]]:
    port = free_port()
    command = [str(python_of(environment("mosec"))), str(PINS / "mosec_server.py")]
    command += ["--address", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return command, port, _peer_variables(contender, folder)


def _mlserver(contender: Contender, folder: Path) -> tuple[list[str], int, dict[str, str]]:
    """MLServer in one process, with adaptive batching that waits as briefly as Mosec's."""
    made, port = environment("mlserver"), free_port()
    settings = {
        "host": "127.0.0.1", "http_port": free_port(), "grpc_port": port, "metrics_port": free_port(),
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings))
    tensors = {
        "inputs": [{"name": INPUT, "datatype": "UINT8", "shape": [-1, *SHAPE]}],
        "outputs": [{"name": OUTPUT, "datatype": "FP32", "shape": [-1, CLASSES]}],
    }
    model = {
        "name": MODEL, "implementation": "mlserver_runtime.Classifier",
        "max_batch_size": MAX_BATCH_SIZE, "max_batch_time": 0.001,
    }  # fmt: skip
    (folder / "model-settings.json").write_text(json.dumps(model | tensors))
    variables = _peer_variables(contender, folder) | {"PYTHONPATH": str(PINS)}
    return [str(made / "bin" / "mlserver"), "start", str(folder)], port, variables


def _peer_variables(contender: Contender, folder: Path) -> dict[str, str]:
    np.zeros(2, np.int64).tofile(folder / "counts")
    return {
        "BENCH_MODEL": str(contender.model),
        "BENCH_THREADS": str(contender.threads),
        "BENCH_COUNTS": str(folder / "counts"),
        "BENCH_PEERS": str(PINS),
        "BENCH_SHAPE": ",".join(map(str, SHAPE)),
        "BENCH_MAX_BATCH_SIZE": str(MAX_BATCH_SIZE),
        "PYTHONPATH": "",  # ours are no business of theirs
    }


def _peer_is_ready(kind: str, port: int, log: Path) -> bool:
    if kind == "triton":  # it binds its port when its models are loaded
        return "Started GRPCInferenceService" in log.read_text(errors="replace") and accepts(port)
    return accepts(port)


def link_model(model: Path, repository: Path) -> None:
    """A repository with one model."""
    version = repository / MODEL / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").symlink_to(model)


def _sample(page: str, name: str) -> int:
    return sum(int(float(value)) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE))
