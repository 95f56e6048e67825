"""What one version of a model counts: its series of the metrics in `metric_table.py`."""

import logging
import threading
from collections.abc import Callable

from inferry_server.telemetry.counters import Ask
from inferry_server.telemetry.metric_table import MetricTable
from inferry_server.telemetry.series import SUMMED, BatchSeries, Count, Sums

logger = logging.getLogger(__name__)

_PARTS = ("read", "queue", "compute", "reply")


class ModelMetrics:
    """The series of one version; their labels are looked up once, here.

    Instances of a version that overlap, while one replaces the other, count into the same series.

    Attributes:
        batches: what is counted of every batch.
    """

    def __init__(self, table: MetricTable, model: str, version: str) -> None:
        labels = (model, version)
        self._labels = labels
        self._table = table
        self.batches = BatchSeries(
            batch_rows=table.batch_rows.labels(*labels),
            compute=table.compute.labels(*labels),
            queue=table.queue.labels(*labels),
            requests=table.model_duration.labels(*labels),
            sums=Sums(len(SUMMED)),
        )
        self._show_sums()
        self._overruns = table.overruns.labels(*labels)
        self._batching_ended = table.batching_ended.labels(*labels)
        self._lock = threading.Lock()
        self._removed = False
        self._ended: dict[tuple[str, str], Count] = {}  # by outcome and reason, as they come up
        self._degraded: dict[str, Count] = {}  # by the variant's precision
        self._provider: str | None = None

    def request_refused(self, reason: str) -> None:
        """A request for this version was not computed."""
        counter = self._ended.get(("refused", reason)) or self._new_outcome("refused", reason)
        counter.inc()

    def request_failed(self, reason: str) -> None:
        """A request for this version was admitted, and computing it failed."""
        counter = self._ended.get(("failed", reason)) or self._new_outcome("failed", reason)
        counter.inc()

    def request_degraded(self, variant: str) -> None:
        """A request for this version was given to a variant of it, of this precision."""
        counter = self._degraded.get(variant) or self._new_variant(variant)
        counter.inc()

    def request_cancelled(self) -> None:
        """Nobody wants the reply of a request for this version any more."""
        counter = self._ended.get(("cancelled", "")) or self._new_outcome("cancelled", "")
        counter.inc()

    def _new_outcome(self, outcome: str, reason: str) -> Count:
        with self._lock:
            if self._removed:  # a straggler must not bring a series back
                return Count()
            counter = self._ended.setdefault((outcome, reason), Count())
            self._table.model_requests.show(counter, *self._labels, outcome, reason)
            if outcome == "refused":
                self._table.refused.show(counter, *self._labels, reason)
            return counter

    def _new_variant(self, variant: str) -> Count:
        with self._lock:
            if self._removed:
                return Count()
            counter = self._degraded.setdefault(variant, Count())
            self._table.degraded.show(counter, *self._labels, variant)
            return counter

    def _show_sums(self) -> None:
        table, labels, sums = self._table, self._labels, self.batches.sums
        share = {name: sums[position] for position, name in enumerate(SUMMED)}
        table.rows.show(share["rows"], *labels)
        table.model_requests.show(share["answered"], *labels, "answered", "")
        for part in _PARTS:
            table.parts.show(share[part], *labels, part)
        table.busy.show(share["busy"], *labels)
        for direction in ("input", "output"):
            table.tensor_bytes.show(share[f"{direction}_bytes"], *labels, direction)

    def overran(self, seconds: float) -> None:
        """A batch took so long that the thread that reads requests computes none of this version any more."""
        logger.warning(
            "a batch took %.2f s: batches of this version are not computed by the thread that reads requests any more",
            seconds, extra={"model": "/".join(self._labels)},
        )  # fmt: skip
        self._overruns.inc()

    def batching_ended(self, reason: str) -> None:
        """A batch showed that requests cannot share batches."""
        logger.warning(
            "requests run alone from now on, without batching: %s", reason, extra={"model": "/".join(self._labels)}
        )
        self._batching_ended.inc()

    def serving(self, provider: str) -> None:
        """The version is about to be served, computed by this."""
        if self._provider not in (None, provider):  # one that is replaced was on another
            self._table.info.remove(*self._labels, self._provider)
        self._provider = provider
        self._table.info.labels(*self._labels, provider).set(1)

    def watch(self, ask: Ask) -> None:
        """Ask for the version's queue, limits and capacity whenever the page is read."""
        self._table.version_facts.watch(ask, *self._labels)

    def on_device(self, batch_limit: Callable[[], float]) -> None:
        """Ask for the rows that a device runs at once, whenever the page is read."""
        self._table.batch_limit.labels(*self._labels).set_function(batch_limit)

    def remove(self) -> None:
        """Drop every series of the version."""
        table, labels = self._table, self._labels
        # A gauge with a function refers to itself: what it asks would live until a garbage collection.
        table.batch_limit.labels(*labels).set_function(lambda: 0.0)
        table.batch_limit.remove(*labels)
        for metric in (
            table.batch_rows, table.compute, table.queue, table.model_duration, table.rows, table.busy,
            table.overruns, table.batching_ended,
        ):  # fmt: skip
            metric.remove(*labels)
        for part in _PARTS:
            table.parts.remove(*labels, part)
        for direction in ("input", "output"):
            table.tensor_bytes.remove(*labels, direction)
        table.version_facts.forget(*labels)
        table.model_requests.remove(*labels, "answered", "")
        for reason in ("unwanted", "too_long"):
            table.runs_ended.remove(*labels, reason)
        with self._lock:
            self._removed = True
            for outcome, reason in self._ended:
                table.model_requests.remove(*labels, outcome, reason)
                table.refused.remove(*labels, reason)
            for variant in self._degraded:
                table.degraded.remove(*labels, variant)
        if self._provider is not None:
            table.info.remove(*labels, self._provider)
