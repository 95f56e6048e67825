"""`make bench-rest`: what REST costs beside gRPC, and what watching the server costs its callers.

    ARGS=cpu        server CPU a request of one 28x28 uint8 picture: REST with bytes behind the JSON, and gRPC
    ARGS=mlserver   the same picture as JSON: images a second, ours and MLServer's, in turns
    ARGS=watched    gRPC's p99 at half load, alone, and with the live page open in ten tabs and /metrics scraped

Each takes about a minute; ratios are of medians over rounds that alternate.
"""

import argparse
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil

from bench.contenders import INPUT, MODEL, SHAPE, Contender, link_model
from bench.load_generator import Job, LoadResult
from bench.measure import generate
from bench.perf_analyzer import LoadFailedError
from bench.processes import cpu_s
from bench.server_process import started
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models

_PATH = f"/v2/models/{MODEL}/infer"
_EXPORT_S = 300.0
_CONCURRENCY, _TABS = 32, 10


@dataclass(frozen=True)
class Ports:
    """A server of ours that is ready."""

    grpc: int
    http: int
    process: psutil.Process


def main() -> int:
    """Measure one of the three, and print it; 0 even where a goal is missed: a benchmark is no test."""
    parser = argparse.ArgumentParser(prog="make bench-rest", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cpu", "mlserver", "watched"))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round (%(default)g)")
    parser.add_argument("--rounds", type=int, default=4, help="%(default)s")
    arguments = parser.parse_args()
    measure = {"cpu": compare_cpu, "mlserver": compare_mlserver, "watched": compare_watched}[arguments.what]
    with tempfile.TemporaryDirectory(prefix="inferry-bench-") as name:
        print(json.dumps(measure(Path(name), arguments.rounds, arguments.seconds), indent=1))
    return 0


def compare_cpu(folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    """Microseconds of server CPU a request, of a model that costs next to nothing."""
    onnx_models.save_brightness(folder / "models", side=SHAPE[0], name=MODEL)
    with serving(folder / "models") as ports:
        jobs = {"grpc": grpc_job(folder, ports.grpc), "rest": binary_job(folder, ports.http)}
        for job in jobs.values():
            load(job, seconds=1)
        us = in_turns(rounds, {name: partial(cpu_us, ports, job, seconds) for name, job in jobs.items()})
    return {"cpu_us": us, "rest / grpc": median(us["rest"]) / median(us["grpc"]), "must be at most": 2.5}


def compare_mlserver(folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    """Images a second over REST as JSON, both servers idle but for the one under load."""
    command = [sys.executable, "-m", "bench.export_models", str(folder)]
    subprocess.run(command, check=True, timeout=_EXPORT_S, stdout=sys.stderr)
    cores = psutil.cpu_count() or 1
    link_model(folder / "float32.onnx", folder / "models")
    peer = Contender("MLServer", "mlserver", folder / "float32.onnx", cores)
    with serving(folder / "models") as ports, peer.serve(folder / "peer"):
        other = json.loads((folder / "peer" / "settings.json").read_text())["http_port"]
        jobs = {"inferry": json_job(folder, ports.http), "mlserver": json_job(folder, other)}
        jobs["inferry, bytes"] = binary_job(folder, ports.http)
        for job in jobs.values():
            load(job, seconds=2)
        rate = in_turns(rounds, {name: partial(per_second, job, seconds) for name, job in jobs.items()})
    ratio = median(rate["inferry"]) / median(rate["mlserver"])
    return {"images_per_s": rate, "inferry / mlserver": ratio, "must be at least": 3}


def compare_watched(folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    """p99 of gRPC in milliseconds at half of what the server reaches, with and without watchers.

    It is measured alone twice a round: how far these two differ is what the machine adds to the third.
    """
    onnx_models.save_brightness(folder / "models", side=SHAPE[0], name=MODEL)
    with serving(folder / "models") as ports:
        job = grpc_job(folder, ports.grpc)
        load(job, seconds=1)
        rate = per_second(job, seconds) / 2

        refused = 0

        def alone() -> float:
            nonlocal refused
            result = generate(replace(job, seconds=seconds, rate=rate))
            refused += result.sent - result.answered
            return result.p99_ms

        def watched() -> float:
            with watching(ports.http):
                return alone()

        p99 = in_turns(rounds, {"alone": alone, "watched": watched, "alone again": alone})
    without = median([*p99["alone"], *p99["alone again"]])
    return {
        "requests_per_s": rate,
        "refused": refused,
        "p99_ms": p99,
        "watched / alone": median(p99["watched"]) / without,
        "alone again / alone": median(p99["alone again"]) / median(p99["alone"]),
        "load_average": os.getloadavg()[0],
        "must be at most": 1.05,
    }


def in_turns(rounds: int, measures: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Each measure once a round, every second round in the opposite order."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(measures[name]())
    return found


def load(job: Job, *, seconds: float) -> LoadResult:
    """Send requests in a closed loop; every one must be answered.

    Raises:
        LoadFailedError: some were not.
    """
    result = generate(replace(job, seconds=seconds, concurrency=_CONCURRENCY))
    if result.answered < result.sent:
        raise LoadFailedError(f"{result.sent - result.answered} of {result.sent} requests were refused")
    return result


def per_second(job: Job, seconds: float) -> float:
    """Answers a second."""
    result = load(job, seconds=seconds)
    return result.answered / result.wall_s


def cpu_us(ports: Ports, job: Job, seconds: float) -> float:
    """Microseconds of the server's CPU an answer."""
    before = cpu_s(ports.process)
    answered = load(job, seconds=seconds).answered
    return (cpu_s(ports.process) - before) / answered * 1e6


@contextmanager
def watching(port: int) -> Iterator[None]:
    """The live page's stream in ten tabs, and the metrics read once a second, by one thread: it shares the cores."""
    done, selector = threading.Event(), selectors.DefaultSelector()
    with contextlib.ExitStack() as stack:
        for _ in range(_TABS):
            selector.register(_opened(stack, port, "/live"), selectors.EVENT_READ)
        thread = threading.Thread(target=_look, args=(selector, _opened(stack, port, "/metrics"), done))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def _look(tabs: selectors.BaseSelector, scraper: socket.socket, done: threading.Event) -> None:
    """Read what comes, and ask for the metrics each second, as Prometheus does: in OpenMetrics' format."""
    tabs.register(scraper, selectors.EVENT_READ)
    asked = time.monotonic()
    while not done.is_set():
        for key, _ in tabs.select(0.1):
            key.fileobj.recv(1 << 20)  # type: ignore[union-attr]  # registered by us
        if time.monotonic() - asked >= 1:
            asked = time.monotonic()
            scraper.sendall(_request("/metrics"))


def _opened(stack: contextlib.ExitStack, port: int, path: str) -> socket.socket:
    opened = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    opened.sendall(_request(path))
    return opened


def _request(path: str) -> bytes:
    accept = "application/openmetrics-text;version=1.0.0"
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {accept}\r\n\r\n".encode()


@contextmanager
def serving(repository: Path) -> Iterator[Ports]:
    """Our server, with its REST half."""
    with started(repository, "--provider", "cpu", "--http-inference", "on") as (process, line):
        if not line:
            raise LoadFailedError("the server did not start")
        grpc, metrics = (part.partition(" ")[2] for part in line.partition("ready: ")[2].split(", ")[:2])
        http_port = int(metrics.removeprefix("http://").partition("/")[0].rpartition(":")[2])
        yield Ports(int(grpc.rpartition(":")[2]), http_port, psutil.Process(process.pid))


def picture() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One, of noise."""
    return np.random.default_rng(0).integers(0, 256, (1, *SHAPE), np.uint8)


def grpc_job(folder: Path, port: int) -> Job:
    """The picture in raw_input_contents."""
    request = ModelInferRequest(model_name=MODEL, raw_input_contents=[picture().tobytes()])
    request.inputs.add(name=INPUT, datatype="UINT8", shape=[1, *SHAPE])
    return Job(port, OPEN_INFERENCE["ModelInfer"].path, _kept(folder, "grpc", request.SerializeToString()), 0)


def binary_job(folder: Path, port: int) -> Job:
    """The picture as bytes behind the JSON, and the answer likewise."""
    pixels = picture().tobytes()
    text = _json(parameters={"binary_data_size": len(pixels)}, binary_data_output=True)
    headers = {"Inference-Header-Content-Length": str(len(text))}
    return Job(port, _PATH, _kept(folder, "binary", text + pixels), 0, http=True, headers=headers)


def json_job(folder: Path, port: int) -> Job:
    """The picture as numbers in JSON."""
    body = _json(data=picture().ravel().tolist())
    return Job(port, _PATH, _kept(folder, "json", body), 0, http=True, headers={"Content-Type": "application/json"})


def _json(*, binary_data_output: bool = False, **more: object) -> bytes:
    tensor = {"name": INPUT, "datatype": "UINT8", "shape": [1, *SHAPE], **more}
    wanted = {"parameters": {"binary_data_output": True}} if binary_data_output else {}
    return json.dumps({"inputs": [tensor], **wanted}).encode()


def _kept(folder: Path, name: str, body: bytes) -> str:
    path = folder / f"{name}.body"
    path.write_bytes(body)
    return str(path)


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


if __name__ == "__main__":
    sys.exit(main())
