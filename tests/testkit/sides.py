"""A server whose ModelInfer requests a test hands over at once, to be handled together or one by one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.rpc.router import EndingCall, Router
from inferry_server.rpc.statuses import OK, Status
from inferry_server.telemetry.exposition import write_page
from testkit.gated_server import GatedServer
from testkit.metrics_page import Metrics
from testkit.rpc import infer_request
from testkit.waiting import wait_until

MODEL_INFER = OPEN_INFERENCE["ModelInfer"].path
COUNTED = (
    "inferry_requests_received_total", "inferry_requests_outcome_total", "inferry_model_requests_total",
    "inferry_requests_refused_total", "inferry_model_request_duration_seconds_count",
    'inferry_tensor_bytes_total{direction="input"',
    "inferry_queue_duration_seconds_count", "inferry_request_duration_seconds_count",
)  # fmt: skip


class Token:
    """In memory as long as the call that has it: a class in Python above a compiled one stands no weak references."""


class Asked(EndingCall):
    """A call that keeps what its client would get."""

    def __init__(self, router: Router, deadline: float | None = None, waited_s: float = 0.0) -> None:
        super().__init__(MODEL_INFER, (), deadline, router.received(MODEL_INFER, ()), waited_s)
        self.token = Token()
        self.answers: list[bytes] = []
        self.status: Status | None = None

    def reply(self, message: bytes) -> None:
        if self._end(OK):
            self.answers.append(message)
            self.status = OK

    def abort(self, status: Status) -> None:
        if self._end(status):
            self.status = status

    @property
    def outcome(self) -> tuple[str, str, ModelInferResponse | None]:
        status = self.status
        code, reason = ("CANCELLED", "") if status is None else (status.code_name, status.reason)
        return code, reason, ModelInferResponse.FromString(self.answers[0]) if self.answers else None


@dataclass
class Side:
    """A server, and whether what is asked of it at once is handled together."""

    there: GatedServer
    together: bool

    @property
    def router(self) -> Router:
        router: Router = self.there.server._transport._router  # type: ignore[attr-defined]
        return router

    def ask(self, messages: Sequence[bytes], deadlines: Sequence[float | None] | None = None) -> list[Asked]:
        calls = [Asked(self.router, deadline) for deadline in deadlines or [None] * len(messages)]
        if self.together:
            self.router.handle_alike(list(zip(calls, messages, strict=True)))
        else:
            for call, message in zip(calls, messages, strict=True):
                self.router.handle(call, message)
        return calls

    def hold(self, *messages: bytes) -> list[Asked]:
        """Ask, and return once the model computes; it does until the gate opens."""
        self.there.gate.close()
        calls = self.ask(messages)
        self.there.gate.wait_for_runs(1)
        return calls

    def counted(self) -> Metrics:
        page = b"".join(write_page(self.there.server.metrics.registry, "")[0]).decode()
        lines = (line.rpartition(" ") for line in page.splitlines() if line.startswith(COUNTED))
        return {name: float(value) for name, _, value in lines}


def doubled(*values: float, request_id: str = "", **parameters: int) -> bytes:
    request = infer_request("doubler", x=np.array([values], np.float32).reshape(-1, 3))
    request.id = request_id
    for name, value in parameters.items():
        request.parameters[name].int64_param = value
    return request.SerializeToString()


def picked(index: int, request_id: str = "") -> bytes:
    request = infer_request("picky", index=np.array([index], np.int64))
    request.id = request_id
    return request.SerializeToString()


def answers(calls: Sequence[Asked]) -> list[float]:
    """The first number of each answer."""
    wait_until(lambda: all(call.ended for call in calls), "every outcome")
    numbers = []
    for call in calls:
        code, reason, response = call.outcome
        assert response is not None, (code, reason)
        numbers.append(float(np.frombuffer(response.raw_output_contents[0], np.float32)[0]))
    return numbers
