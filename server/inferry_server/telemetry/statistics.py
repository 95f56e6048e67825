"""What a version has done since it was loaded, as the protocol's statistics extension counts it."""

import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferry_proto import open_inference_pb2 as pb
from inferry_server.errors import ServingError
from inferry_server.executing.observing import ComputedBatch
from inferry_server.lateness.record import Origin, kind_of, refused
from inferry_server.lateness.ring import LateRequests
from inferry_server.telemetry.model_metrics import ModelMetrics
from inferry_server.telemetry.series import Exemplar


@dataclass
class _Duration:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def message(self) -> pb.StatisticDuration:
        return pb.StatisticDuration(count=self.count, ns=round(self.seconds * 1e9))


@dataclass
class _Stages:
    """The three durations have one count."""

    count: int = 0
    input_s: float = 0.0
    infer_s: float = 0.0
    output_s: float = 0.0

    def add(self, input_s: float, infer_s: float, output_s: float, count: int = 1) -> None:
        self.count += count
        self.input_s += input_s
        self.infer_s += infer_s
        self.output_s += output_s

    def message(self, seconds: float) -> pb.StatisticDuration:
        return _Duration(self.count, seconds).message()


@dataclass
class _Answered(_Stages):
    """Requests that were answered: their stages, with one count for these, for waiting and for all of their time."""

    queue_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True)
class Totals:
    """What a version has computed since it was loaded.

    Attributes:
        rows: of requests that were answered.
        batches: runs of the model.
        compute_s: seconds of these runs, those at the same time each for itself.
        queued: requests that were answered.
        queue_s: seconds that these waited.
    """

    rows: int
    batches: int
    compute_s: float
    queued: int
    queue_s: float


class VersionObserver:
    """Tells a version's metrics and its statistics of its batches and requests.

    Args:
        metrics: of the version.
        late: of the version; without, nothing is kept of its late requests.
        run_sizes: rows of a batch to those of each run that its instance computes it in, all at the same time, for
            it is runs of the model that are counted. None: each batch is one run.
        clock: monotonic seconds.

    Attributes:
        statistics: since the version was loaded.
        late: its slow and its refused requests.
        unbatched_for: why its requests run alone, though it was loaded to be batched; empty while they are batched.
    """

    def __init__(
        self,
        metrics: ModelMetrics,
        late: LateRequests | None = None,
        run_sizes: Callable[[int], Sequence[int]] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unbatched_for = ""
        self.statistics = VersionStatistics()
        self.late = late or LateRequests()
        self._metrics = metrics
        self._run_sizes = run_sizes
        self._clock = clock

    def batch_done(self, done: ComputedBatch) -> None:
        """A batch was computed, and requests were answered with it."""
        run_sizes = self._run_sizes
        runs = (done.rows,) if run_sizes is None or done.alone else run_sizes(done.rows)
        self.statistics.batch_done(done, runs)
        batches = self._metrics.batches
        batches.add(
            runs=runs,
            compute_s=(done.compute_s,) * len(runs),
            queue_s=done.replied.queue_s,
            total_s=done.replied.total_s,
            sums=_sums(done),
        )
        for seconds, trace_id in done.replied.traced:
            batches.requests.mark(Exemplar(seconds, trace_id, time.time()))

    def request_failed(self, error: Exception, origin: Origin, *, total_s: float | None = None) -> None:
        """A request got an error that is not its own; `total_s` since its arrival, where it had been admitted."""
        self._metrics.request_failed(kind_of(error))
        if total_s is not None:
            self.statistics.request_failed(total_s=total_s)
        if kind_of(error) not in self.late.known:
            self._keep(origin, error)

    def request_refused(
        self, error: ServingError, origin: Origin | None = None, *, total_s: float | None = None
    ) -> None:
        """A request was not computed, and got this error instead."""
        self._metrics.request_refused(error.kind)
        if total_s is not None:
            self.statistics.request_failed(total_s=total_s)
        if origin is not None and error.kind not in self.late.known:
            self._keep(origin, error)

    def request_degraded(self, variant: str) -> None:
        """A request for the version was given to its variant of this precision."""
        self._metrics.request_degraded(variant)

    def request_cancelled(self) -> None:
        """Nobody wants the reply of a request that was admitted."""
        self._metrics.request_cancelled()

    def _keep(self, origin: Origin, error: Exception) -> None:
        self.late.keep_refused(refused(origin, error, self._clock()))

    def overran(self, seconds: float) -> None:
        """A batch took far longer than one may on the thread that reads requests."""
        self._metrics.overran(seconds)

    def batching_ended(self, reason: str) -> None:
        """A batch showed that requests to it cannot share batches."""
        self.unbatched_for = f"its requests run alone: {reason}"
        self._metrics.batching_ended(reason)


_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Rows of runs that are told together: close enough for runs of one size to take about as long."""


class VersionStatistics:
    """The statistics of one version. Thread-safe; a reader sees whole requests.

    Attributes:
        quickest: seconds of its quickest runs on zeros, by their rows; replaced when the model's versions are timed.
    """

    def __init__(self) -> None:
        self.quickest: Mapping[int, float] = {}
        self._lock = threading.Lock()
        self._fail = _Duration()
        self._answered = _Answered()
        self._batches: defaultdict[int, _Stages] = defaultdict(_Stages)
        self._rows = 0
        self._last_inference_ms = 0

    def batch_done(self, done: ComputedBatch, runs: Sequence[int]) -> None:
        """A batch was computed in runs of so many rows each, and requests were answered with it."""
        with self._lock:
            for rows in runs:
                assembly_s = done.assembly_s / len(runs)  # guard: parallel-runs-putting
                self._batches[rows].add(assembly_s, done.compute_s, 0.0)
            self._last_inference_ms = time.time_ns() // 1_000_000
            replied = done.replied
            if answered := len(replied.total_s):
                self._rows += replied.rows
                self._answered.add(replied.assembly_s, replied.compute_s, replied.output_s, answered)
                self._answered.queue_s += sum(replied.queue_s)
                self._answered.total_s += sum(replied.total_s)

    def request_failed(self, *, total_s: float) -> None:
        """A request was admitted, and got an error."""
        with self._lock:
            self._fail.add(total_s)

    def totals(self) -> Totals:
        """What it has computed, in few numbers: the protocol's message has two hundred for 64 sizes of batches."""
        with self._lock:
            stages = self._batches.values()
            return Totals(
                rows=self._rows,
                batches=sum(one.count for one in stages),
                compute_s=sum(one.infer_s for one in stages),
                queued=self._answered.count,
                queue_s=self._answered.queue_s,
            )

    def by_size(self) -> dict[str, tuple[int, float]]:
        """How many runs there were, and their seconds, by the rows that they had at most: of the sizes that ran."""
        found: dict[str, tuple[int, float]] = {}
        with self._lock:
            for rows, stages in self._batches.items():
                most = _SIZES[bisect_left(_SIZES, rows)] if rows <= _SIZES[-1] else 1 << (rows - 1).bit_length()
                name = str(most)
                count, seconds = found.get(name, (0, 0.0))
                found[name] = count + stages.count, seconds + stages.infer_s
        return found

    def message(self, model: str, version: str) -> pb.ModelStatistics:
        """The statistics as the protocol carries them."""
        with self._lock:
            answered = self._answered
            return pb.ModelStatistics(
                name=model,
                version=version,
                last_inference=self._last_inference_ms,
                inference_count=self._rows,
                execution_count=sum(stages.count for stages in self._batches.values()),
                inference_stats=pb.InferStatistics(
                    success=answered.message(answered.total_s),
                    fail=self._fail.message(),
                    queue=answered.message(answered.queue_s),
                    compute_input=answered.message(answered.input_s),
                    compute_infer=answered.message(answered.infer_s),
                    compute_output=answered.message(answered.output_s),
                ),
                batch_stats=[_batch_message(rows, stages) for rows, stages in sorted(self._batches.items())],
            )


def _batch_message(rows: int, stages: _Stages) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=rows,
        compute_input=stages.message(stages.input_s),
        compute_infer=stages.message(stages.infer_s),
        compute_output=stages.message(stages.output_s),
    )


def _sums(done: ComputedBatch) -> tuple[float, ...]:
    """What `SUMMED` names, of one batch. What is neither reading, computing nor replying is waiting."""
    replied = done.replied
    compute_s = replied.assembly_s + replied.compute_s
    return (
        done.rows,
        len(replied.total_s),
        replied.read_s,
        max(0.0, sum(replied.total_s) - replied.read_s - compute_s - replied.reply_s),
        compute_s,
        replied.reply_s,
        done.assembly_s + done.compute_s,
        replied.input_bytes,
        done.output_bytes,
    )
