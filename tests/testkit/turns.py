"""Who waits for a turn at the cores."""

import threading

from inferry_server.batching.gate import ComputeGate
from testkit.batchers import SOON_S


def until_asked(gate: ComputeGate, *models: str) -> None:
    """Until threads of these models wait for their turn; there is nothing to tell of it."""
    pause = threading.Event()
    for _ in range(10_000):
        with gate._lock:
            if set(models) <= set(gate._queue._backlogged):
                return
        pause.wait(SOON_S / 10_000)
    raise AssertionError(models)
