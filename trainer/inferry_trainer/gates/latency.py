"""How long a batch takes: t(n) = a + b n, the line that batching and capacity planning go by."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from inferry_proto import manifest_pb2
from inferry_trainer.arrays import Float32Array, UInt8Array
from inferry_trainer.errors import GateError
from inferry_trainer.gates.batches import LADDER
from inferry_trainer.gates.result import GateResult

_ROUNDS = 11  # odd, so that the median is a run


@dataclass(frozen=True)
class LatencyCurve:
    """Milliseconds of a batch of n images: about `fixed_ms + per_image_ms * n`.

    Attributes:
        fixed_ms: what a batch costs whatever is in it.
        per_image_ms: what an image adds.
        points: batch sizes and the medians that the line was fitted to.
        threads: that computed.
    """

    fixed_ms: float
    per_image_ms: float
    points: tuple[tuple[int, float], ...]
    threads: int

    def to_result(self) -> GateResult:
        """The curve as the result of a gate that was passed."""
        return GateResult("latency", {"fixed_ms": self.fixed_ms, "per_image_ms": self.per_image_ms})

    def to_manifest(self, provider: str) -> manifest_pb2.Latency:
        """The curve as a manifest records it."""
        points = [manifest_pb2.LatencyPoint(batch_size=size, milliseconds=ms) for size, ms in self.points]
        return manifest_pb2.Latency(
            provider=provider,
            threads=self.threads,
            fixed_ms=self.fixed_ms,
            per_image_ms=self.per_image_ms,
            points=points,
        )


def measure_latency(
    run: Callable[[UInt8Array], Float32Array],
    images: UInt8Array,
    *,
    threads: int,
    clock: Callable[[], float] = time.perf_counter,
) -> LatencyCurve:
    """Time every batch size of the ladder, in turns, so that a busy moment of the machine slows all of them.

    Args:
        run: computes one batch.
        images: `(N, H, W, C)` uint8; repeated up to 32 where there are fewer.
        threads: that compute, to be recorded.
        clock: seconds.

    Raises:
        GateError: `latency`: more images do not take longer, so nothing was computed, or nothing measured.
    """
    batch = np.resize(images, (LADDER[-1], *images.shape[1:]))
    times: dict[int, list[float]] = {size: [] for size in LADDER}
    for size in LADDER:
        run(batch[:size])
    for _ in range(_ROUNDS):
        for size in LADDER:
            started = clock()
            run(batch[:size])
            times[size].append(1e3 * (clock() - started))
    return fit_latency({size: statistics.median(taken) for size, taken in times.items()}, threads=threads)


def fit_latency(milliseconds: dict[int, float], *, threads: int) -> LatencyCurve:
    """The line through medians by batch size, each weighted by its own length: errors are relative.

    Raises:
        GateError: `latency`: the line does not rise.
    """
    sizes, taken = np.array([*milliseconds], float), np.array([*milliseconds.values()])
    weights = 1 / np.maximum(taken, 1e-6)
    columns = np.stack([np.ones_like(sizes), sizes], axis=1)
    (fixed, slope), *_ = np.linalg.lstsq(columns * weights[:, None], taken * weights, rcond=None)
    if fixed < 0:  # a line through the origin: no batch takes less than no time
        fixed, slope = 0.0, float((weights**2 * sizes * taken).sum() / (weights**2 * sizes**2).sum())
    if not slope > 0:
        raise GateError("latency", f"a batch does not take longer with more images in it: {milliseconds} ms")
    return LatencyCurve(float(fixed), float(slope), tuple(milliseconds.items()), threads)
