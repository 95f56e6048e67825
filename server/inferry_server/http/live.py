"""The live page: what the server does now, a picture a second, and static files that draw it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import inferry_server
from inferry_server.batching.policy import Lane
from inferry_server.giving_way import in_pieces
from inferry_server.http.event_stream import EventStream
from inferry_server.http.json_messages import to_json
from inferry_server.http.json_text import object_of, written
from inferry_server.lateness.record import LateRequest
from inferry_server.lifecycle import Readiness
from inferry_server.models.registry import IndexEntry, ModelEntry, ModelRegistry
from inferry_server.models.version import ServedVersion
from inferry_server.services.diagnostics import DiagnosticsService
from inferry_server.telemetry.exposition import Labels
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

_Told = tuple[LateRequest, bytes]
"""A request and its words, as JSON."""


class LiveSnapshot:
    """What the page shows; everything in it is counted since the start, so that readers take differences.

    Any thread may take one, one at a time.
    """

    def __init__(
        self, readiness: Readiness, registry: ModelRegistry, metrics: ServerMetrics, diagnostics: DiagnosticsService
    ) -> None:
        self._readiness = readiness
        self._registry = registry
        self._metrics = metrics
        self._diagnostics = diagnostics
        self._told: dict[int, _Told] = {}  # by identity: a request has many fields to hash

    def take(self) -> bytes:
        """The state now, as JSON. Takes its time: other threads go on in between."""
        duration = self._metrics.duration
        state = {
            "server": f"inferry {inferry_server.__version__}",
            "time": time.time(),
            "not_ready": self._readiness.not_ready(),
            "refused": self._reasons(),
            "latency": _buckets(duration.by_method(), duration.names),
        }
        versions = list(in_pieces(map(self._version, self._registry.index())))
        return object_of(state, {"versions": versions, "late": self._late()})

    def _reasons(self) -> Mapping[str, float]:
        """Requests that were refused or failed, by reason.

        Versions count those in streams too, and only the RPCs count what was refused before a version was found.
        """
        of_versions = _sums(self._metrics.model_requests.values(), position=3)
        of_calls = _sums(self._metrics.outcomes.values(), position=2)
        reasons = (of_versions.keys() | of_calls.keys()) - {""}
        return {reason: max(of_versions.get(reason, 0), of_calls.get(reason, 0)) for reason in sorted(reasons)}

    def _late(self) -> Sequence[bytes]:
        """By version; each request is put into words once, as long as it is shown."""
        versions = self._registry.served()
        shown = [(one.observer.late.slowest()[:_LATE], one.observer.late.refused()[:_LATE]) for one in versions]
        known = self._told
        self._told = told = dict(in_pieces(self._words(shown, known)))
        return [
            object_of(
                {"model_name": version.model, "model_version": version.version},
                {"slowest": [told[id(one)][1] for one in slowest], "refused": [told[id(one)][1] for one in refused]},
            )
            for version, (slowest, refused) in zip(versions, shown, strict=True)
        ]

    def _words(
        self, shown: Sequence[Sequence[Sequence[LateRequest]]], known: Mapping[int, _Told]
    ) -> Iterator[tuple[int, _Told]]:
        for kinds in shown:
            for requests in kinds:
                for one in requests:
                    yield id(one), known.get(id(one)) or (one, written(to_json(self._diagnostics.message(one))))

    def _version(self, entry: IndexEntry) -> bytes:
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
        return written(shown if entry.served is None else shown | _served(entry.served))


def _served(served: ServedVersion) -> dict[str, Any]:
    totals = served.statistics.totals()
    return {
        "provider": served.provider.removesuffix("ExecutionProvider"),
        "golden": served.golden is not None,
        "pictures": served.preprocessing is not None,
        "instances": served.instance_count,
        "queued": {lane.value: served.batcher.queued(lane).rows for lane in Lane},
        "rows": totals.rows,
        "batches": totals.batches,
        "queue": {"count": totals.queued, "ns": round(totals.queue_s * 1e9)},
        "compute": {"count": totals.batches, "ns": round(totals.compute_s * 1e9)},
    }


def live_routes(
    snapshot: LiveSnapshot, ending: Callable[[], bool], still_takes: Callable[[Any], bool] = lambda _: True
) -> list[Route]:
    """Routes of the page and its data.

    Args:
        snapshot: what is shown.
        ending: whether the server is about to go, and streams should end.
        still_takes: whether who looks may still look, by the scope of the request.
    """
    feed = _Feed(snapshot)

    async def state(_request: Request) -> Response:
        return Response(await feed.latest(), headers={"content-type": "application/json", "cache-control": "no-store"})

    async def stream(request: Request) -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield _event(await feed.latest())
            while not ending():
                event = _event(await feed.next())
                if not still_takes(request.scope):  # guard: live-revoked
                    return
                yield event

        return EventStream(events())

    pages = [Route(path, _file(name, kind)) for path, (name, kind) in _FILES.items()]
    return [*pages, Route("/live", stream), Route("/live.json", state)]


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


class _Feed:
    """One snapshot a second, as JSON, however many look; none while nobody does. For the loop's thread.

    Snapshots are taken on another thread, and everybody is told of one at the same moment: each interruption costs
    requests more than what is sent.
    """

    def __init__(self, snapshot: LiveSnapshot) -> None:
        self._snapshot = snapshot
        self._latest = b""
        self._taken_at = float("-inf")
        self._taking: asyncio.Task[bytes] | None = None
        self._waiting: list[asyncio.Future[bytes]] = []

    async def latest(self) -> bytes:
        """One that is not old."""
        if time.monotonic() - self._taken_at < _EVERY_S:
            return self._latest
        return await self._take(after_s=0.0)

    async def next(self) -> bytes:
        """The one of the next second."""
        return await self._take(after_s=_EVERY_S - time.monotonic() % _EVERY_S)

    async def _take(self, *, after_s: float) -> bytes:
        """The one that is being taken, or is to be after so long; whoever stops waiting does not stop the others."""
        if self._taking is None:
            self._taking = asyncio.create_task(self._took(after_s))
            self._taking.add_done_callback(self._tell)
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)  # a future each: `shield` takes each of ten tabs as long as sending does
        return await waiter

    async def _took(self, after_s: float) -> bytes:
        await asyncio.sleep(after_s)
        self._latest = await asyncio.to_thread(self._snapshot.take)
        self._taken_at = time.monotonic()
        return self._latest

    def _tell(self, taken: asyncio.Task[bytes]) -> None:
        """Tell everybody who waits, of the snapshot or why there is none."""
        self._taking = None
        waiting, self._waiting = self._waiting, []
        error = None if taken.cancelled() else taken.exception()
        for waiter in waiting:
            if waiter.done():  # it has been cancelled
                continue
            if taken.cancelled():
                waiter.cancel()
            elif error is not None:
                waiter.set_exception(error)
            else:
                waiter.set_result(taken.result())


def _file(name: str, kind: str) -> Any:
    body = (files(inferry_server) / "http" / "page" / name).read_bytes()

    async def page(_request: Request) -> Response:
        return Response(body, headers={"content-type": kind, **_SECURITY})

    return page


def _sums(counted: Mapping[Labels, float], *, position: int) -> dict[str, float]:
    """By the value of the label at that position."""
    sums: dict[str, float] = {}
    for labels, count in counted.items():
        sums[labels[position]] = sums.get(labels[position], 0) + count
    return sums


def _buckets(methods: Mapping[str, tuple[list[int], float]], names: Sequence[str]) -> dict[str, float]:
    """By upper bound in seconds, over the methods that compute something; each counts what is below it."""
    sums = dict.fromkeys(names, 0.0)
    for method, (counts, _) in methods.items():
        if method.endswith(("/ModelInfer", "/Classify")):
            for name, count in zip(names, counts, strict=True):
                sums[name] += count
    return sums
