"""Served versions are asked again, now and then, what they answered when they were loaded.

A device that computes wrong answers says nothing of it. The questions wait in the version's own queue,
in the bulk lane: they go the way of requests, and after them.
"""

import logging
import threading
from collections.abc import Callable, Iterable

from inferry_proto.datatypes import Arrays
from inferry_server.batching.policy import Lane
from inferry_server.batching.request import InferenceRequest, Timing
from inferry_server.errors import ModelLoadError, ServingError
from inferry_server.models.checks import GoldenCheck
from inferry_server.models.version import ServedVersion

logger = logging.getLogger(__name__)

_LONGEST_END_S = 0.5
PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class SelfCheck:
    """Checks served versions by their golden samples, on a thread of its own. `close` waits for it, for a moment.

    Args:
        served: the versions that answer now.
        failed: told of a version that no longer answers as it should, and how.
        counted: told of every check: model, outcome.
        timeout_s: how long an answer may take; a queue that is longer has no time for questions.
    """

    def __init__(
        self,
        served: Callable[[], Iterable[ServedVersion]],
        failed: Callable[[ServedVersion, str], None],
        counted: Callable[[str, str], None],
        *,
        timeout_s: float = 30.0,
    ) -> None:
        self._served = served
        self._failed = failed
        self._counted = counted
        self._timeout_s = timeout_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, interval_s: float) -> None:
        """Check every so often, from now on."""
        self._thread = threading.Thread(target=self._repeat, args=(interval_s,), name="self-check", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Check nothing any more. A question that waits for its answer is not waited for."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_END_S)

    def check_all(self) -> None:
        """Check every version that has golden samples, one after the other."""
        for version in self._served():
            if version.golden is not None and not self._stop.is_set():
                self._counted(version.model, self._check(version, version.golden))

    def _repeat(self, interval_s: float) -> None:
        while not self._stop.wait(interval_s):
            try:
                self.check_all()
            except Exception:  # the next look may fare better
                logger.exception("the self-check failed to run")

    def _check(self, version: ServedVersion, golden: GoldenCheck) -> str:
        try:
            golden.check(lambda inputs: self._ask(version, inputs))
        except ModelLoadError as error:
            logger.error("self-check failed: %s", error, extra={"model": f"{version.model}/{version.version}"})
            self._failed(version, str(error))
            return FAILED
        except (ServingError, _NoTimeError) as error:  # too busy, or going away: that says nothing of its answers
            logger.info("self-check skipped: %s", error, extra={"model": f"{version.model}/{version.version}"})
            return SKIPPED
        return PASSED

    def _ask(self, version: ServedVersion, inputs: Arrays) -> Arrays:
        answer = _Answer()
        rows = len(next(iter(inputs.values()))) if version.max_request_rows else 1
        request = InferenceRequest(inputs, rows, answer, lane=Lane.BULK)
        version.batcher.submit(request)
        if not answer.came.wait(self._timeout_s):
            version.batcher.cancel(request)
            raise _NoTimeError(f"no answer within {self._timeout_s:g} s")
        return answer.outputs()


class _NoTimeError(Exception):
    """The version was too busy to answer a question."""


class _Answer:
    """Takes the reply to one question; outputs are copied, since they may be views of a batch."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self._outputs: Arrays = {}
        self._error: Exception | None = None

    def complete(self, outputs: Arrays, timing: Timing) -> Callable[[], object]:  # noqa: ARG002 - a Reply
        self._outputs = {name: array.copy() for name, array in outputs.items()}
        return self.came.set

    def fail(self, error: Exception) -> None:
        self._error = error
        self.came.set()

    def outputs(self) -> Arrays:
        """The outputs, or the error raised."""
        if self._error is not None:
            raise self._error
        return self._outputs
