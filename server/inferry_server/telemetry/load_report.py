"""What balancers are told of this server's load, with every reply: a report of the Open Request Cost Aggregation.

gRPC's and Envoy's weighted round robin give each server a part of the requests that is its rate divided by its
utilization, which is what it could answer. The utilization is wall time that batches took, or the processor's time if
that is more: a server whose cores are slowed down or taken away takes longer for the same batches, and says so.
"""

import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

KEY = "endpoint-load-metrics-bin"
"""The trailing metadata in which gRPC and Envoy look."""

WINDOW_S = 1.0

_CPU_UTILIZATION, _RPS, _EPS, _APPLICATION_UTILIZATION = 1, 6, 7, 9  # fields of xds.data.orca.v3.OrcaLoadReport
_DOUBLE = 1  # the wire type of eight bytes


@dataclass(frozen=True)
class Done:
    """What a server has done since it began.

    Attributes:
        compute_s: that batches took, by version; versions come and go.
        answered: requests.
        failed: requests that were refused, or not answered in time.
    """

    compute_s: Mapping[tuple[str, ...], float]
    answered: int
    failed: int


class LoadReport:
    """The report of one server. One thread calls `tick`; any thread reads `metadata`.

    Args:
        cores: that the server computes on.
        instances: of a version that compute at the same time.

    Attributes:
        metadata: for the trailers of a reply; empty until there was something to tell.
    """

    def __init__(self, *, cores: int, instances: int) -> None:
        self.metadata: tuple[tuple[str, bytes], ...] = ()
        self._cores, self._instances = cores, instances
        self._compute_s: Mapping[tuple[str, ...], float] = {}
        self._busy_s = 0.0
        self._samples: deque[tuple[float, float, float, int, int]] = deque()

    def tick(self, now_s: float, *, cpu_s: float, done: Done) -> None:
        """Take note of what the server has done.

        Args:
            now_s: on the monotonic clock.
            cpu_s: that the process has had of the processor since it began.
            done: since then.
        """
        before = self._compute_s
        self._busy_s += sum(max(0.0, spent_s - before.get(name, 0.0)) for name, spent_s in done.compute_s.items())
        self._compute_s = done.compute_s
        samples = self._samples
        samples.append((now_s, self._busy_s, cpu_s, done.answered, done.failed))
        while len(samples) > 2 and now_s - samples[1][0] >= WINDOW_S:
            samples.popleft()
        began_s, busy_s, had_s, answered_then, failed_then = samples[0]
        elapsed_s = now_s - began_s
        if elapsed_s <= 0:
            return
        cpu = (cpu_s - had_s) / (elapsed_s * self._cores)
        busy = max(cpu, (self._busy_s - busy_s) / (elapsed_s * self._instances))
        errors = done.failed - failed_then
        asked = done.answered - answered_then + errors
        report = {
            _CPU_UTILIZATION: cpu,
            _RPS: asked / elapsed_s,
            _EPS: errors / elapsed_s,
            _APPLICATION_UTILIZATION: busy,
        }
        self.metadata = ((KEY, _encode(report)),)


def _encode(fields: Mapping[int, float]) -> bytes:
    """A message of doubles; those that are 0 are left out, as protobuf leaves them out."""
    return b"".join(
        struct.pack("<Bd", number << 3 | _DOUBLE, value) for number, value in sorted(fields.items()) if value > 0
    )
