"""A real server whose models compute when the test lets them, by a clock that the test moves.

Everything else is real: port, transport, codec, queue, batches, ONNX Runtime. So a test says which
requests meet in a batch, and what time it is when they do, and waits for nothing.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

from inferry_proto.datatypes import Arrays
from inferry_server.app import Server
from inferry_server.batching.policy import Lane
from inferry_server.runtime import instances
from inferry_server.runtime.session import OnnxSession, load_session
from inferry_server.telemetry.metrics import ServerMetrics
from testkit.clock import ManualClock, server_clock
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until


class Gate:
    """Stands before every session of a server; open at first, so that models load.

    Args:
        clock: moved by every run that passes.
        run_s: so far.

    Attributes:
        runs: the inputs of every run since the gate was closed, in order, the one that is held included.
    """

    def __init__(self, clock: ManualClock, run_s: float) -> None:
        self.runs: list[Arrays] = []
        self._clock = clock
        self._run_s = run_s
        self._changed = threading.Condition()
        self._allowed: int | None = None  # runs that may pass; None: all

    def close(self) -> None:
        """Hold every run from now on, and forget those before."""
        with self._changed:
            self.runs = []
            self._allowed = 0

    def let(self, runs: int = 1) -> None:
        """Let so many runs pass."""
        with self._changed:
            self._allowed = runs + (self._allowed or 0)
            self._changed.notify_all()

    def open(self) -> None:
        """Hold nothing any more."""
        with self._changed:
            self._allowed = None
            self._changed.notify_all()

    def wait_for_runs(self, count: int) -> None:
        """Wait until so many runs have come to the gate since it was closed."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.runs) >= count, SOON_S)
        assert came, f"{len(self.runs)} runs came; expected {count}"

    def enter(self, inputs: Arrays) -> None:
        """One run comes to the gate, on a batcher's thread."""
        with self._changed:
            self.runs.append({name: array.copy() for name, array in inputs.items()})
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._allowed != 0, SOON_S), "the gate was never opened"
            if self._allowed is not None:
                self._allowed -= 1
            self._clock.advance(self._run_s)


@dataclass
class _GatedSession:
    """A session behind a gate."""

    session: OnnxSession
    gate: Gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run(self, inputs: Arrays) -> Arrays:
        self.gate.enter(inputs)
        return self.session.run(inputs)

    def interrupter(self) -> Callable[[], None]:
        return self.session.interrupter()

    def close(self) -> None:
        self.session.close()


@dataclass
class GatedServer:
    """A server that is ready, the gate before its sessions, and the clock of its queues."""

    server: Server
    gate: Gate
    clock: ManualClock

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(self.server.grpc_address)

    def queued_rows(self, model: str, lane: Lane = Lane.INTERACTIVE) -> int:
        """Rows that wait for a model, the batch that is held not among them."""
        return self.server.registry.find(model, "").batcher.queued(lane).rows

    def wait_for_queued_rows(self, model: str, rows: int, lane: Lane = Lane.INTERACTIVE) -> None:
        """Wait until so many rows wait for a model."""
        wait_until(lambda: self.queued_rows(model, lane) == rows, f"{rows} rows in the queue")


@contextmanager
def gated_server(repository: Path, *, run_s: float = 0.0, **settings: Any) -> Iterator[GatedServer]:
    """A server that is ready, with its gate open; stopped on leaving.

    Args:
        repository: what it serves.
        run_s: what a run takes, by the server's clock; known to it from warming up.
        settings: of the server.
    """
    clock = ManualClock()
    gate = Gate(clock, run_s)

    def load_gated(path: Path, **options: Any) -> OnnxSession:
        return cast("OnnxSession", _GatedSession(load_session(path, **options), gate))

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(instances, "load_session", load_gated))
        stack.enter_context(server_clock(clock))
        # What is held here is a device that takes long: the thread that reads requests has no business there.
        server = stack.enter_context(running_server(repository, **{"inline_batch_ms": 0.0} | settings))
        stack.callback(gate.open)  # before the server is stopped, whatever the test left behind
        yield GatedServer(server, gate, clock)


def count_outcomes(metrics: ServerMetrics, method: str) -> Counter[str]:
    """How the calls of a method ended, by status."""
    counted: Counter[str] = Counter()
    for family in metrics.outcomes.collect():
        for sample in family.samples:
            if sample.name.endswith("_total") and sample.labels["method"] == method:
                counted[sample.labels["code"]] += int(sample.value)
    return counted
