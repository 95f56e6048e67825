"""What `bench.gpu_check` asks of the server, in a process of its own."""

import json
import math
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from bench.gpu_load import STARTED_WITH, Job, Loaded
from bench.gpu_report import Report, add_speed
from bench.gpu_watch import GpuUse, gpu_use
from bench.server_cpu import cpu_s
from bench.server_process import started
from inferry_server.runtime.providers import CPU, CUDA
from inferry_server.runtime.session import load_session
from inferry_server.signature import TensorSpec

REQUESTS = {1: 32, 32: 8, 256: 2}
"""Images of a request, and how many requests are under way at once."""
MANY_REQUESTS = {1: 128, 32: 32, 256: 3}
"""The same for a server with front ends: each request on its own connection, as front ends share connections."""
FRONT_ENDS = (2, 4, 6)
CONNECTIONS = (1, 8, 64)
_AT_ONCE = 64  # single images, whatever the connections
_PROCESSES = 4  # that ask
INSTANCES = (1, 2, 3)


@dataclass(frozen=True)
class Server:
    """One that is ready: what it printed, and how to ask it."""

    line: str
    repository: Path
    seconds: float
    process: psutil.Process

    def serves(self, model: str) -> bool:
        """Whether the model is among those that passed their golden samples."""
        return f"{model}/1" in self.line

    def ask(
        self, model: str, rows: int, concurrency: int, *, connections: int, jpeg: bool = False
    ) -> tuple[Loaded, GpuUse, TensorSpec]:
        """Load from processes of its own, which share connections and requests: one asks too slowly for a GPU."""
        spec = input_of(self.repository, model)
        address = self.line.split("gRPC ")[1].split(",")[0]
        shape = (rows, *(size or 1 for size in spec.shape[1:]))
        processes = min(_PROCESSES, connections)
        with ExitStack() as stack:
            loads = []
            for number in range(processes):
                mine, lines = (_share(count, processes, number) for count in (concurrency, connections))
                job = Job(address, model, spec.name, spec.datatype.name, shape, self.seconds, mine, lines, jpeg)
                loads.append(stack.enter_context(_load(job)))
            for load in loads:
                assert load.stdout is not None
                load.stdout.readline()
            use = stack.enter_context(gpu_use())
            printed = [json.loads(text) for text in _start_and_read(loads)]
        wall_s = max(each["wall_s"] for each in printed)
        return Loaded(wall_s, [seconds for each in printed for seconds in each["seconds"]]), use, spec


def _share(count: int, parts: int, number: int) -> int:
    """Of so many things that parts share as evenly as they can, those of one."""
    return count // parts + (number < count % parts)


def _load(job: Job) -> "subprocess.Popen[str]":
    command = [*STARTED_WITH, json.dumps(asdict(job))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _start_and_read(loads: Sequence["subprocess.Popen[str]"]) -> list[str]:
    """Let them begin at once, and what each printed at its end."""
    for load in loads:
        assert load.stdin is not None
        load.stdin.write("\n")
        load.stdin.flush()
    return [load.communicate()[0] for load in loads]


def input_of(repository: Path, model: str) -> TensorSpec:
    """The first input of a model."""
    path = repository / model / "1" / "model.onnx"
    return load_session(path, providers=(CPU,), intra_op_num_threads=1).signature.inputs[0]


@contextmanager
def serving(
    report: Report, repository: Path, models: Sequence[str], mode: str, flags: Sequence[str], *, seconds: float,
    on_gpu: bool,
) -> Iterator[Server]:  # fmt: skip
    """A server of some models; its cold start and the golden checks are rows of the report."""
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            (Path(folder) / model).symlink_to((repository / model).resolve())
        began = time.perf_counter()
        provider = ("--provider", "cuda" if on_gpu else "cpu")
        with started(Path(folder), *provider, "--max-batch-size", "256", *flags) as (process, line):
            report.add("cold start", "all", mode, "measured", seconds=time.perf_counter() - began)
            server = Server(line, repository, seconds, psutil.Process(process.pid))
            right = f"({CUDA if on_gpu else CPU}" in line
            for model in models:
                report.check("golden", model, mode, holds=right and server.serves(model))
            yield server


def measure_requests(
    report: Report, server: Server, model: str, mode: str, *, requests: Mapping[int, int] = REQUESTS,
    most_connections: int = _PROCESSES,
) -> None:  # fmt: skip
    """Requests of each size on some connections, how busy the GPU is, and what goes to it."""
    for rows, concurrency in requests.items():
        before = cpu_s(server.process)
        loaded, use, spec = server.ask(model, rows, concurrency, connections=min(most_connections, concurrency))
        spent = cpu_s(server.process) - before
        item_bytes = math.prod(size or 1 for size in spec.shape[1:]) * spec.datatype.dtype.itemsize
        to_device = len(loaded.seconds) * rows * item_bytes / loaded.wall_s / 1e6
        figures = {"to_device_bytes_an_image": item_bytes, "to_device_mb_per_s": to_device, **use.figures}
        figures |= spent.figures(len(loaded.seconds))
        add_speed(report, "server", model, mode, rows, loaded.seconds, wall_s=loaded.wall_s, **figures)


def measure_connections(report: Report, server: Server, model: str, mode: str) -> None:
    """Single images over one connection and over many."""
    for connections in CONNECTIONS:
        loaded, use, _ = server.ask(model, 1, _AT_ONCE, connections=connections)
        name = f"{connections} connection{'s' * (connections > 1)}"
        add_speed(report, name, model, mode, 1, loaded.seconds, wall_s=loaded.wall_s, **use.figures)


def measure_jpeg(report: Report, server: Server, model: str, mode: str) -> None:
    """Pictures that the server decodes, one a request."""
    loaded, use, _ = server.ask(model, 1, _AT_ONCE, connections=8, jpeg=True)
    add_speed(report, "JPEG", model, mode, 1, loaded.seconds, wall_s=loaded.wall_s, **use.figures)
