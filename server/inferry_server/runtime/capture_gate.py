"""Lets a thread that records a CUDA graph be alone on the device; all other work runs side by side."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class CaptureGate:
    """Lets many threads compute at the same time, or one record: each kind waits until the other is done.

    While a stream records, an allocation by any thread spoils the recording. Recording takes
    milliseconds, and happens only while a version loads. Not reentrant.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._computing = 0
        self._waiting = 0
        self._recording = False

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Compute beside others; waits while a thread records or waits to record."""
        with self._changed:
            self._changed.wait_for(lambda: not self._recording and not self._waiting)
            self._computing += 1
        try:
            yield
        finally:
            with self._changed:
                self._computing -= 1
                self._changed.notify_all()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record alone; waits until no thread computes or records."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._recording and not self._computing)
            self._waiting -= 1
            self._recording = True
        try:
            yield
        finally:
            with self._changed:
                self._recording = False
                self._changed.notify_all()
