"""`python -m bench.gpu_check REPOSITORY`: does a GPU answer as the CPU does, and how fast?

Takes what `bench.gpu_export` wrote, and needs no more than the server's packages: no TensorFlow, no
network. Prints one table (x is images/s over the bare CUDA session's) and writes JSON; the exit status
is 1 if a check failed. Without a GPU the same steps run on the CPU, and the GPU's rows say so.
"""

import argparse
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import onnxruntime

from bench.gpu_faults import check_lost
from bench.gpu_model import FIRST, LARGEST, MODES, USUAL, Effort, check_memory_limit, check_model
from bench.gpu_report import Report, print_table
from bench.gpu_server import (
    FRONT_ENDS,
    INSTANCES,
    MANY_REQUESTS,
    REQUESTS,
    measure_connections,
    measure_jpeg,
    measure_requests,
    serving,
)
from bench.gpu_weights import write_weights
from inferry_proto.cores import available_cores
from inferry_server.errors import StartError
from inferry_server.runtime.driver import read_driver
from inferry_server.runtime.providers import choose_providers, preload_libraries

ROOT = Path(__file__).parents[1]
EFFORTS = {"quick": Effort(0.2, 200, 3), "brief": Effort(0.2, 1000, None), "thorough": Effort(2.0, 10_000, None, 3.0)}
"""Brief is for a GPU that is lent for minutes: all models in some five."""
MORE_MODES = ("mnist-uint8", "celeba-float16", "resnet50-float16")
"""Models that are computed in all ways."""
USUAL_FLAGS = ["--prefer-nhwc", "off"]
OTHERS = {"graphs off": ["--no-cuda-graphs", "--prefer-nhwc", "off"], "graphs, NHWC": ["--prefer-nhwc", "on"]}
"""Ways to compute in which the server is measured, with its flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("repository", type=Path, help="written by bench.gpu_export")
    parser.add_argument("--effort", choices=EFFORTS, default="brief", help="all models in five minutes (brief)")
    parser.add_argument("--quick", action="store_const", dest="effort", const="quick", help="one network only")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part of the check; may be given again")
    parser.add_argument("--model", action="append", help="this model only; may be given again")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / "gpu.json")
    chosen = parser.parse_args(arguments)
    effort = EFFORTS[chosen.effort]
    found = find_models(chosen.repository)
    if not found:
        parser.error(f"{chosen.repository} holds no models; write them with bench.gpu_export")
    if unknown := sorted(set(chosen.model or ()) - set(found)):
        parser.error(f"--model is {', '.join(unknown)}; {chosen.repository} holds {', '.join(found)}")
    models = found[: effort.models] if chosen.model is None else [each for each in found if each in chosen.model]
    on_gpu, why = find_gpu()
    report = Report(machine(why), path=chosen.out)
    print(", ".join(f"{key} {value}" for key, value in report.machine.items()))
    for name, part in PARTS.items():
        if chosen.only is None or name in chosen.only:
            with noted(report, name, "all"):
                part(report, chosen.repository, models, effort, on_gpu=on_gpu)
    if not report.rows:
        parser.error(f"nothing was checked: --only {', '.join(chosen.only)} has nothing for {', '.join(models)}")
    print_table(report, list(REQUESTS))
    print(f"\n{report.failed} of {len(report.rows)} rows failed; {chosen.out}")
    return 1 if report.failed else 0


def find_models(repository: Path) -> list[str]:
    """The models of a repository, MNIST's first and the largest last; weights that were not carried are written."""
    for path in repository.glob("*/1"):
        write_weights(path)
    models = sorted(path.parent.parent.name for path in repository.glob("*/1/model.onnx"))
    return sorted(models, key=lambda name: (not name.startswith("mnist"), name.startswith(LARGEST)))


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


class Part(Protocol):
    """One part of the check: it adds rows to the report."""

    def __call__(
        self, report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool
    ) -> None: ...


@contextmanager
def noted(report: Report, what: str, model: str) -> Iterator[None]:
    """Make a failed row of an error, so that whatever comes next is checked all the same."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the rest is checked whatever broke
        traceback.print_exc()
        report.check(what, model, "", holds=False, reason=f"{type(error).__name__}: {error}"[:300])


def check_usual_modes(report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool) -> None:
    """Answers, step times, speed and memory of each model, without the server, with and without recording."""
    for model in models:
        with noted(report, "models", model):
            check_model(report, _file(repository, model), model, MODES[:2], effort, on_gpu=on_gpu)


def check_other_modes(report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool) -> None:
    """The same in all other ways, of some models."""
    for model in models:
        if model in MORE_MODES:
            with noted(report, "modes", model):
                check_model(report, _file(repository, model), model, MODES[2:], effort, on_gpu=on_gpu)


def check_usual_server(
    report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool
) -> None:
    """The server as it is started for float32."""
    check_server(report, repository, _served(models), USUAL, USUAL_FLAGS, effort, on_gpu=on_gpu)


def check_other_servers(
    report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool
) -> None:
    """The server that computes in other ways."""
    for mode, flags in OTHERS.items():
        check_server(report, repository, _pixels(models), mode, flags, effort, on_gpu=on_gpu)


def check_device_limits(
    report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool
) -> None:
    """A batch that does not fit into the memory that is allowed."""
    for model in models:
        if model.startswith(LARGEST):
            check_memory_limit(report, _file(repository, model), model, on_gpu=on_gpu)


def check_lost_device(report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool) -> None:
    """A device that fails while it computes."""
    check_lost(report, _file(repository, models[0]), models[0], on_gpu=on_gpu)


def _file(repository: Path, model: str) -> Path:
    return repository / model / "1" / "model.onnx"


def _served(models: Sequence[str]) -> list[str]:
    """Those that the server is measured with: the largest takes too long."""
    return [model for model in models if not model.startswith(LARGEST)]


def _pixels(models: Sequence[str]) -> list[str]:
    return [model for model in _served(models) if model.endswith("uint8")] or _served(models)


def check_server(
    report: Report, repository: Path, models: Sequence[str], mode: str, flags: Sequence[str], effort: Effort,
    *, on_gpu: bool,
) -> None:  # fmt: skip
    """Cold start, golden checks, requests of each size, connections and pictures, from another process."""
    if not models:
        return
    if not on_gpu and mode != USUAL:
        for model in models:
            report.add("server", model, mode, "no GPU")
        return
    mode, flags = (mode, flags) if on_gpu else ("CPU", ())
    with serving(report, repository, models, mode, flags, seconds=effort.server_seconds, on_gpu=on_gpu) as server:
        for model in filter(server.serves, models):
            measure_requests(report, server, model, mode)
            if model.endswith("uint8") and mode in (USUAL, "CPU"):
                measure_connections(report, server, model, mode)
                measure_jpeg(report, server, model, mode)


def check_front_ends(report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool) -> None:
    """Processes of the server's own hold the connections, and the one that owns the models computes."""
    models = _pixels(models)
    for count in FRONT_ENDS:
        mode, flags = f"{count} front ends", ["--front-ends", str(count), *USUAL_FLAGS]
        if not on_gpu:
            for model in models:
                report.add("server", model, mode, "no GPU")
            continue
        with serving(report, repository, models, mode, flags, seconds=effort.server_seconds, on_gpu=True) as server:
            for model in filter(server.serves, models):
                most = max(MANY_REQUESTS.values())
                measure_requests(report, server, model, mode, requests=MANY_REQUESTS, most_connections=most)


def check_instances(report: Report, repository: Path, models: Sequence[str], effort: Effort, *, on_gpu: bool) -> None:
    """One model with one, two and three instances on the device."""
    served = _served(models)
    if not served:
        return
    model = FIRST if FIRST in served else served[0]
    for count in INSTANCES:
        mode = f"{count} instance{'s' * (count > 1)}"
        if not on_gpu:
            report.add("server", model, mode, "no GPU")
            continue
        flags = ("--instance-count", str(count), *USUAL_FLAGS)
        with serving(report, repository, [model], mode, flags, seconds=effort.server_seconds, on_gpu=True) as server:
            if server.serves(model):
                measure_requests(report, server, model, mode)


PARTS: dict[str, Part] = {  # what matters most first: a run that is cut off has measured it
    "models": check_usual_modes,
    "server": check_usual_server,
    "front-ends": check_front_ends,
    "memory-limit": check_device_limits,
    "lost": check_lost_device,
    "modes": check_other_modes,
    "servers": check_other_servers,
    "instances": check_instances,
}


if __name__ == "__main__":
    sys.exit(main())
