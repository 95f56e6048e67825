"""`make bench-rest`: what REST costs beside gRPC, and what watching the server costs its callers.

    ARGS=cpu        server CPU a request of one 28x28 uint8 picture: REST with bytes behind the JSON, and gRPC
    ARGS=mlserver   the same picture as JSON: images a second, ours and MLServer's, in turns; CPU of server and client
    ARGS=mosec      the same picture as bytes, in turns with Mosec; and over gRPC; --concurrency 128
    ARGS=watched    gRPC's p99 at half load, alone, and with the live page open in ten tabs and /metrics scraped

The first three take about a minute or two, the last one under six (`watched.py`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import psutil

from bench.contenders import INPUT, MODEL, SHAPE, Contender, link_model
from bench.load_generator import Job, LoadResult
from bench.measure import generate
from bench.open_peak import find_open_peak
from bench.paired import median_ratio
from bench.perf_analyzer import LoadFailedError
from bench.processes import cpu_s
from bench.server_process import started
from bench.watched import compare_watched
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from testkit import onnx_models

T = TypeVar("T")

_PATH = f"/v2/models/{MODEL}/infer"
_EXPORT_S = 300.0
_CONCURRENCY = 32
_SEGMENT_S, _ROUNDS = 5.0, 6
_WATCHED_S, _WATCHED_PAIRS = 3.0, 38
_CLOSED_S = 3.0


@dataclass(frozen=True)
class Ports:
    """A server of ours that is ready."""

    grpc: int
    http: int
    process: psutil.Process


def main() -> int:
    """Measure one of them, and print it; 0 even where a goal is missed: a benchmark is no test."""
    parser = argparse.ArgumentParser(prog="make bench-rest", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("cpu", "mlserver", "mosec", "watched"))
    parser.add_argument("--seconds", type=float, help="of each segment (5; watched: 3)")
    parser.add_argument("--rounds", type=int, help="6; watched: 38 pairs")
    parser.add_argument("--concurrency", type=int, default=_CONCURRENCY, help="requests at a time, of mosec (32)")
    arguments = parser.parse_args()
    watched = arguments.what == "watched"
    rounds = arguments.rounds or (_WATCHED_PAIRS if watched else _ROUNDS)
    seconds = arguments.seconds or (_WATCHED_S if watched else _SEGMENT_S)
    measures: dict[str, Callable[[Path, int, float], dict[str, object]]] = {
        "cpu": compare_cpu,
        "mlserver": compare_mlserver,
        "mosec": partial(compare_mosec, concurrency=arguments.concurrency),
        "watched": watched_at_half_load,
    }
    measure = measures[arguments.what]
    with tempfile.TemporaryDirectory(prefix="inferry-bench-") as name:
        print(json.dumps(measure(Path(name), rounds, seconds), indent=1))
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
    export_network(folder)
    cores = psutil.cpu_count() or 1
    peer = Contender("MLServer", "mlserver", folder / "float32.onnx", cores)
    with serving(folder / "models") as ports, peer.serve(folder / "peer") as running:
        other = json.loads((folder / "peer" / "settings.json").read_text())["http_port"]
        servers = {
            "inferry": (ports.process, json_job(folder, ports.http)),
            "mlserver": (running.process, json_job(folder, other)),
            "inferry, bytes": (ports.process, binary_job(folder, ports.http)),
        }
        for _, job in servers.values():
            load(job, seconds=2)
        turns = in_turns(rounds, {name: partial(under_load, *of, seconds) for name, of in servers.items()})
    rates = {name: [one.per_s for one in found] for name, found in turns.items()}
    return {
        "images_per_s": rates,
        "server_cpu_us": {name: median([one.server_us for one in found]) for name, found in turns.items()},
        "client_cpu_us": {name: median([one.client_us for one in found]) for name, found in turns.items()},
        "cores_used_of_" + str(cores): {name: median([one.cores for one in found]) for name, found in turns.items()},
        "images_per_s, inferry / mlserver": str(
            median_ratio([(peer.per_s, ours.per_s) for ours, peer in zip(*_both(turns), strict=True)])
        ),
        "must be at least": 3,
        "server CPU an image, mlserver / inferry": str(
            median_ratio([(ours.server_us, peer.server_us) for ours, peer in zip(*_both(turns), strict=True)])
        ),
        "load_average": os.getloadavg()[0],
    }


def compare_mosec(folder: Path, rounds: int, seconds: float, *, concurrency: int) -> dict[str, object]:
    """Images a second as bytes over HTTP, which is what Mosec speaks; ours over gRPC beside them."""
    export_network(folder)
    cores = psutil.cpu_count() or 1
    peer = Contender("Mosec", "mosec", folder / "float32.onnx", cores)
    with serving(folder / "models") as ports, peer.serve(folder / "peer") as running:
        pixels = Job(running.port, "/inference", _kept(folder, "pixels", picture().tobytes()), 0, http=True)
        servers = {
            "mosec": (running.process, pixels),
            "inferry": (ports.process, binary_job(folder, ports.http)),
            "inferry, gRPC": (ports.process, grpc_job(folder, ports.grpc)),
        }
        for _, job in servers.values():
            load(job, seconds=2, concurrency=concurrency)
        turns = in_turns(
            rounds,
            {name: partial(under_load, *of, seconds, concurrency=concurrency) for name, of in servers.items()},
        )
    figures: dict[str, object] = {
        name: {
            "images_per_s": median([one.per_s for one in found]),
            "server_cpu_us": median([one.server_us for one in found]),
        }
        for name, found in turns.items()
    }
    for name in ("inferry", "inferry, gRPC"):
        pairs = list(zip(turns["mosec"], turns[name], strict=True))
        rates, cpu = (
            [(peer.per_s, own.per_s) for peer, own in pairs],
            [(own.server_us, peer.server_us) for peer, own in pairs],
        )
        figures[f"images_per_s, {name} / mosec"] = str(median_ratio(rates))
        figures[f"images a server CPU second, {name} / mosec"] = str(median_ratio(cpu))
    return {**figures, "at a time": concurrency, "load_average": os.getloadavg()[0]}


def _both(turns: Mapping[str, list["UnderLoad"]]) -> tuple[list["UnderLoad"], list["UnderLoad"]]:
    return turns["inferry"], turns["mlserver"]


@dataclass(frozen=True)
class UnderLoad:
    """What a server did in one segment of a closed loop.

    Attributes:
        per_s: answers a second.
        server_us: microseconds of the server's CPU an answer.
        client_us: of the load generator's, which shares the cores.
        cores: that both took together, on average.
    """

    per_s: float
    server_us: float
    client_us: float
    cores: float


def under_load(process: psutil.Process, job: Job, seconds: float, *, concurrency: int = _CONCURRENCY) -> UnderLoad:
    """One segment; every request must be answered."""
    before = cpu_s(process)
    result = load(job, seconds=seconds, concurrency=concurrency)
    server_s = cpu_s(process) - before
    return UnderLoad(
        result.answered / result.wall_s,
        server_s / result.answered * 1e6,
        result.cpu_s / result.answered * 1e6,
        (server_s + result.cpu_s) / result.wall_s,
    )


def watched_at_half_load(folder: Path, pairs: int, seconds: float) -> dict[str, object]:
    """p99 of gRPC at half of what the server stands, with and without watchers, of the chapter's network."""
    export_network(folder)
    with serving(folder / "models") as ports:
        job = grpc_job(folder, ports.grpc)
        load(job, seconds=1)
        closed = load(job, seconds=_CLOSED_S)
        peak = find_open_peak(job, closed.answered / closed.wall_s)
        half = replace(
            job, rate=peak.rate / 2, repeats_s=seconds, times=str(folder / "times"), lags=str(folder / "lags")
        )
        found = compare_watched(half, ports.http, ports.process, pairs=pairs, seconds=seconds)
    return {"open_loop_peak_per_s": round(peak.rate), "peak_p99_ms": round(peak.p99_ms, 2), **found}


def export_network(folder: Path) -> None:
    """The chapter's network, as the one model of a repository: FOLDER/models."""
    command = [sys.executable, "-m", "bench.export_models", str(folder)]
    subprocess.run(command, check=True, timeout=_EXPORT_S, stdout=sys.stderr)
    link_model(folder / "float32.onnx", folder / "models")


def in_turns(rounds: int, measures: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
    """Each measure once a round, every second round in the opposite order."""
    found: dict[str, list[T]] = {name: [] for name in measures}
    for number in range(rounds):
        for name in list(measures)[:: 1 if number % 2 == 0 else -1]:
            found[name].append(measures[name]())
    return found


def load(job: Job, *, seconds: float, concurrency: int = _CONCURRENCY) -> LoadResult:
    """Send requests in a closed loop; every one must be answered.

    Raises:
        LoadFailedError: some were not.
    """
    result = generate(replace(job, seconds=seconds, concurrency=concurrency))
    if result.answered < result.sent:
        raise LoadFailedError(f"{result.sent - result.answered} of {result.sent} requests were refused")
    return result


def cpu_us(ports: Ports, job: Job, seconds: float) -> float:
    """Microseconds of the server's CPU an answer."""
    before = cpu_s(ports.process)
    answered = load(job, seconds=seconds).answered
    return (cpu_s(ports.process) - before) / answered * 1e6


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


if __name__ == "__main__":
    sys.exit(main())
