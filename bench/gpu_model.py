"""One model on a GPU, without the server: as `bench.gpu_check` compares it with the CPU and measures it."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.gpu_report import Report, add_speed
from bench.gpu_server import (
    REQUESTS,
)
from inferry_proto.cores import available_cores
from inferry_proto.datatypes import Arrays
from inferry_server.batching.request import ladder
from inferry_server.errors import DeviceOutOfMemoryError, InferenceError, ModelLoadError
from inferry_server.runtime.cuda_options import CudaOptions, provider_options
from inferry_server.runtime.device_memory import HostMemory
from inferry_server.runtime.instance import Instance
from inferry_server.runtime.instances import Devices, LoadedSession, make_instance, open_session
from inferry_server.runtime.providers import CPU, CUDA, TENSORRT
from inferry_server.runtime.session import load_session

STEPS = ladder(256)
USUAL = "graphs on"  # the server's own choice for float32; for float16 it is that with NHWC
_ROUNDS = 3
_MEMORY_S = 8  # times as long as a speed is measured
MANY_BATCHES = 10_000  # of the first model, whatever the effort on a GPU: a leak shows only after thousands
LARGEST, LARGEST_ROWS = "resnet", 128
LIMIT_BYTES = 256 << 20  # the largest network's weights and some of its rows

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

    @property
    def searches(self) -> bool:
        """Whether kernels are measured, for every batch size."""
        return self.options.cudnn_conv_algo_search == "exhaustive"


FIRST = "mnist-uint8"
_PLAIN = CudaOptions(cuda_graphs=False, prefer_nhwc="off")
MODES = (
    Mode("graphs off", _PLAIN),
    Mode(USUAL, replace(_PLAIN, cuda_graphs=True)),
    Mode("graphs, NHWC", replace(_PLAIN, cuda_graphs=True, prefer_nhwc="on")),
    Mode("graphs, search", replace(_PLAIN, cuda_graphs=True, cudnn_conv_algo_search="exhaustive")),
    Mode("NHWC", replace(_PLAIN, prefer_nhwc="on")),
    Mode("exhaustive", replace(_PLAIN, cudnn_conv_algo_search="exhaustive")),
    Mode("graphs, TF32", replace(_PLAIN, cuda_graphs=True, tf32=True), "tf32"),
)


@dataclass(frozen=True)
class Effort:
    """How long everything may take; the server's requests longer, as several processes send them."""

    seconds: float
    batches: int
    models: int | None
    server_seconds: float = 0.5


def check_model(report: Report, path: Path, model: str, modes: Sequence[Mode], effort: Effort, *, on_gpu: bool) -> None:
    """One model in some ways to compute; on a machine without a GPU as the CPU does it."""
    cpu = load_session(path, providers=(CPU,), intra_op_num_threads=available_cores())
    batches = {rows: make_inputs(cpu.signature.inputs[0], rows) for rows in steps_of(model)}
    expected = {rows: cpu.run(inputs) for rows, inputs in batches.items()}
    if not on_gpu:
        instance = make_instance(LoadedSession(cpu, HostMemory()), Devices(), cpu.signature, tuple(batches))
        check_answers(report, model, "CPU buffers", instance, batches, expected, tolerance=0.0)
        measure_steps(report, model, "CPU buffers", instance, batches, effort, must_hold=False)
        check_memory(report, model, "CPU buffers", instance, None, batches[max(batches)], 20, effort.seconds)
        for mode in modes:
            report.add("answers", model, mode.name, "no GPU")
        return
    if modes[0] is MODES[0]:
        measure_bare(report, path, model, batches, effort)
    for mode in modes:
        if mode.searches and model.startswith(LARGEST):
            continue  # for minutes
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
    all_of_them = model == FIRST and mode.name == USUAL
    check_memory(
        report, model, mode.name, instance, loaded.memory.used_bytes, batches[max(batches)],
        MANY_BATCHES if all_of_them else effort.batches, np.inf if all_of_them else _MEMORY_S * effort.seconds,
    )  # fmt: skip
    instance.close()


def check_answers(
    report: Report, model: str, mode: str, instance: Instance, batches: Mapping[int, Arrays],
    expected: Mapping[int, Arrays], *, tolerance: float,
) -> None:  # fmt: skip
    """Every step, twice: the second time what the first left behind is there."""
    differences = []
    for _ in range(2):
        for rows, inputs in batches.items():
            outputs = instance.run(inputs)
            differences += [np.abs(outputs[name] - array).max() for name, array in expected[rows].items()]
    largest = float(np.max(differences))  # not Python's max, which passes over NaN
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
    times: dict[int, list[float]] = {rows: [] for rows in batches}
    for _ in range(_ROUNDS):  # in turns: a GPU's clock rises while it is asked
        for rows, inputs in batches.items():
            times[rows] += timed(partial(instance.run, inputs), effort.seconds / _ROUNDS)
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
    report: Report, model: str, mode: str, instance: Instance, used_bytes: Callable[[], int] | None, largest: Arrays,
    batches: int, seconds: float = np.inf,
) -> None:  # fmt: skip
    """The device's memory after many batches of mixed sizes is what it was after warming; and how fast those were.

    Without a device (`used_bytes` is None) only how fast they were.
    """
    before = used_bytes() if used_bytes else 0
    most = len(next(iter(largest.values())))
    mixed = np.random.default_rng(2).integers(1, most + 1, batches)
    began, ran = time.perf_counter(), 0
    for rows in mixed:
        instance.run({name: array[:rows] for name, array in largest.items()})
        ran += 1
        if time.perf_counter() - began > seconds:
            break
    wall_s = time.perf_counter() - began
    mixed_speed = {"mixed_images_per_s": float(mixed[:ran].sum()) / wall_s, "mixed_ms": wall_s / ran * 1e3}
    if used_bytes is None:
        report.add("memory", model, mode, "measured", batches=ran, **mixed_speed)
        return
    used = used_bytes()
    report.check(
        "memory", model, mode, holds=used - before <= MEMORY_GROWTH, batches=ran, used_mib=used / 2**20,
        growth_mib=(used - before) / 2**20, **mixed_speed,
    )  # fmt: skip


def check_memory_limit(report: Report, path: Path, model: str, *, on_gpu: bool) -> None:
    """A batch that does not fit is told from one that fails, and a smaller one is computed afterwards."""
    what, mode = "memory limit", f"{LIMIT_BYTES >> 20} MiB"
    if not on_gpu:
        report.add(what, model, mode, "no GPU")
        return
    loaded = open_session(
        path,
        (CUDA, CPU),
        Devices(replace(_PLAIN, gpu_mem_limit_bytes=LIMIT_BYTES)),
        device_id=0,
        intra_op_num_threads=1,
    )
    instance = make_instance(loaded, Devices(_PLAIN), loaded.session.signature, ladder(LARGEST_ROWS))
    spec = loaded.session.signature.inputs[0]
    try:
        instance.run(make_inputs(spec, LARGEST_ROWS))
        said = "everything fitted"
    except DeviceOutOfMemoryError:
        said = "out of memory"
    except InferenceError as error:
        said = repr(error)[:300]
    outputs = instance.run(make_inputs(spec, 1))
    finite = all(bool(np.isfinite(array).all()) for array in outputs.values())
    report.check(what, model, mode, holds=said == "out of memory" and finite, said=said)
    instance.close()


def measure_bare(report: Report, path: Path, model: str, batches: Mapping[int, Arrays], effort: Effort) -> None:
    """What ONNX Runtime alone does on CUDA, copying by itself: at the server's precision, and as it comes (TF32)."""
    same = provider_options((CUDA, CPU), _PLAIN, device_id=0, stream=0)
    del same[0][1]["user_compute_stream"]
    for what, providers in (("bare session", same), ("bare, its defaults", (CUDA, CPU))):
        session = load_session(path, providers=providers, intra_op_num_threads=1)
        for rows in sizes(batches):
            run = partial(session.run, batches[rows])
            add_speed(report, what, model, "", rows, timed(run, effort.seconds))
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
    add_speed(report, "bare TensorRT", model, "", rows, timed(partial(session.run, batches[rows]), effort.seconds))


def sizes(steps: Iterable[int]) -> list[int]:
    """The batch sizes whose speed is stated: those of the requests, and the largest."""
    return sorted({*REQUESTS, max(steps)} & set(steps))


def make_inputs(spec: Any, rows: int) -> Arrays:
    """Noise of many brightnesses: a network that averages over the picture answers all plain noise alike."""
    random = np.random.default_rng(rows)
    noise = random.integers(0, 256, (rows, *spec.shape[1:]), np.uint8)
    images = (noise * random.random((rows, 1, 1, 1))).astype(np.uint8)
    return {spec.name: images.astype(spec.datatype.dtype)}


def timed(run: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each run, one after the other."""
    run()
    times: list[float] = []
    ends = time.perf_counter() + seconds
    while (before := time.perf_counter()) < ends or not times:
        run()
        times.append(time.perf_counter() - before)
    return times
