"""Ends what ONNX Runtime does for a model, from another thread: a load that takes too long, runs when it is retired."""

import threading
from collections.abc import Callable


class LoadWatch:
    """Follows the sessions of one version while it is loaded, and afterwards. Thread-safe.

    The thread that loads registers functions that end ONNX Runtime's work; any other thread may cancel. ONNX Runtime
    checks for that between two operators, and between two passes over a graph, and finishes the one that it is at.
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
        """Register a function that ends a piece of work; it is called at once if the load was cancelled already."""
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
        """Note that the version is loaded, and cannot be cancelled any more.

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
