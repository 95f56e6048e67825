"""`python -m bench.gpu_check REPOSITORY`: does a GPU answer as the CPU does, and how fast?

Takes what `bench.gpu_export` wrote, and needs no more than the server's packages: no TensorFlow, no
network. Prints one table (x is images/s over the bare CUDA session's) and writes JSON; the exit status
is 1 if a check failed. Without a GPU the same steps run on the CPU, and the GPU's rows say so.
"""

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench.gpu_report import Report, add_speed, print_table
from bench.gpu_server import (
    INSTANCES,
    REQUESTS,
    measure_connections,
    measure_jpeg,
    measure_requests,
    serving,
)
from bench.gpu_weights import write_weights
from inferry_proto.datatypes import Arrays
from inferry_server.batching.request import ladder
from inferry_server.errors import ModelLoadError, StartError
from inferry_server.runtime.cuda_options import CudaOptions
from inferry_server.runtime.device_memory import HostMemory
from inferry_server.runtime.driver import read_driver
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.instances import Devices, LoadedSession, make_instance, open_session
from inferry_server.runtime.providers import CPU, CUDA, TENSORRT, choose_providers, preload_libraries
from inferry_server.runtime.session import load_session
from inferry_server.runtime.threads import available_cores

ROOT = Path(__file__).parents[1]
STEPS = ladder(256)
LARGEST, LARGEST_ROWS = "resnet", 128

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


FIRST = "mnist-uint8"
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


EFFORTS = {"quick": Effort(0.2, 200, 3), "brief": Effort(0.2, 1000, None), "thorough": Effort(2.0, 10_000, None)}
"""Brief is for a GPU that is lent for minutes: all models in some four."""
MANY_BATCHES = 10_000  # of the first model, whatever the effort on a GPU: a leak shows only after thousands


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path, help="written by bench.gpu_export")
    parser.add_argument("--effort", choices=EFFORTS, default="brief", help="all models in four minutes (brief)")
    parser.add_argument("--quick", action="store_const", dest="effort", const="quick", help="one network only")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "gpu.json")
    chosen = parser.parse_args(arguments)
    effort = EFFORTS[chosen.effort]
    models = find_models(chosen.repository)[: effort.models]
    if not models:
        parser.error(f"{chosen.repository} holds no models; write them with bench.gpu_export")
    on_gpu, why = find_gpu()
    report = Report(machine(why), path=chosen.out)
    print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    check_everything(report, chosen.repository, models, effort, on_gpu=on_gpu)
    print_table(report, list(REQUESTS))
    print(f"\n{report.failed} of {len(report.rows)} rows failed; {chosen.out}")
    return 1 if report.failed else 0


def find_models(repository: Path) -> list[str]:
    """The models of a repository, MNIST's first and the largest last; weights that were not carried are written."""
    for path in repository.glob("*/1"):
        write_weights(path)
    models = sorted(path.parent.parent.name for path in repository.glob("*/1/model.onnx"))
    return sorted(models, key=lambda name: (not name.startswith("mnist"), name.startswith(LARGEST)))


def check_everything(report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool) -> None:
    """What matters most first: a run that is cut off has measured it."""
    served = [model for model in models if not model.startswith(LARGEST)]
    first, *others = MODES
    check_models(report, repository, models, (first,), effort, on_gpu=on_gpu)
    check_server(report, repository, served, "graphs off", [], effort, on_gpu=on_gpu)
    check_models(report, repository, models, others, effort, on_gpu=on_gpu)
    check_server(report, repository, served, "graphs on", ["--cuda-graphs"], effort, on_gpu=on_gpu)
    check_instances(report, repository, FIRST if FIRST in served else served[0], effort, on_gpu=on_gpu)


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


def check_models(
    report: Report, repository: Path, models: Sequence[str], modes: Sequence[Mode], effort: Effort, *, on_gpu: bool
) -> None:
    """Answers, step times, speed and memory of each model, without the server."""
    for model in models:
        path = repository / model / "1" / "model.onnx"
        if not on_gpu and MODES[0] not in modes:
            for mode in modes:
                report.add("answers", model, mode.name, "no GPU")
        else:
            check_model(report, path, model, modes, effort, on_gpu=on_gpu)


def check_model(report: Report, path: Path, model: str, modes: Sequence[Mode], effort: Effort, *, on_gpu: bool) -> None:
    """One model in some ways to compute; on a machine without a GPU as the CPU does it."""
    cpu = load_session(path, providers=(CPU,), intra_op_num_threads=available_cores())
    batches = {rows: make_inputs(cpu.signature.inputs[0], rows) for rows in steps_of(model)}
    expected = {rows: cpu.run(inputs) for rows, inputs in batches.items()}
    if not on_gpu:
        instance = make_instance(LoadedSession(cpu, HostMemory()), Devices(), cpu.signature, tuple(batches))
        check_answers(report, model, "CPU buffers", instance, batches, expected, tolerance=0.0)
        measure_steps(report, model, "CPU buffers", instance, batches, effort, must_hold=False)
        check_memory(report, model, "CPU buffers", instance, lambda: 0, batches[max(batches)], effort.batches)
        for mode in modes:
            report.add("answers", model, mode.name, "no GPU")
        return
    if MODES[0] in modes:
        measure_bare(report, path, model, batches, effort)
    for mode in modes:
        check_mode(report, path, model, mode, batches, expected, effort)


def steps_of(model: str) -> tuple[int, ...]:
    """The batch sizes to prepare; of the largest network no more than its memory and a CPU's patience allow."""
    return ladder(LARGEST_ROWS) if model.startswith(LARGEST) else STEPS


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
        instance = make_instance(loaded, devices, loaded.session.signature, tuple(batches))
        for rows in sorted(batches, reverse=True):
            instance.run(batches[rows])
        instance.prepare()
    except ModelLoadError as error:
        report.check("load", model, mode.name, holds=False, reason=str(error))
        return
    report.add("load and warm", model, mode.name, "measured", seconds=time.perf_counter() - began)
    precision = "float16" if model.endswith("float16") else mode.tolerance
    check_answers(report, model, mode.name, instance, batches, expected, tolerance=TOLERANCES[precision])
    measure_steps(report, model, mode.name, instance, batches, effort, must_hold=True)
    many = MANY_BATCHES if model == FIRST and mode is MODES[0] else effort.batches
    check_memory(report, model, mode.name, instance, loaded.memory.used_bytes, batches[max(batches)], many)
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
    spread = max(float(np.ptp(a, axis=0).max()) for a in expected[max(expected)].values())
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
    for rows in sizes(times):
        add_speed(report, "instance", model, mode, rows, times[rows])
    p50 = {rows: float(np.median(seconds)) * 1e3 for rows, seconds in times.items()}
    slower = [rows for rows, larger in itertools.pairwise(sorted(times)) if p50[rows] > SLOWER * p50[larger]]
    figures: dict[str, Any] = {"p50_ms": p50, "slower_than_the_next": slower}
    if must_hold:
        report.check("steps", model, mode, not slower, **figures)
    else:
        report.add("steps", model, mode, "measured", **figures)


def check_memory(
    report: Report, model: str, mode: str, instance: Instance, used_bytes: Callable[[], int], largest: Arrays,
    batches: int,
) -> None:  # fmt: skip
    """The device's memory after many batches of mixed sizes is what it was after warming."""
    before = used_bytes()
    most = len(next(iter(largest.values())))
    for rows in np.random.default_rng(2).integers(1, most + 1, batches):
        instance.run({name: array[:rows] for name, array in largest.items()})
    growth = used_bytes() - before
    report.check(
        "memory", model, mode, holds=growth <= MEMORY_GROWTH, batches=batches, used_mib=used_bytes() / 2**20,
        growth_mib=growth / 2**20,
    )  # fmt: skip


def measure_bare(report: Report, path: Path, model: str, batches: Mapping[int, Arrays], effort: Effort) -> None:
    """What ONNX Runtime alone does on CUDA, copying by itself."""
    session = load_session(path, providers=(CUDA, CPU), intra_op_num_threads=1)
    for rows in sizes(batches):
        session.run(batches[rows])
        add_speed(report, "bare session", model, "", rows, timed(partial(session.run, batches[rows]), effort))
    measure_tensorrt(report, path, model, batches, effort)


def measure_tensorrt(report: Report, path: Path, model: str, batches: Mapping[int, Arrays], effort: Effort) -> None:
    """The same through TensorRT, where it is installed: one size only, as it builds an engine for each."""
    rows = min(32, max(batches))
    try:
        session = load_session(path, providers=(TENSORRT, CUDA, CPU), intra_op_num_threads=1)
    except ModelLoadError as error:
        report.add("bare TensorRT", model, "", "no TensorRT", reason=str(error).partition("\n")[0][:120])
        return
    if session.provider != TENSORRT:
        report.add("bare TensorRT", model, "", "no TensorRT", reason=f"{session.provider} computes")
        return
    session.run(batches[rows])
    add_speed(report, "bare TensorRT", model, "", rows, timed(partial(session.run, batches[rows]), effort))


def check_server(
    report: Report, repository: Path, models: Sequence[str], mode: str, flags: Sequence[str], effort: Effort,
    *, on_gpu: bool,
) -> None:  # fmt: skip
    """Cold start, golden checks, requests of each size, connections and pictures, from another process."""
    if not on_gpu and flags:
        for model in models:
            report.add("server", model, mode, "no GPU")
        return
    mode = mode if on_gpu else "CPU"
    with serving(report, repository, models, mode, flags, seconds=effort.seconds, on_gpu=on_gpu) as server:
        for model in filter(server.serves, models):
            measure_requests(report, server, model, mode)
            if model.endswith("uint8"):
                measure_connections(report, server, model, mode)
                measure_jpeg(report, server, model, mode)


def check_instances(report: Report, repository: Path, model: str, effort: Effort, *, on_gpu: bool) -> None:
    """One model with one, two and three instances on the device."""
    for count in INSTANCES:
        mode = f"{count} instance{'s' * (count > 1)}"
        if not on_gpu:
            report.add("server", model, mode, "no GPU")
            continue
        flags = ("--instance-count", str(count))
        with serving(report, repository, [model], mode, flags, seconds=effort.seconds, on_gpu=True) as server:
            if server.serves(model):
                measure_requests(report, server, model, mode)


def sizes(steps: Iterable[int]) -> list[int]:
    """The batch sizes whose speed is stated: those of the requests, and the largest."""
    return sorted({*REQUESTS, max(steps)} & set(steps))


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
