"""What the metrics page asks of the server as a whole when it is read."""

import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata

import onnxruntime

from inferry_server import __version__
from inferry_server.models.facts import Fact, label_facts
from inferry_server.models.registry import ModelRegistry
from inferry_server.runtime.gpu_use import GpuMeter
from inferry_server.services.decoding import DecodingPool
from inferry_server.telemetry.metrics import ServerMetrics

_STOP_SLACK_S = 5.0  # what a stop may take besides its two limits


class ServerFacts:
    """Asked whenever the page is read, on the thread that makes it.

    Args:
        registry: the models.
        decoding: the pictures.
        most_connections: that the gRPC port takes.
        gpus: read where a version computes on one.
        wall_clock: seconds since the epoch.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        decoding: DecodingPool,
        most_connections: int,
        *,
        gpus: GpuMeter | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._decoding = decoding
        self._most_connections = most_connections
        self._gpus = gpus or GpuMeter()
        self._wall_clock = wall_clock
        self._drain_ends = 0.0

    def draining(self, limit_s: float) -> None:
        """The server has begun to stop, which may take so long."""
        self._drain_ends = self._wall_clock() + limit_s + _STOP_SLACK_S

    def ask(self) -> Iterator[Fact]:
        """Every fact as it is now."""
        yield "inferry_drain_ends_timestamp_seconds", self._drain_ends
        yield "inferry_open_connections_limit", self._most_connections
        yield "inferry_decoding_requests", self._decoding.unfinished
        yield from label_facts(self._registry)
        if any(version.gpus for version in self._registry.served()):
            for gpu in self._gpus.read():
                yield "inferry_gpu_memory_used_bytes", str(gpu.index), gpu.memory_used_bytes
                yield "inferry_gpu_memory_total_bytes", str(gpu.index), gpu.memory_total_bytes
                if gpu.busy is not None:
                    yield "inferry_gpu_utilization_ratio", str(gpu.index), gpu.busy


def tell_build(metrics: ServerMetrics) -> None:
    """Say which versions run."""
    versions = (__version__, platform.python_version(), onnxruntime.__version__, metadata.version("grpcio"))
    metrics.build.labels(*versions).set(1)
