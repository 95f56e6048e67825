"""Whether the server as a whole welcomes requests for models."""

import enum
from collections.abc import Callable


class Phase(enum.Enum):
    """Where the server is in its life; it only moves forward."""

    STARTING = 0
    READY = 1
    DRAINING = 2


class Readiness:
    """The server's phase. Read by any thread, moved by the one that starts and stops the server.

    Args:
        changed: called after every change.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._phase = Phase.STARTING

    def is_ready(self) -> bool:
        """Models are loaded, and no shutdown is under way."""
        return self._phase is Phase.READY

    def enter(self, phase: Phase) -> None:
        """Move on; moving back is ignored."""
        if phase.value > self._phase.value:
            self._phase = phase
            self._changed()
