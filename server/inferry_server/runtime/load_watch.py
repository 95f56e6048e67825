"""Ending what a model does in ONNX Runtime, from another thread: a load that takes too long, runs at the end."""

import threading
from collections.abc import Callable


class LoadWatch:
    """Follows the sessions of one version while it is loaded, and afterwards. Thread-safe.

    The thread that loads registers what can end ONNX Runtime's work; any other may cancel. ONNX Runtime looks at that
    between two operators, and between two passes over a graph: what it is in the middle of, it finishes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._enders: list[Callable[[], object]] = []
        self._reason: str | None = None
        self._finished = False
        self.cancelled = threading.Event()

    @property
    def reason(self) -> str | None:
        """Why the load was cancelled; None where it was not."""
        return self._reason

    def add(self, end: Callable[[], object]) -> None:
        """Register what ends a piece of work; called at once if the load was cancelled already."""
        with self._lock:
            self._enders.append(end)
            call_now = self._reason is not None
        if call_now:
            end()

    def cancel(self, reason: str) -> None:
        """End the load, unless it has finished."""
        with self._lock:
            if self._finished or self._reason is not None:
                return
            self._reason = reason
        self.cancelled.set()
        self.end_runs()

    def finish(self) -> bool:
        """The version is loaded: it can be cancelled no longer.

        Returns:
            False where it was cancelled before; then it must not be served.
        """
        with self._lock:
            self._finished = self._reason is None
            return self._finished

    def end_runs(self) -> None:
        """Let every run of the sessions fail, those under way and all later ones."""
        with self._lock:
            enders = tuple(self._enders)
        for end in enders:
            end()
