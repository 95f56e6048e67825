"""The live page: what the server does now, a picture a second, and static files that draw it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import inferry_server
from inferry_server.batching.policy import Lane
from inferry_server.http.json_messages import to_json
from inferry_server.lifecycle import Readiness
from inferry_server.models.registry import IndexEntry, ModelEntry, ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.telemetry.metrics import ServerMetrics

_EVERY_S = 1.0
_LATE = 6  # slow and refused requests that are shown of each version
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_SECURITY = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class LiveSnapshot:
    """What the page shows; everything in it is counted since the start, so that readers take differences."""

    def __init__(
        self, readiness: Readiness, registry: ModelRegistry, metrics: ServerMetrics, diagnostics: DiagnosticsService
    ) -> None:
        self._readiness = readiness
        self._registry = registry
        self._metrics = metrics
        self._diagnostics = diagnostics

    def take(self) -> dict[str, Any]:
        """The state now."""
        return {
            "server": f"inferry {inferry_server.__version__}",
            "time": time.time(),
            "not_ready": self._readiness.not_ready(),
            "versions": [self._version(entry) for entry in self._registry.index()],
            "refused": _by_label(self._metrics.refused, "reason"),
            "outcomes": _by_label(self._metrics.outcomes, "code"),
            "latency": _buckets(self._metrics.duration.by_method(), self._metrics.duration.names),
            "late": to_json(self._diagnostics.explained(limit=_LATE))["versions"],
        }

    def _version(self, entry: IndexEntry) -> dict[str, Any]:
        model = self._registry.model(entry.model) or ModelEntry()
        labels = [label for label, version in model.labels.items() if str(version) == entry.version_text]
        shown: dict[str, Any] = {
            "model": entry.model,
            "version": entry.version_text,
            "state": str(entry.state),
            "reason": entry.reason,
            "labels": labels,
            "traffic": sum(model.traffic.get(label, 0) for label in labels),
        }
        return shown if entry.served is None else shown | _served(entry.served)


def _served(served: ServedVersion) -> dict[str, Any]:
    statistics = to_json(served.statistics.message(served.model, served.version))
    computed = [batch["compute_infer"] for batch in statistics["batch_stats"]]
    return {
        "provider": served.provider.removesuffix("ExecutionProvider"),
        "golden": served.golden is not None,
        "pictures": served.preprocessing is not None,
        "instances": served.instance_count,
        "queued": {lane.value: served.batcher.queued_rows(lane) for lane in Lane},
        "rows": statistics["inference_count"],
        "batches": statistics["execution_count"],
        "queue": statistics["inference_stats"]["queue"],
        "compute": {field: sum(batches[field] for batches in computed) for field in ("count", "ns")},
    }


def live_routes(snapshot: LiveSnapshot, ending: Callable[[], bool]) -> list[Route]:
    """Routes of the page and its data.

    Args:
        snapshot: what is shown.
        ending: whether the server is about to go, and streams should end.
    """
    feed = _Feed(snapshot)

    async def state(_request: Request) -> Response:
        return Response(feed.latest(), headers={"content-type": "application/json"})

    async def stream(_request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            while not ending():
                yield b"data: " + feed.latest() + b"\n\n"
                # All of them at the same moment: each interruption costs requests more than what is sent.
                await asyncio.sleep(_EVERY_S - time.monotonic() % _EVERY_S)

        return StreamingResponse(events(), headers={"content-type": "text/event-stream", "cache-control": "no-store"})

    pages = [Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()]
    return [*pages, Route("/live", stream), Route("/live.json", state)]


class _Feed:
    """One snapshot a second, as JSON, however many look."""

    def __init__(self, snapshot: LiveSnapshot) -> None:
        self._snapshot = snapshot
        self._latest = b""
        self._taken_at = float("-inf")

    def latest(self) -> bytes:
        now = time.monotonic()
        if now - self._taken_at >= _EVERY_S / 2:
            self._latest, self._taken_at = json.dumps(self._snapshot.take()).encode(), now
        return self._latest


def _file(name: str, kind: str) -> Any:
    body = (files(inferry_server) / "http" / "page" / name).read_bytes()

    async def page(_request: Request) -> Response:
        return Response(body, headers={"content-type": kind, **_SECURITY})

    return page


def _by_label(counter: Any, label: str) -> dict[str, float]:
    sums: dict[str, float] = {}
    for metric in counter.collect():
        for sample in metric.samples:
            name = sample.labels[label]
            sums[name] = sums.get(name, 0.0) + sample.value
    return sums


def _buckets(methods: Mapping[str, tuple[list[int], float]], names: Sequence[str]) -> dict[str, float]:
    """By upper bound in seconds, over the methods that compute something; each counts what is below it."""
    sums = dict.fromkeys(names, 0.0)
    for method, (counts, _) in methods.items():
        if method.endswith(("/ModelInfer", "/Classify")):
            for name, count in zip(names, counts, strict=True):
                sums[name] += count
    return sums
