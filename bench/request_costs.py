"""`make bench-costs`: where the microseconds of a single-image request go.

Of a server whose model costs next to nothing, measured twice: the reading thread's Python in this process, over a gRPC
that is played (`testkit/played_grpc.py`), part by part; and a real server under a closed loop, thread by thread. What
the reading thread takes there beyond its Python is gRPC's core and the kernel's.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

from bench.load_generator import Job
from bench.server_process import started
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.runtime.session import OnnxSession
from testkit import onnx_models
from testkit.played_grpc import PlayedGrpc, played_server

MODEL, SIDE = "brightness", 28
READING_THREAD = "grpc-queue"
_WARM_UP, _ROUNDS = 200, 2000
_PATH = OPEN_INFERENCE["ModelInfer"].path


def python_parts(repository: Path, message: bytes, batch: int) -> dict[str, float]:
    """Microseconds a request of the reading thread's Python, medians over the rounds, for so many requests a batch."""
    played = PlayedGrpc(message, batch)
    rounds: list[list[float]] = []
    runs: list[float] = []
    original = OnnxSession.run

    def run(self: OnnxSession, inputs: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(self, inputs)
        finally:
            runs.append(time.perf_counter() - began)

    def round_done() -> bool:
        rounds.append([b - a for a, b in pairwise(played.marks)])
        return len(rounds) == _WARM_UP + _ROUNDS

    with mock.patch.object(OnnxSession, "run", run), played_server(played, repository) as transport:
        played.play(transport, round_done)
    us = [statistics.median(part) / batch * 1e6 for part in zip(*rounds[_WARM_UP:], strict=True)]
    in_model = statistics.median(runs[-_ROUNDS:]) / batch * 1e6
    calls, messages, batch, ends = us
    return {
        "calls: account, metrics, asking for the next": calls,
        "messages: header, plan, deadline, queue": messages,
        "batch: taking, putting together, encoding, counting, sending": batch - in_model,
        "ONNX Runtime, called with a model of next to nothing": in_model,
        "ends of the answers": ends,
    }


def thread_costs(repository: Path, message: bytes, seconds: float, concurrency: int) -> dict[str, float]:
    """Microseconds of CPU a request, by the threads of a real server; all threads of a name together."""
    with started(repository, "--provider", "cpu") as (process, line), tempfile.NamedTemporaryFile() as body:
        port = int(line.split("gRPC ")[1].split(",")[0].rpartition(":")[2])
        Path(body.name).write_bytes(message)
        load(Job(port, _PATH, body.name, 0.5, concurrency))
        before = cpu_by_thread(process.pid)
        answered = load(Job(port, _PATH, body.name, seconds, concurrency))
        after = cpu_by_thread(process.pid)
    return {name: cpu / answered * 1e6 for name, cpu in by_name(before, after).items()}


def load(job: Job) -> int:
    """Run the common client; how many requests were answered."""
    command = [sys.executable, "-m", "bench.load_generator"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), capture_output=True, text=True, check=True, timeout=60
    )
    return int(json.loads(done.stdout)["answered"])


def cpu_by_thread(pid: int) -> dict[tuple[str, str], float]:
    """CPU seconds of each thread so far, by its name and number."""
    ticks = os.sysconf("SC_CLK_TCK")
    total: dict[tuple[str, str], float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(")")
        fields = rest.split()
        total[name, task.name] = (int(fields[11]) + int(fields[12])) / ticks
    return total


def by_name(before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """CPU seconds between two looks. Python's threads have the process' name; the busiest of them in between reads.

    Each thread is compared with itself: before the load, the main thread has used most, for it has loaded all modules.
    """
    used = {thread: cpu - before.get(thread, 0.0) for thread, cpu in after.items()}
    grpc = sum(cpu for (name, _), cpu in used.items() if name == "event_engine")
    python = [cpu for (name, _), cpu in used.items() if name != "event_engine"]
    return {
        READING_THREAD: max(python),
        "gRPC's own threads": grpc,
        "other threads": sum(python) - max(python),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-costs", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of the real server (5)")
    parser.add_argument("--concurrency", type=int, default=32, help="requests at a time (32)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        repository = Path(name)
        onnx_models.save_brightness(repository, name=MODEL, side=SIDE)
        message = infer_message()
        batch = max(1, arguments.concurrency * 3 // 4)  # that many are usually ready together
        python = python_parts(repository, message, batch)
        rounds = [thread_costs(repository, message, 2.0, arguments.concurrency) for _ in range(arguments.rounds)]
    threads = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    reading = threads.pop(READING_THREAD)
    rows = [*python.items(), ("gRPC's core and the kernel, on the reading thread", reading - sum(python.values()))]
    rows += threads.items()
    rows.append(("all", reading + sum(threads.values())))
    print(f"us of server CPU for a single-image request, {arguments.concurrency} at a time")
    for name, us in rows:
        print(f"{us:7.1f}  {name}")
    return 0


def infer_message() -> bytes:
    """ModelInfer for one picture."""
    request = ModelInferRequest(model_name=MODEL, raw_input_contents=[bytes(SIDE * SIDE)])
    request.inputs.add(name="images", datatype="UINT8", shape=(1, SIDE, SIDE, 1))
    return request.SerializeToString()


if __name__ == "__main__":
    sys.exit(main())
