"""From a request that was read to the queue of the version that answers: when it is due, and whose queue that is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from inferry_server.errors import ServingError, ShuttingDownError
from inferry_server.lateness.record import Origin
from inferry_server.models.version import ServedVersion

T = TypeVar("T")


def with_version(find: Callable[[], ServedVersion], use: Callable[[ServedVersion], T], origin: Origin) -> T:
    """Use the version that answers now; where it stopped answering in between, the one that does.

    A version leaves the registry before its queue closes, so a request that finds the queue closed
    need only look again: no swap fails a request. What is refused is counted here, where a request
    meets its version.

    Args:
        find: the version that answers now.
        use: what is done with it.
        origin: the request.

    Raises:
        ShuttingDownError: the version is still the one, so the server itself is going away.
        ServingError: from `find` and `use`.
    """
    while True:
        version = find()
        try:
            return use(version)
        except ShuttingDownError as refusal:
            if find() is version:  # guard: versions-request-meets, versions-server-goes
                version.observer.request_refused(refusal, origin)
                raise
        except ServingError as refusal:
            version.observer.request_refused(refusal, origin)
            raise


@dataclass(frozen=True)
class DeadlinePolicy:
    """The server's word on deadlines.

    Attributes:
        objective_s: the deadline of requests that carry none; None: they have none.
    """

    objective_s: float | None = None

    def deadline(
        self,
        arrived: float,
        *,
        call_deadline: float | None,
        timeout_s: float | None,
        model_objective_s: float | None = None,
    ) -> float | None:
        """The earliest of the call's own deadline and the request's timeout, else the objective.

        Args:
            arrived: when the request came, in monotonic seconds.
            call_deadline: gRPC's, on the same clock.
            timeout_s: the request's `timeout` parameter.
            model_objective_s: the model's own objective, which goes before the server's.
        """
        if timeout_s is not None:
            ends = arrived + timeout_s
            return ends if call_deadline is None else min(ends, call_deadline)  # guard: deadlines-earliest-counts
        if call_deadline is not None:
            return call_deadline
        objective_s = (
            self.objective_s if model_objective_s is None else model_objective_s
        )  # guard: deadlines-model-objective
        return None if objective_s is None else arrived + objective_s
