"""Whether the devices can still compute; the first error that they cannot recover from decides."""

import logging
import threading
from collections.abc import Callable

from inferry_server.errors import DeviceLostError

logger = logging.getLogger(__name__)


class DeviceHealth:
    """Remembers that a device was lost, and tells the server, once. Thread-safe; `check` takes no lock.

    CUDA has one context a process: after an illegal access or a failed kernel every later call fails,
    for all models, and only a new process computes again.

    Args:
        lost: told the reason, once, on the thread that met the error.
        counted: told of every fault, by its kind.
    """

    def __init__(
        self, lost: Callable[[str], None] = lambda _: None, counted: Callable[[str], None] = lambda _: None
    ) -> None:
        self._lost = lost
        self._counted = counted
        self._lock = threading.Lock()
        self._reason: str | None = None

    @property
    def lost_reason(self) -> str | None:
        """Why the device is lost; None while it computes."""
        return self._reason

    def check(self) -> None:
        """Return if no device is lost.

        Raises:
            DeviceLostError: one is.
        """
        if self._reason is not None:
            raise DeviceLostError(self._reason)

    def count(self, kind: str) -> None:
        """Count a fault of this kind."""
        self._counted(kind)

    def report_lost(self, reason: str) -> None:
        """Remember that the device computes nothing any more, and tell the server if that is new."""
        with self._lock:
            first = self._reason is None
            self._reason = self._reason or reason
        if first:
            logger.critical("the device is lost, and this server with it: %s", reason)
            self._lost(reason)
