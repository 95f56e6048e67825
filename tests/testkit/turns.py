"""Who waits for a turn at the cores."""

from inferry_server.executing.core_turns import ComputeGate
from testkit.waiting import wait_until


def until_asked(gate: ComputeGate, *models: str) -> None:
    """Until threads of these models wait for their turn; there is nothing to tell of it."""

    def all_ask() -> bool:
        with gate._lock:
            return set(models) <= set(gate._queue.backlogged)

    wait_until(all_ask, f"{', '.join(models)} to ask for a turn")
