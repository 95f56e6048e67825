"""Whether the server as a whole welcomes requests for models."""

import enum
from collections.abc import Callable


class Phase(enum.Enum):
    """Where the server is in its life; it only moves forward."""

    STARTING = 0
    READY = 1
    DRAINING = 2


class Readiness:
    """The server's phase, and what is wrong with it. Any thread may read it, and report a fault.

    The phase is moved by the thread that starts and stops the server.

    Args:
        changed: called after every change.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._phase = Phase.STARTING
        self._fault: str | None = None
        self._hang: str | None = None
        self._unread = False

    @property
    def phase(self) -> Phase:
        """Where the server is in its life."""
        return self._phase

    @property
    def fault(self) -> str | None:
        """Why it is not ready although it is in that phase; it stays so until the process ends."""
        return self._fault

    @property
    def hang(self) -> str | None:
        """What it is that takes so long that the server is not ready meanwhile."""
        return self._hang

    def is_ready(self) -> bool:
        """Models are loaded, nothing is wrong or hangs, and no shutdown is under way."""
        return self._phase is Phase.READY and self._fault is None and self._hang is None

    def report_hang(self, what: str | None) -> None:
        """Something takes far too long; None: not any more. The server is ready again then."""
        if what != self._hang:
            self._hang = what
            self._changed()

    def report_unread(self, unread: bool) -> None:
        """Whether calls have not been read for far too long: the process is of no use then, ready or not."""
        self._unread = unread

    def not_live(self) -> tuple[str, ...]:
        """Why only a new process can help, a sentence each; empty while this one is of use."""
        return ("calls are not read",) if self._unread else ()

    def not_ready(self) -> tuple[str, ...]:
        """Why it is not ready, a sentence each; empty where it is."""
        phase = _NOT_READY.get(self._phase)
        return tuple(reason for reason in (phase, self._fault, self._hang) if reason is not None)

    def report_fault(self, reason: str) -> None:
        """The server must not be asked any more; the first reason is kept."""
        if self._fault is None:
            self._fault = reason
            self._changed()

    def enter(self, phase: Phase) -> None:
        """Move on; moving back is ignored."""
        if phase.value > self._phase.value:  # guard: stop-no-way
            self._phase = phase
            self._changed()


_NOT_READY = {Phase.STARTING: "models are being loaded", Phase.DRAINING: "the server is shutting down"}
