"""`python -m bench.gpu_check REPOSITORY`: does a GPU answer as the CPU does, and how fast?

Takes what `bench.gpu_export` wrote, and needs no more than the server's packages: no TensorFlow, no
network. Prints one table (x is images/s over the bare CUDA session's) and writes JSON; the exit status
is 1 if a check failed. Without a GPU the same steps run on the CPU, and the GPU's rows say so.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.gpu_load import STARTED_WITH
from bench.gpu_report import Report, add_speed, print_table
from bench.server_process import started
from inferry_server.batching.assembly import ladder
from inferry_server.errors import ModelLoadError, StartError
from inferry_server.runtime.cuda_options import CudaOptions
from inferry_server.runtime.device_memory import HostMemory
from inferry_server.runtime.driver import read_driver
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.instances import Devices, LoadedSession, make_instance, open_session
from inferry_server.runtime.providers import CPU, CUDA, choose_providers, preload_libraries
from inferry_server.runtime.session import Arrays, load_session
from inferry_server.runtime.threads import available_cores

ROOT = Path(__file__).parents[1]
STEPS = ladder(256)
REQUESTS = {1: 32, 32: 8, 256: 2}
"""Images of a request, and how many requests are under way at once."""

# Largest absolute difference of a probability from the CPU's. float32 sums in another order; TF32 keeps
# 10 bits of mantissa, and float16 has them in sums too.
TOLERANCES = {"float32": 1e-4, "tf32": 1e-3, "float16": 2e-2}
SLOWER = 1.15  # a step may take this much longer than the next larger one: clocks are not steadier
MEMORY_GROWTH = 32 << 20  # bytes; a leak of a batch's buffers would be gigabytes after thousands


@dataclass(frozen=True)
class Mode:
    """One way to compute on the GPU."""

    name: str
    options: CudaOptions
    tolerance: str = "float32"


MODES = (
    Mode("graphs off", CudaOptions()),
    Mode("graphs on", CudaOptions(cuda_graphs=True)),
    Mode("exhaustive", CudaOptions(cudnn_conv_algo_search="exhaustive")),
    Mode("tf32", CudaOptions(tf32=True), "tf32"),
)


@dataclass(frozen=True)
class Effort:
    """How long everything may take."""

    seconds: float
    batches: int
    models: int | None


THOROUGH, QUICK = Effort(2.0, 10_000, None), Effort(0.2, 200, 3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path, help="written by bench.gpu_export")
    parser.add_argument("--quick", action="store_true", help="one network, short measurements: minutes on a CPU")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "gpu.json")
    chosen = parser.parse_args(arguments)
    effort = QUICK if chosen.quick else THOROUGH
    models = sorted(path.parent.parent.name for path in chosen.repository.glob("*/1/model.onnx"))
    if not models:
        parser.error(f"{chosen.repository} holds no models; write them with bench.gpu_export")
    models = sorted(models, key=lambda name: not name.startswith("mnist"))[: effort.models]
    on_gpu, why = find_gpu()
    report = Report(machine(why))
    print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    for model in models:
        check_model(report, chosen.repository / model / "1" / "model.onnx", model, effort, on_gpu=on_gpu)
    for mode, flags in (("graphs off", []), ("graphs on", ["--cuda-graphs"])):
        check_server(report, chosen.repository, models, mode, flags, effort, on_gpu=on_gpu)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(asdict(report), indent=2) + "\n")
    print_table(report, list(REQUESTS))
    print(f"\n{report.failed} of {len(report.rows)} rows failed; {chosen.out}")
    return 1 if report.failed else 0


def find_gpu() -> tuple[bool, str]:
    """Whether CUDA can be used, and why not."""
    try:
        preload_libraries(choose_providers("cuda"), tf32=False)
    except StartError as error:
        return False, str(error)
    return True, ""


def machine(why_no_gpu: str) -> dict[str, str]:
    driver = read_driver()
    return {
        "onnxruntime": onnxruntime.__version__,
        "built for CUDA": str(getattr(onnxruntime, "cuda_version", "none")),
        "driver": "none" if driver is None else f"CUDA {'.'.join(map(str, driver.cuda_version))}",
        "GPUs": "0" if driver is None else str(driver.device_count),
        "GPU": why_no_gpu or gpu_name(),
        "cores": str(available_cores()),
    }


def gpu_name() -> str:
    done = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def check_model(report: Report, path: Path, model: str, effort: Effort, *, on_gpu: bool) -> None:
    """Answers, step times, speed and memory of one model, without the server."""
    cpu = load_session(path, providers=(CPU,), intra_op_num_threads=available_cores())
    batches = {rows: make_inputs(cpu.signature.inputs[0], rows) for rows in STEPS}
    expected = {rows: cpu.run(inputs) for rows, inputs in batches.items()}
    if not on_gpu:
        instance = make_instance(LoadedSession(cpu, HostMemory()), Devices(), cpu.signature, STEPS)
        check_answers(report, model, "CPU buffers", instance, batches, expected, tolerance=0.0)
        measure_steps(report, model, "CPU buffers", instance, batches, effort, must_hold=False)
        check_memory(report, model, "CPU buffers", instance, lambda: 0, batches[STEPS[-1]], effort)
        for mode in MODES:
            report.add("answers", model, mode.name, "no GPU")
        return
    measure_bare(report, path, model, batches, effort)
    for mode in MODES:
        check_mode(report, path, model, mode, batches, expected, effort)


def check_mode(
    report: Report, path: Path, model: str, mode: Mode, batches: Mapping[int, Arrays],
    expected: Mapping[int, Arrays], effort: Effort,
) -> None:  # fmt: skip
    """One way to compute; a way that the model does not allow is a row too."""
    devices = Devices(mode.options)
    began = time.perf_counter()
    try:
        loaded = open_session(path, (CUDA, CPU), devices, device_id=0, intra_op_num_threads=1)
        assert loaded.memory is not None
        instance = make_instance(loaded, devices, loaded.session.signature, STEPS)
        for rows in reversed(STEPS):
            instance.run(batches[rows])
        instance.prepare()
    except ModelLoadError as error:
        report.check("load", model, mode.name, holds=False, reason=str(error))
        return
    report.add("load and warm", model, mode.name, "measured", seconds=time.perf_counter() - began)
    precision = "float16" if model.endswith("float16") else mode.tolerance
    check_answers(report, model, mode.name, instance, batches, expected, tolerance=TOLERANCES[precision])
    measure_steps(report, model, mode.name, instance, batches, effort, must_hold=True)
    check_memory(report, model, mode.name, instance, loaded.memory.used_bytes, batches[STEPS[-1]], effort)
    instance.close()


def check_answers(
    report: Report, model: str, mode: str, instance: Instance, batches: Mapping[int, Arrays],
    expected: Mapping[int, Arrays], *, tolerance: float,
) -> None:  # fmt: skip
    """Every step, twice: the second time what the first left behind is there."""
    largest = 0.0
    for _ in range(2):
        for rows, inputs in batches.items():
            outputs = instance.run(inputs)
            largest = max(largest, *(float(np.abs(outputs[n] - a).max()) for n, a in expected[rows].items()))
    spread = max(float(np.ptp(a, axis=0).max()) for a in expected[STEPS[-1]].values())
    report.check(
        "answers", model, mode, holds=largest <= tolerance < spread, difference=largest, tolerance=tolerance,
        spread=spread,
    )  # fmt: skip


def measure_steps(
    report: Report, model: str, mode: str, instance: Instance, batches: Mapping[int, Arrays], effort: Effort,
    *, must_hold: bool,
) -> None:  # fmt: skip
    """No batch size should take longer than the next larger one: padding would be faster than it."""
    times = {rows: timed(partial(instance.run, inputs), effort) for rows, inputs in batches.items()}
    for rows in REQUESTS:
        add_speed(report, "instance", model, mode, rows, times[rows])
    p50 = {rows: float(np.median(seconds)) * 1e3 for rows, seconds in times.items()}
    slower = [rows for rows, larger in itertools.pairwise(STEPS) if p50[rows] > SLOWER * p50[larger]]
    figures: dict[str, Any] = {"p50_ms": p50, "slower_than_the_next": slower}
    if must_hold:
        report.check("steps", model, mode, not slower, **figures)
    else:
        report.add("steps", model, mode, "measured", **figures)


def check_memory(
    report: Report, model: str, mode: str, instance: Instance, used_bytes: Callable[[], int], largest: Arrays,
    effort: Effort,
) -> None:  # fmt: skip
    """The device's memory after many batches of mixed sizes is what it was after warming."""
    before = used_bytes()
    for rows in np.random.default_rng(2).integers(1, STEPS[-1] + 1, effort.batches):
        instance.run({name: array[:rows] for name, array in largest.items()})
    growth = used_bytes() - before
    report.check(
        "memory", model, mode, holds=growth <= MEMORY_GROWTH, batches=effort.batches, used_mib=used_bytes() / 2**20,
        growth_mib=growth / 2**20,
    )  # fmt: skip


def measure_bare(report: Report, path: Path, model: str, batches: Mapping[int, Arrays], effort: Effort) -> None:
    """What ONNX Runtime alone does on CUDA, copying by itself."""
    session = load_session(path, providers=(CUDA, CPU), intra_op_num_threads=1)
    for rows in REQUESTS:
        session.run(batches[rows])
        add_speed(report, "bare session", model, "", rows, timed(partial(session.run, batches[rows]), effort))


def check_server(
    report: Report, repository: Path, models: Sequence[str], mode: str, flags: Sequence[str], effort: Effort,
    *, on_gpu: bool,
) -> None:  # fmt: skip
    """Cold start, golden checks, and requests of each size, with the server in a process of its own."""
    if not on_gpu and flags:
        for model in models:
            report.add("server", model, mode, "no GPU")
        return
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            (Path(folder) / model).symlink_to((repository / model).resolve())
        began = time.perf_counter()
        with started(Path(folder), "--provider", "cuda" if on_gpu else "cpu", "--max-batch-size", "256", *flags) as (
            _,
            line,
        ):
            mode = mode if on_gpu else "CPU"
            ready = f" {CUDA if on_gpu else CPU}" in line.replace("(", " ")
            report.add("cold start", "all", mode, "measured", seconds=time.perf_counter() - began)
            for model in models:
                report.check("golden", model, mode, holds=ready and f"{model}/1" in line)
                for rows, concurrency in REQUESTS.items():
                    if f"{model}/1" in line:
                        times, wall_s = load(line, repository, model, rows, concurrency, effort)
                        add_speed(report, "server", model, mode, rows, times, wall_s=wall_s)


def load(
    line: str, repository: Path, model: str, rows: int, concurrency: int, effort: Effort
) -> tuple[list[float], float]:
    """Ask the server from a process of its own; how long each request took, and all of them."""
    spec = load_session(
        repository / model / "1" / "model.onnx", providers=(CPU,), intra_op_num_threads=1
    ).signature.inputs[0]
    address = line.split("gRPC ")[1].split(",")[0]
    arguments = [address, model, spec.name, spec.datatype.name, json.dumps([rows, *spec.shape[1:]])]
    done = subprocess.run(
        [*STARTED_WITH, *arguments, str(concurrency), str(effort.seconds)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)
    return answer["seconds"], answer["wall_s"]


def make_inputs(spec: Any, rows: int) -> Arrays:
    """Noise of many brightnesses: a network that averages over the picture answers all plain noise alike."""
    random = np.random.default_rng(rows)
    noise = random.integers(0, 256, (rows, *spec.shape[1:]), np.uint8)
    images = (noise * random.random((rows, 1, 1, 1))).astype(np.uint8)
    return {spec.name: images.astype(spec.datatype.dtype)}


def timed(run: Callable[[], object], effort: Effort) -> list[float]:
    """Seconds of each run, one after the other."""
    run()
    times: list[float] = []
    ends = time.perf_counter() + effort.seconds
    while (before := time.perf_counter()) < ends or not times:
        run()
        times.append(time.perf_counter() - before)
    return times


if __name__ == "__main__":
    sys.exit(main())
