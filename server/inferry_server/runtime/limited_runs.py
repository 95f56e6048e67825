"""Ends runs that take too long: made-up values may let a model loop as often as they say."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from inferry_proto.datatypes import Arrays
from inferry_server.errors import InferenceError

_LOOKS = 20  # in the time that a run may take


class RunTooLongError(InferenceError):
    """A run was ended because it took too long: nothing is known of its outputs."""


class Interruptible(Protocol):
    """Computes a model, and can end its runs."""

    def run(self, inputs: Arrays) -> Arrays:
        """Compute every output. Raises InferenceError."""
        ...

    def interrupter(self) -> Callable[[], None]:
        """A function that ends the runs that are under way now; later runs go on."""
        ...


class LimitedRuns:
    """Computes a model as a session does, each run for no longer than a limit. One thread at a time calls `run`.

    A thread of its own, from `with` to its end, looks at the run that is under way. ONNX Runtime ends a run between two
    operators, so an operator that takes longer is waited for.

    Args:
        session: that computes.
        limit_s: for one run.
        clock: monotonic seconds.
    """

    def __init__(self, session: Interruptible, limit_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._limit_s = limit_s
        self._clock = clock
        self._lock = threading.Lock()
        self._began: float | None = None
        self._is_ended = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="limited-runs", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def run(self, inputs: Arrays) -> Arrays:
        """Compute every output.

        Raises:
            RunTooLongError: the run was ended.
            InferenceError: as the session.
        """
        with self._lock:
            self._began, self._is_ended = self._clock(), False
        try:
            return self._session.run(inputs)
        except InferenceError as error:
            if self._is_ended:
                raise RunTooLongError(f"one run takes longer than {self._limit_s:g} s") from error
            raise
        finally:
            with self._lock:
                self._began = None

    def look(self) -> None:
        """End the run that is under way if it takes too long."""
        with self._lock:  # else this run could finish, and the next one be ended
            if self._began is None or self._is_ended or self._clock() - self._began < self._limit_s:
                return
            self._is_ended = True
            self._session.interrupter()()  # guard: rows-runs-limited

    def _watch(self) -> None:
        while not self._closed.wait(self._limit_s / _LOOKS):
            self.look()
