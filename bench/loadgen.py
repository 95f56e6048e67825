"""MLPerf's LoadGen against a server over gRPC: a load generator and a judge that nobody here wrote.

    python -m bench.loadgen --run runs/demo --address 127.0.0.1:8001

serves what `make demo` left (or `--run`, a run folder whose models lie in `models/`), unless an
address names a server of the Open Inference Protocol that serves the same model: Triton, say.
Results are unofficial: no submission, no audit, another network than MLPerf's.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bench.environments import environment, site_packages
from bench.loadgen_results import Result, read_summary, table
from bench.server_process import started
from inferry_client.connecting.channels import ChannelSettings, open_channel
from inferry_client.messages import requests
from inferry_client.messages.replies import read_infer
from inferry_proto import open_inference_pb2
from inferry_proto.services import OPEN_INFERENCE

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server", "Accuracy")
LATENCY_MS = 15  # of the Server scenario, p99
_ROWS = 32  # of the requests that Offline's one query is cut into
_UNDER_WAY = 8  # of them
_SERVER_SHARES = (0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)  # of Offline, tried until one is valid
_TIMEOUT_S = 60.0


@dataclass
class Target:
    """The system under test: a model behind an address, and the pictures that are sent.

    LoadGen's threads give it queries; gRPC's threads complete them.
    """

    channel: grpc.Channel
    loadgen: Any
    model: str
    input: str
    output: str
    images: NDArray[np.uint8]
    failed: int = 0
    labels: dict[int, int] = field(default_factory=dict)
    _room: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_UNDER_WAY))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        path = OPEN_INFERENCE["ModelInfer"].path
        self._ask: Any = self.channel.unary_unary(path)
        self._singles = [self._request(np.array([number])) for number in range(len(self.images))]

    def issue(self, samples: list[Any]) -> None:
        """Send a query: one request, or, for Offline's, many of which some are under way."""
        for start in range(0, len(samples), _ROWS):
            part = samples[start : start + _ROWS]
            several = len(samples) > _ROWS
            if several:
                self._room.acquire()
            indices = np.array([sample.index for sample in part])
            request = self._singles[indices[0]] if len(part) == 1 else self._request(indices)
            future = self._ask.future(request, timeout=_TIMEOUT_S)
            future.add_done_callback(lambda done, part=part, several=several: self._complete(done, part, several))

    def flush(self) -> None:
        """Nothing is held back."""

    def _request(self, indices: NDArray[Any]) -> bytes:
        call = requests.infer(self.model, {self.input: self.images[indices]}, outputs=[self.output])
        return call.request.SerializeToString()

    def _complete(self, done: Any, part: list[Any], several: bool) -> None:
        try:
            reply = open_inference_pb2.ModelInferResponse.FromString(done.result())
            labels = read_infer(reply).outputs[self.output].argmax(axis=1)
            if len(labels) != len(part):
                raise ValueError(f"{len(labels)} rows for {len(part)}")
            with self._lock:
                self.labels.update({sample.index: int(label) for sample, label in zip(part, labels, strict=True)})
        except Exception:  # noqa: BLE001 - whatever it was, LoadGen must be told that the query ended
            with self._lock:
                self.failed += len(part)
        if several:
            self._room.release()
        self.loadgen.QuerySamplesComplete([self.loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part])


def import_loadgen() -> Any:
    """LoadGen's module, from an environment of its own."""
    sys.path.append(str(site_packages(environment("loadgen"))))
    import mlperf_loadgen  # type: ignore[import-not-found, unused-ignore]

    return mlperf_loadgen


def run_scenario(loadgen: Any, target: Target, scenario: str, *, seconds: float, rate: float = 1.0) -> Result:
    """One scenario, as long as LoadGen's rules for it ask, and at least so many seconds."""
    settings = loadgen.TestSettings()
    accuracy = scenario == "Accuracy"
    settings.scenario = getattr(loadgen.TestScenario, "Offline" if accuracy else scenario)
    settings.mode = loadgen.TestMode.AccuracyOnly if accuracy else loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(seconds * 1000)
    settings.min_query_count = 100
    settings.server_target_qps = settings.offline_expected_qps = rate
    settings.server_target_latency_ns = int(LATENCY_MS * 1e6)
    settings.server_target_latency_percentile = 0.99
    settings.multi_stream_samples_per_query = 8
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


def measure(loadgen: Any, target: Target, *, seconds: float) -> list[Result]:
    """Every performance scenario; Server at falling shares of Offline until one is valid."""
    results = [run_scenario(loadgen, target, name, seconds=seconds) for name in ("SingleStream", "MultiStream")]
    guess = run_scenario(loadgen, target, "Offline", seconds=2, rate=2000).figure
    offline = run_scenario(loadgen, target, "Offline", seconds=seconds, rate=guess)
    results.append(offline)
    for share in _SERVER_SHARES:
        server = run_scenario(loadgen, target, "Server", seconds=seconds, rate=share * offline.figure)
        print(f"Server at {share:.2f} of Offline: {'VALID' if server.valid else server.reasons[0]}", file=sys.stderr)
        if server.valid:
            break
    return [*results, server]


@contextlib.contextmanager
def address_of(given: str | None, run: Path) -> Iterator[str]:
    """The server's: one that runs, or one started for the run's models."""
    if given:
        yield given
        return
    with started(run / "models") as (_, line):
        if "gRPC " not in line:
            raise SystemExit(f"bench.loadgen: error: the server did not start with {run / 'models'}")
        yield line.split("gRPC ")[1].split(",")[0]


def main() -> int:
    parser = argparse.ArgumentParser(description="MLPerf's LoadGen, unofficial, over gRPC")
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="a run folder, with heldout.npz and models/"
    )
    parser.add_argument("--model", help="the only one in models/, where it is left out")
    parser.add_argument("--address", help="a server that serves the model; else one is started")
    parser.add_argument("--seconds", type=float, default=60.0, help="at least, of each scenario (60)")
    args = parser.parse_args()
    if not (args.run / "heldout.npz").is_file():
        raise SystemExit(f"bench.loadgen: error: {args.run} has no heldout.npz; `make demo` leaves one in runs/demo")
    with np.load(args.run / "heldout.npz") as file:
        images, labels = file["images"], file["labels"]
    right_by_keras = round(json.loads((args.run / "metrics.json").read_text())["test_accuracy"] * len(images))
    model = args.model or min(path.name for path in (args.run / "models").iterdir() if path.is_dir())
    loadgen = import_loadgen()
    with address_of(args.address, args.run) as address, open_channel(address, ChannelSettings(resend=False)) as channel:
        target = Target(channel, loadgen, model, "images", "probabilities", images)
        run_scenario(loadgen, target, "Accuracy", seconds=0)
        right = sum(target.labels.get(number) == label for number, label in enumerate(labels.tolist()))
        results = measure(loadgen, target, seconds=args.seconds)
    print(table(results, accuracy=(right, right_by_keras, len(images))))
    return 0 if right == right_by_keras and all(result.valid for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
