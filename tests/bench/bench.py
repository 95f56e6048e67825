"""`make bench`: what the server costs beyond the model, as ratios measured in one run.

Rounds alternate between the bare model and the server, and medians are printed, because machines
are noisy. The load generator shares the cores with the server, so the server's CPU time is the
figure that compares; throughput is reported beside it. Figures go to runs/bench/bench.json too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from tqdm import tqdm

from inferry_proto.preprocessing import UInt8Array
from inferry_server.runtime.providers import CPU
from inferry_server.runtime.session import load_session
from inferry_server.runtime.threads import available_cores
from inferry_trainer.quiet import import_tensorflow_quietly

ROOT = Path(__file__).parents[2]
LOAD_GENERATOR = Path(__file__).with_name("load_generator.py")
BATCH = 32


@dataclass(frozen=True)
class Sample:
    """One round of one workload.

    Attributes:
        images_per_s: answered.
        cpu_us_per_image: of the process that computes: the server, or the bare session's.
        p50_ms: of a request; 0 where there are none.
        p99_ms: likewise.
    """

    images_per_s: float
    cpu_us_per_image: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each workload in each round")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        model = export_untrained_network(repository)
        started = time.monotonic()
        with serving(repository) as (server, address):
            ready_s = time.monotonic() - started
            workloads = make_workloads(model, server, address, arguments.seconds)
            samples = measure(workloads, arguments.rounds)
            idle = idle_cpu(server, arguments.seconds)
    report = summarize(samples) | {"start_to_ready_s": ready_s, "idle_cpu_of_a_core": idle}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    print_report(report, arguments.out / "bench.json")
    return 0


def export_untrained_network(repository: Path) -> Path:
    """The chapter's MNIST network as it is served; what it answers does not change what it costs."""
    import_tensorflow_quietly(verbose=False)
    from inferry_trainer.export import export_onnx
    from inferry_trainer.models import build_mnist_cnn

    path = repository / "mnist" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    export_onnx(build_mnist_cnn((28, 28, 1), classes=10), path)
    return path


@contextmanager
def serving(repository: Path) -> Iterator[tuple[psutil.Process, str]]:
    """The server as a process, and its gRPC address."""
    command = [sys.executable, "-m", "inferry_server", "--repository", str(repository), "--log-level", "warning"]
    command += ["--grpc-address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0", "--provider", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield psutil.Process(process.pid), process.stdout.readline().split("gRPC ")[1].split(",")[0]
        finally:
            process.terminate()


def make_workloads(
    model: Path, server: psutil.Process, address: str, seconds: float
) -> dict[str, Callable[[], Sample]]:
    session = load_session(model, providers=(CPU,), intra_op_num_threads=available_cores())

    def bare(rows: int) -> Sample:
        return run_bare(lambda images: session.run({"images": images}), rows, seconds)

    def served(rows: int, concurrency: int) -> Sample:
        return run_served(server, address, rows, concurrency, seconds)

    return {
        "bare session, 1 image": lambda: bare(1),
        "served, 1 image, 1 at a time": lambda: served(1, 1),
        "served, 1 image, 32 at a time": lambda: served(1, 32),
        "bare session, 32 images": lambda: bare(BATCH),
        "served, 32 images, 4 at a time": lambda: served(BATCH, 4),
    }


def measure(workloads: dict[str, Callable[[], Sample]], rounds: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in workloads}
    with tqdm(total=rounds * len(workloads), unit="run", disable=None, leave=False) as progress:
        for _ in range(rounds):
            for name, workload in workloads.items():
                progress.set_description(name)
                samples[name].append(workload())
                progress.update()
    return samples


def run_bare(run: Callable[[UInt8Array], object], rows: int, seconds: float) -> Sample:
    images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), np.uint8)
    run(images)
    times: list[float] = []
    cpu, started = time.process_time(), time.perf_counter()
    while (before := time.perf_counter()) - started < seconds:
        run(images)
        times.append(time.perf_counter() - before)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    count = len(times) * rows
    return Sample(count / wall, cpu / count * 1e6, *percentiles_ms(times))


def run_served(server: psutil.Process, address: str, rows: int, concurrency: int, seconds: float) -> Sample:
    before = cpu_s(server)
    command = [sys.executable, LOAD_GENERATOR, address, rows, concurrency, seconds]
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
    cpu = cpu_s(server) - before
    load = json.loads(done.stdout)
    count = len(load["seconds"]) * rows
    return Sample(count / load["wall_s"], cpu / count * 1e6, *percentiles_ms(load["seconds"]))


def percentiles_ms(times: list[float]) -> tuple[float, float]:
    p50, p99 = np.percentile(times, [50, 99])
    return float(p50 * 1e3), float(p99 * 1e3)


def cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def idle_cpu(server: psutil.Process, seconds: float) -> float:
    before = cpu_s(server)
    time.sleep(seconds)
    return (cpu_s(server) - before) / seconds


def summarize(samples: dict[str, list[Sample]]) -> dict[str, object]:
    """Medians and spreads of each workload, and the ratios that matter, each the median over rounds."""

    def median_of(ratio: Callable[[Sample, Sample], float], above: str, below: str) -> float:
        return statistics.median(ratio(a, b) for a, b in zip(samples[above], samples[below], strict=True))

    workloads = {
        name: {key: statistics.median(asdict(s)[key] for s in rounds) for key in asdict(rounds[0])}
        | {"images_per_s_spread": [min(s.images_per_s for s in rounds), max(s.images_per_s for s in rounds)]}
        for name, rounds in samples.items()
    }
    batch, bare_batch = "served, 32 images, 4 at a time", "bare session, 32 images"
    alone, bare_alone = "served, 1 image, 1 at a time", "bare session, 1 image"
    ratios = {
        "32 images: images/s, served / bare": median_of(
            lambda s, b: s.images_per_s / b.images_per_s, batch, bare_batch
        ),
        "32 images: server CPU per image / model's": median_of(
            lambda s, b: s.cpu_us_per_image / b.cpu_us_per_image, batch, bare_batch
        ),
        "1 image, 32 at a time: server CPU beyond the model's batch, us": median_of(
            lambda s, b: s.cpu_us_per_image - b.cpu_us_per_image, "served, 1 image, 32 at a time", bare_batch
        ),
        "1 image, 1 at a time: p50 beyond the bare run, us": median_of(
            lambda s, b: (s.p50_ms - b.p50_ms) * 1e3, alone, bare_alone
        ),
    }
    return {"cores": available_cores(), "workloads": workloads, "ratios": ratios}


def print_report(report: dict[str, object], path: Path) -> None:
    workloads, ratios = report["workloads"], report["ratios"]
    assert isinstance(workloads, dict)
    assert isinstance(ratios, dict)
    print(f"chapter's MNIST network, float32, uint8 pixels, {report['cores']} cores shared with the load generator\n")
    print(f"{'':<32}{'images/s':>10}{'CPU us/image':>14}{'p50 ms':>9}{'p99 ms':>9}")
    for name, row in workloads.items():
        figures = (
            f"{row['images_per_s']:>10,.0f}{row['cpu_us_per_image']:>14,.0f}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}"
        )
        print(f"{name:<32}{figures}")
    print()
    for name, value in ratios.items():
        print(f"{name:<66}{value:>8,.2f}")
    print(f"{'start to ready, s':<66}{report['start_to_ready_s']:>8.2f}")
    print(f"{'idle, of a core':<66}{report['idle_cpu_of_a_core']:>8.2%}")
    print(f"\n{path}")


if __name__ == "__main__":
    sys.exit(main())
