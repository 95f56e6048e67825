"""Who waits for a turn at the cores, and for an answer."""

import queue
import threading
from collections.abc import Callable

from inferry_server.batching.gate import ComputeGate
from inferry_server.batching.request import Arrays, Timing

SOON_S = 10.0  # no test should take it; none waits longer


class Reply:
    def __init__(self) -> None:
        self.outcomes: queue.Queue[Arrays | Exception] = queue.Queue()
        self.timing: Timing | None = None

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:
        self.timing = timing
        return lambda: self.outcomes.put(outputs)

    def fail(self, error: Exception) -> None:
        self.outcomes.put(error)


def until_asked(gate: ComputeGate, *models: str) -> None:
    """Until threads of these models wait for their turn; there is nothing to tell of it."""
    pause = threading.Event()
    for _ in range(10_000):
        with gate._lock:
            if set(models) <= set(gate._queue._backlogged):
                return
        pause.wait(SOON_S / 10_000)
    raise AssertionError(models)
