"""When a request must be answered, from everything that says so."""

from dataclasses import dataclass


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
