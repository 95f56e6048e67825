"""MLPerf's LoadGen against a server over gRPC: a load generator and a judge that nobody here wrote.

    python -m bench.loadgen --run runs/demo --address 127.0.0.1:8001
    python -m bench.loadgen --seconds 10 --server-seconds 60 --triton     # the whole table, some six minutes
    python -m bench.loadgen --peaks 3                   # only: does `inferry load --find-peak` find the same peak?
    python -m bench.loadgen --peaks 3 --apart           # the same, the server and what sends on cores of their own

serves what `make demo` left (or `--run`, a run folder whose models lie in `models/`), unless an
address names a server of the Open Inference Protocol that serves the same model. `--triton` starts
Triton too (its Python backend and the same ONNX Runtime), driven by the same system under test.
In the Server scenario queries that wait while a request is under way travel together in the next one, up to 32;
`--peaks` sends a request for each query, as `inferry load` does.
Results are unofficial: no submission, no audit, another network than MLPerf's.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.contenders import INPUT, MODEL, OUTPUT, SHAPE, Contender
from bench.environments import environment, site_packages
from bench.loadgen_peaks import TRIAL_S, NoPeakError, open_loop_holds, peaks_in_turns, watched
from bench.loadgen_results import Result, SummaryError, peaks_table, read_summary, table
from bench.loadgen_target import Target
from bench.server_process import started
from inferry_client.client import Client
from inferry_client.connecting.channels import ChannelSettings, open_channel
from inferry_client.load.payloads import choose_payloads
from inferry_proto.cores import available_cores

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server", "Accuracy")
LATENCY_MS = 15  # of the Server scenario, p99
_WAYS = {  # in which a scenario's samples travel: rows of a request at most, and requests under way at most
    "SingleStream": (1, 1),
    "MultiStream": (8, 1),
    "Offline": (32, 8),
    "Accuracy": (32, 8),
    "Server": (32, 1),
}
_QUERIES = {"MultiStream": 700}  # at the least, for LoadGen to believe a p99; 100 are enough for all else
_EACH_BY_ITSELF = (1, 1_000_000)
_SERVER_SHARES = (0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of Offline, tried until one is valid
_GUESS_S = 2.0  # of a run whose figures prepare the one that counts
_OFFLINE_RUNS = 3  # at the most, until one has lasted for its time
_TRIAL_S = 3.0  # of the Server scenario: shares that cannot be valid are found out before the long run
_TRIES = 2  # of a share and a length of run
_LONG_RUNS = 3  # of the Server scenario at the most, so that the table has its end


def import_loadgen() -> Any:
    """LoadGen's module, from an environment of its own."""
    sys.path.append(str(site_packages(environment("loadgen"))))
    import mlperf_loadgen  # type: ignore[import-not-found, unused-ignore]

    return mlperf_loadgen


def run_scenario(
    loadgen: Any,
    target: Target,
    scenario: str,
    *,
    seconds: float,
    rate: float = 1.0,
    query_s: float = 1e-3,
    joins: bool = True,
    seed: int = 0,
) -> Result:
    """One scenario, as long as LoadGen's rules for it ask, and at least so many seconds.

    Args:
        loadgen: the module.
        target: the system under test.
        scenario: LoadGen's name, or Accuracy.
        seconds: for which it lasts.
        rate: of the queries, where the scenario has one.
        query_s: what a query takes, where the next one waits for it. LoadGen prepares no more queries than fill the
            time so, and a run that has sent them all before its time is over is invalid.
        joins: single queries that wait travel together; else each is a request.
        seed: of when queries come; each other one is another schedule.
    """
    target.rows, target.under_way = _WAYS[scenario] if joins else _EACH_BY_ITSELF
    settings = loadgen.TestSettings()
    accuracy = scenario == "Accuracy"
    settings.scenario = getattr(loadgen.TestScenario, "Offline" if accuracy else scenario)
    settings.mode = loadgen.TestMode.AccuracyOnly if accuracy else loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(seconds * 1000)
    settings.min_query_count = _QUERIES.get(scenario, 100)
    settings.server_target_qps = settings.offline_expected_qps = rate
    settings.server_target_latency_ns = int(LATENCY_MS * 1e6)
    settings.server_target_latency_percentile = 0.99
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = int(query_s * 1e9)
    settings.multi_stream_samples_per_query = 8
    settings.schedule_rng_seed = seed
    target.failed = 0
    with tempfile.TemporaryDirectory(prefix="loadgen-") as folder:
        output = loadgen.LogOutputSettings()
        output.outdir, output.copy_summary_to_stdout = folder, False
        log = loadgen.LogSettings()
        log.log_output, log.enable_trace = output, False
        sut = loadgen.ConstructSUT(target.issue, target.flush)
        count = len(target.images)
        library = loadgen.ConstructQSL(count, count, lambda _: None, lambda _: None)
        try:
            loadgen.StartTestWithLogSettings(sut, library, settings, log)
        finally:
            loadgen.DestroyQSL(library)
            loadgen.DestroySUT(sut)
        if accuracy:
            return Result(scenario, len(target.labels), "samples", not target.failed)
        return read_summary((Path(folder) / "mlperf_log_summary.txt").read_text(), failed=target.failed)


def one_after_the_other(loadgen: Any, target: Target, scenario: str, *, seconds: float) -> Result:
    """A scenario whose next query waits for the answer to the one before.

    What a query takes is the least that one took in a short run: so the queries do not run out.
    """
    least_ms = run_scenario(loadgen, target, scenario, seconds=_GUESS_S).least_ms
    if not least_ms:
        raise SummaryError(f"LoadGen does not tell the least latency of {scenario}")
    return run_scenario(loadgen, target, scenario, seconds=seconds, query_s=least_ms / 1e3)


def all_at_once(loadgen: Any, target: Target, *, seconds: float) -> Result:
    """Offline, with samples for the whole time.

    LoadGen sends what fills the time at an expected rate. A run that was over too soon, since the one before it was
    disturbed, is made again at the rate it showed.
    """
    result = run_scenario(loadgen, target, "Offline", seconds=_GUESS_S, rate=2000)
    for _ in range(_OFFLINE_RUNS):
        result = run_scenario(loadgen, target, "Offline", seconds=seconds, rate=result.figure)
        if result.valid:
            break
    return result


def measure(loadgen: Any, target: Target, *, seconds: float, server_seconds: float) -> list[Result]:
    """Every performance scenario; Server at falling shares of Offline until one is valid."""
    results = [one_after_the_other(loadgen, target, name, seconds=seconds) for name in ("SingleStream", "MultiStream")]
    offline = all_at_once(loadgen, target, seconds=seconds)
    return [*results, offline, highest_server(loadgen, target, offline.figure, seconds=server_seconds)]


def highest_server(loadgen: Any, target: Target, offline: float, *, seconds: float) -> Result:
    """The Server scenario at the highest share that is valid; short trials come before the long run.

    A share is given up after two runs in a row, since other programs may have disturbed the first.
    """
    lengths = (_TRIAL_S, seconds) if seconds > 2 * _TRIAL_S else (seconds,)
    long_runs = 0
    for share in _SERVER_SHARES:
        for length in lengths:
            for _ in range(_TRIES):
                result = _server_run(loadgen, target, share, offline=offline, seconds=length)
                long_runs += length == seconds
                if result.valid or (long_runs >= _LONG_RUNS and len(lengths) > 1):
                    break
            if not result.valid:
                break
        if result.valid or (long_runs >= _LONG_RUNS and len(lengths) > 1):
            break
    return result


def _server_run(loadgen: Any, target: Target, share: float, *, offline: float, seconds: float) -> Result:
    began, cpu = time.monotonic(), time.process_time()
    result = run_scenario(loadgen, target, "Server", seconds=seconds, rate=share * offline)
    cores = (time.process_time() - cpu) / (time.monotonic() - began)
    said = "VALID" if result.valid else result.reasons[0]
    print(f"Server at {share:.2f} of Offline, {seconds:g} s: {said}; p99 {result.p99_ms} ms", file=sys.stderr)
    return replace(result, client_cores=cores)


def loadgen_holds(loadgen: Any, target: Target) -> Callable[[float, int], bool]:
    """How LoadGen's Server scenario tries a rate, with a request for each query."""

    def holds(rate: float, seed: int) -> bool:
        result = run_scenario(loadgen, target, "Server", seconds=TRIAL_S, rate=rate, joins=False, seed=seed)
        return not target.failed and result.p99_ms is not None and result.p99_ms <= LATENCY_MS

    return holds


def compare_peaks(
    loadgen: Any, address: str, model: str, data: "HeldOut", *, times: int, server: psutil.Process | None
) -> None:
    """Print what both generators find on the same server, each pair once it is known."""
    pairs: list[tuple[float, float]] = []
    with Client(address) as client:
        payloads = choose_payloads(client, model)
    with open_channel(address, ChannelSettings(resend=False)) as channel:
        target = Target(channel, loadgen, model, INPUT, OUTPUT, data.images)
        start = run_scenario(loadgen, target, "Offline", seconds=_GUESS_S, rate=2000).figure / 4
        theirs, ours = (
            watched(holds, server, partial(_say_of, name))
            for name, holds in (
                ("LoadGen", loadgen_holds(loadgen, target)),
                ("--find-peak", open_loop_holds(address, payloads, objective_ms=LATENCY_MS)),
            )
        )
        for number in range(times):
            if number % 2 == 0:
                pair = peaks_in_turns((theirs, ours), start=start)
            else:
                pair = peaks_in_turns((ours, theirs), start=start)[::-1]
            pairs.append(pair)
            print(peaks_table(pairs, latency_ms=LATENCY_MS), flush=True)


def _say_of(name: str, what: str) -> None:
    print(f"{name} {what}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def address_of(given: str | None, run: Path, *, apart: bool = False) -> Iterator[tuple[str, psutil.Process | None]]:
    """The server's: one that runs, or one started for the run's models, with its process.

    Args:
        given: of one that runs; None: none.
        run: a run folder.
        apart: the one that is started has half of the cores to itself, and the calling thread, with what it starts
            from then on, has the others.
    """
    if given:
        yield given, None
        return
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2 if apart else len(cores)
    try:
        os.sched_setaffinity(0, cores[:half])
        with started(run / "models") as (process, line):
            os.sched_setaffinity(0, cores[half:] or cores)
            if "gRPC " not in line:
                raise SystemExit(f"bench.loadgen: error: the server did not start with {run / 'models'}")
            yield line.split("gRPC ")[1].split(",")[0], psutil.Process(process.pid)
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def triton_of(model_file: Path, images: NDArray[np.uint8]) -> Iterator[str]:
    """The address of a Triton that serves this model."""
    if images.shape[1:] != SHAPE:
        raise SystemExit(f"bench.loadgen: error: pictures of {images.shape[1:]} came; Triton is set up for {SHAPE}")
    with tempfile.TemporaryDirectory(prefix="loadgen-triton-") as folder:
        triton = Contender("Triton", "triton", model_file.resolve(), available_cores())
        with triton.serve(Path(folder) / "server") as running:
            yield running.address


def judge(loadgen: Any, address: str, model: str, data: "HeldOut", *, seconds: float, server_seconds: float) -> bool:
    """Print the table of one server; whether all of it is valid and the accuracy Keras' own."""
    with open_channel(address, ChannelSettings(resend=False)) as channel:
        target = Target(channel, loadgen, model, INPUT, OUTPUT, data.images)
        run_scenario(loadgen, target, "Accuracy", seconds=0)
        right = sum(target.labels.get(number) == label for number, label in enumerate(data.labels.tolist()))
        results = measure(loadgen, target, seconds=seconds, server_seconds=server_seconds)
    print(table(results, accuracy=(right, data.right_by_keras, len(data.images))), flush=True)
    return right == data.right_by_keras and all(result.valid for result in results)


@dataclass(frozen=True)
class HeldOut:
    """The pictures of a run that nobody trained on, and how many of them Keras has right."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    right_by_keras: int


def read_held_out(run: Path) -> HeldOut:
    """What `make demo` leaves."""
    if not (run / "heldout.npz").is_file():
        raise SystemExit(f"bench.loadgen: error: {run} has no heldout.npz; `make demo` leaves one in runs/demo")
    with np.load(run / "heldout.npz") as file:
        images, labels = file["images"], file["labels"]
    right = round(json.loads((run / "metrics.json").read_text())["test_accuracy"] * len(images))
    return HeldOut(images, labels, right)


def main() -> int:
    parser = argparse.ArgumentParser(description="MLPerf's LoadGen, unofficial, over gRPC")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="a run folder, with heldout.npz and models/"
    )
    parser.add_argument("--model", help="the only one in models/, where it is left out")
    parser.add_argument("--address", help="a server that serves the model; else one is started")
    parser.add_argument("--seconds", type=float, default=60.0, help="at least, of each scenario (60)")
    parser.add_argument("--server-seconds", type=float, help="at least, of the Server scenario (as --seconds)")
    parser.add_argument("--triton", action="store_true", help="measure Triton too, installed on first use")
    parser.add_argument(
        "--peaks",
        type=int,
        default=0,
        metavar="N",
        help="only compare LoadGen's peak with --find-peak's, N times in turns",
    )
    parser.add_argument(
        "--apart", action="store_true", help="the server has half of the cores to itself, and what sends the others"
    )
    args = parser.parse_args()
    if args.apart and (args.address or args.triton or len(os.sched_getaffinity(0)) < 2):
        parser.error("--apart is for a server that is started here, on two cores or more: no --address, no --triton")
    data = read_held_out(args.run)
    lengths = {"seconds": args.seconds, "server_seconds": args.server_seconds or args.seconds}
    model = args.model or min(path.name for path in (args.run / "models").iterdir() if path.is_dir())
    loadgen = import_loadgen()
    with address_of(args.address, args.run, apart=args.apart) as (address, server):
        if args.peaks > 0:
            try:
                compare_peaks(loadgen, address, model, data, times=args.peaks, server=server)
            except NoPeakError as error:
                raise SystemExit(f"bench.loadgen: error: {error}") from error
            return 0
        valid = judge(loadgen, address, model, data, **lengths)
    if args.triton:
        newest = max((args.run / "models" / model).glob("*/model.onnx"), key=lambda path: int(path.parent.name))
        with triton_of(newest, data.images) as address:
            print("\nTriton, driven by the same system under test:\n")
            judge(loadgen, address, MODEL, data, **lengths)  # whose figures are no failure of ours
    return 0 if valid else 1


if __name__ == "__main__":
    sys.exit(main())
