"""A stream of requests: in order, in band, bounded; a scripted `submit` plays the models."""

from collections.abc import Callable

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from inferry_server.errors import ModelNotFoundError
from inferry_server.rpc.call import Outcome
from inferry_server.rpc.statuses import OK
from inferry_server.services.inference import STREAM_FORMAT
from inferry_server.services.streams import MAX_PENDING, OrderedStream
from inferry_server.trace import NoTracer, RequestTrace
from inferry_server.wire.messages import parse
from testkit.calls import FakeCall


class Models:
    """Keeps what was submitted until the test answers it; refuses the model `none`."""

    def __init__(self) -> None:
        self.answers: dict[str, Outcome] = {}
        self.cancelled: list[str] = []

    def submit(
        self,
        message: bytes,
        outcome: Outcome,
        *,
        call_deadline: float | None,
        trace: RequestTrace | None,
    ) -> Callable[[], object]:
        request = parse(ModelInferRequest, message)
        if request.model_name == "none":
            raise ModelNotFoundError("none")
        self.answers[request.id] = outcome
        return lambda: self.cancelled.append(request.id)

    def answer(self, request_id: str) -> None:
        self.answers[request_id].reply(ModelInferResponse(id=request_id).SerializeToString())


def stream(*, ends_on_error: bool = False) -> tuple[FakeCall, Models, OrderedStream]:
    call, models = FakeCall(), Models()
    return call, models, OrderedStream(call, STREAM_FORMAT, models.submit, NoTracer(), ends_on_error=ends_on_error)


def request(request_id: str, model: str = "m") -> bytes:
    return ModelInferRequest(model_name=model, id=request_id).SerializeToString()


def responses(call: FakeCall) -> list[tuple[str, str]]:
    """The id and error of each response."""
    parsed = [ModelStreamInferResponse.FromString(message) for message in call.messages]
    return [(response.infer_response.id, response.error_message) for response in parsed]


@given(st.permutations(range(8)))
def test_replies_go_out_in_the_order_of_the_requests_whatever_is_ready_first(order: list[int]) -> None:
    call, models, opened = stream()
    for i in range(8):
        opened.on_message(request(str(i)))
    for i in order:
        models.answer(str(i))
    assert responses(call) == [(str(i), "") for i in range(8)]


def test_a_request_that_fails_gets_its_error_in_band_and_the_stream_lives_on() -> None:
    call, models, opened = stream()
    opened.on_message(request("1"))
    opened.on_message(request("2", model="none"))
    opened.on_message(b"\xff")
    opened.on_message(request("4"))
    models.answer("1")
    models.answers["4"].fail(KeyError("secret"))
    found = responses(call)
    assert [i for i, _ in found] == ["1", "2", "", "4"]
    assert found[1][1] == "model 'none' is not in the repository"
    assert "is not a valid inference.ModelInferRequest" in found[2][1]
    assert "secret" not in found[3][1]
    assert call.statuses == []


def test_every_reply_says_that_it_is_the_last_of_its_request() -> None:
    call, models, opened = stream()
    for request_id, model in (("1", "m"), ("2", "none")):
        opened.on_message(request(request_id, model))
    models.answer("1")
    found = [ModelStreamInferResponse.FromString(message).infer_response for message in call.messages]
    assert [(one.id, one.parameters["triton_final_response"].bool_param) for one in found] == [("1", True), ("2", True)]


def test_a_refusal_tells_the_code_that_a_call_would_have_ended_with() -> None:
    call, models, opened = stream()
    opened.on_message(request("1", model="none"))
    opened.on_message(request("2"))
    models.answer("2")
    found = [ModelStreamInferResponse.FromString(message).infer_response.parameters for message in call.messages]
    assert found[0]["error_code"].int64_param == grpc.StatusCode.NOT_FOUND.value[0]
    assert "error_code" not in found[1]


def test_an_error_ends_the_stream_of_a_client_that_asked_for_statuses() -> None:
    call, models, opened = stream(ends_on_error=True)
    for i in range(4):
        opened.on_message(request(str(i), model="none" if i == 2 else "m"))
    models.answer("3")
    models.answer("1")
    assert call.statuses == []  # the first answer is owed before the error
    models.answer("0")
    opened.on_message(request("5"))
    opened.on_half_close()
    opened.on_drain()
    assert responses(call) == [("0", ""), ("1", "")]
    assert [(status.code.name, status.message) for status in call.statuses] == [
        ("NOT_FOUND", "model 'none' is not in the repository")
    ]
    assert "5" not in models.answers


def test_an_error_that_ends_a_stream_forgets_what_waits_behind_it() -> None:
    call, models, opened = stream(ends_on_error=True)
    for i in range(3):
        opened.on_message(request(str(i)))
    models.answers["0"].fail(ModelNotFoundError("gone"))
    models.answer("1")
    assert (models.cancelled, call.messages) == (["1", "2"], [])


def test_the_stream_ends_well_after_its_last_reply() -> None:
    call, models, opened = stream()
    opened.on_message(request("1"))
    opened.on_half_close()
    assert call.statuses == []
    models.answer("1")
    assert call.statuses == [OK]
    empty_call, _, empty = stream()
    empty.on_half_close()
    assert empty_call.statuses == [OK]


def test_a_client_that_goes_away_takes_its_requests_along() -> None:
    call, models, opened = stream()
    for i in range(3):
        opened.on_message(request(str(i)))
    models.answer("0")
    call.cancel()
    assert models.cancelled == ["1", "2"]


def test_a_client_is_not_read_while_too_many_of_its_requests_have_no_reply() -> None:
    call, models, opened = stream()
    for i in range(MAX_PENDING - 1):
        opened.on_message(request(str(i)))
    states = [call.paused]
    opened.on_message(request("last"))
    states.append(call.paused)
    models.answer("1")  # it is not the first, and cannot go out
    states.append(call.paused)
    models.answer("0")
    states.append(call.paused)
    assert states == [False, True, True, False]


@pytest.mark.parametrize("count", [1, 3])
def test_replies_made_at_once_are_sent_at_once(count: int) -> None:
    call = FakeCall()

    def submit(
        message: bytes,
        outcome: Outcome,
        *,
        call_deadline: float | None,
        trace: RequestTrace | None,
    ) -> Callable[[], object]:
        request = parse(ModelInferRequest, message)
        outcome.reply(ModelInferResponse(id=request.id).SerializeToString())
        return lambda: None

    opened = OrderedStream(call, STREAM_FORMAT, submit, NoTracer())
    for i in range(count):
        opened.on_message(request(str(i)))
    assert len(call.messages) == count
