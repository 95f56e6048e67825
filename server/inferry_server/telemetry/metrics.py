"""Hands out the series of the metrics in `metric_table.py`: of an RPC method, of a version, of the loads of a model."""

import threading
from contextlib import suppress
from functools import partial

from inferry_server.telemetry.load_report import Done
from inferry_server.telemetry.metric_table import MetricTable
from inferry_server.telemetry.model_metrics import ModelMetrics
from inferry_server.telemetry.series import MethodSeries

_PREDICTIONS = ("/ModelInfer", "/Classify")
_OVERLOADED = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL")


class ServerMetrics(MetricTable):
    """The metrics of one server, and the series of those who count. Thread-safe."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._models: dict[tuple[str, str], tuple[ModelMetrics, int]] = {}  # with how many instances use them

    def done(self) -> Done:
        """What balancers want to know: predictions of one message each, and the time of all batches."""
        answered = failed = 0.0
        for (method, code, _), count in self.outcomes.values().items():
            if method.endswith(_PREDICTIONS):
                answered += count if code == "OK" else 0
                failed += count if code in _OVERLOADED else 0
        return Done(self.compute.sums(), round(answered), round(failed))

    def for_method(self, method: str, *, streaming: bool) -> MethodSeries:
        """What one RPC method counts."""
        return MethodSeries(
            self.received.labels(method),
            partial(self.duration.labels, method),
            partial(self.outcomes.labels, method),
            self.open_streams.labels(method) if streaming else None,
        )

    def for_model(self, model: str, version: str) -> ModelMetrics:
        """The metrics of one version, until as many calls of `forget`."""
        with self._lock:
            metrics, users = self._models.get((model, version)) or (ModelMetrics(self, model, version), 0)
            self._models[model, version] = (metrics, users + 1)
            return metrics

    def forget(self, model: str, version: str) -> None:
        """One instance of a version is gone. With the last its series go: versions come, and memory must not grow."""
        with self._lock:
            metrics, users = self._models[model, version]
            if users > 1:
                self._models[model, version] = (metrics, users - 1)
                return
            del self._models[model, version]
            metrics.remove()

    def load_ended(self, model: str, outcome: str) -> None:
        """A version was loaded (`ready`), or could not be (`failed`)."""
        for each in ("ready", "failed"):  # both are there when a later version fails
            self.loads.labels(model, each)
        self.loads.labels(model, outcome).inc()
        self.last_load.labels(model, outcome).set_to_current_time()

    def http_closed(self, reason: str) -> None:
        """The server closed an HTTP connection (`crowded`, `slow`, `idle`, `invalid`, `handshake`, `expired`)."""
        self.http_closures.labels(reason).inc()

    def forget_loads(self, model: str) -> None:
        """A model has left the repository."""
        for outcome in ("ready", "failed"):
            self.loads.remove(model, outcome)
            with suppress(KeyError):
                self.last_load.remove(model, outcome)
