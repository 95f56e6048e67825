import pytest

from inferry_client import errors
from inferry_client.errors import InferryError, error_from_reply, error_from_status


def _error(code: str, details: str, pushback: str | None = None) -> InferryError:
    return error_from_status(
        code,
        details,
        address="host:8001",
        asked="classify 1 picture with model 'm'",
        timeout_s=3,
        pushback=pushback,
    )


@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("NOT_FOUND", errors.ModelNotFoundError),
        ("INVALID_ARGUMENT", errors.InvalidRequestError),
        ("FAILED_PRECONDITION", errors.NotAllowedError),
        ("UNAUTHENTICATED", errors.NotAllowedError),
        ("PERMISSION_DENIED", errors.NotAllowedError),
        ("UNIMPLEMENTED", errors.UnsupportedError),
        ("CANCELLED", errors.ServerUnavailableError),
        ("UNAVAILABLE", errors.ServerUnavailableError),
        ("RESOURCE_EXHAUSTED", errors.OverloadedError),
        ("DEADLINE_EXCEEDED", errors.DeadlineExceededError),
        ("INTERNAL", errors.ServerError),
        ("DATA_LOSS", errors.ServerError),
    ],
)
def test_every_status_becomes_an_error_that_names_server_and_question(
    code: str, error_class: type[InferryError]
) -> None:
    error = _error(code, "the server's words")
    assert type(error) is error_class
    for part in ("host:8001", "classify 1 picture with model 'm'", "the server's words"):
        assert part in str(error)
    assert "\n" not in str(error)


def test_a_server_that_is_not_there_is_told_from_one_that_is_not_ready() -> None:
    details = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
    assert str(_error("UNAVAILABLE", details)).startswith("no server answers at host:8001: Connection refused;")
    assert "model 'm' is LOADING" in str(_error("UNAVAILABLE", "model 'm' is LOADING"))


def test_a_connection_that_ended_before_the_server_looked_is_told_from_a_server_that_stops() -> None:
    ended = "Stream removed (GOAWAY received; Error code: 0; Debug Text: max_age)"  # of gRPC 1.85
    unseen = [getattr(_error("UNAVAILABLE", details), "unseen", None) for details in (ended, "the server is stopping")]
    assert unseen == [True, False]


def test_what_the_client_did_not_cancel_may_be_asked_again() -> None:
    assert _error("CANCELLED", "CANCELLED").retryable
    by_client = error_from_status(
        "CANCELLED", "Channel closed!", address="host:8001", asked="run model 'm'", timeout_s=3, closed=True
    )
    assert isinstance(by_client, errors.RequestCancelledError)
    assert not by_client.retryable


def test_a_message_too_large_is_no_overload() -> None:
    error = _error("RESOURCE_EXHAUSTED", "SERVER: Received message larger than max (9 vs. 4)")
    assert isinstance(error, errors.InvalidRequestError)
    assert not error.retryable


def test_a_port_without_grpc_and_a_reply_that_is_no_message_are_told_apart() -> None:
    details = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Failed parsing HTTP/2"
    assert str(_error("UNAVAILABLE", details)) == "what answers at host:8001 does not speak gRPC; check the port"
    garbage = _error("INTERNAL", "Exception deserializing response!")
    assert isinstance(garbage, errors.ReplyError)
    assert "is no message of this protocol" in str(garbage)


def test_an_overload_says_when_to_come_back() -> None:
    error = _error("RESOURCE_EXHAUSTED", "the queue is full", pushback="250")
    assert isinstance(error, errors.OverloadedError)
    assert error.retry_after_s == 0.25


@pytest.mark.parametrize("details", ["", "Deadline Exceeded", "Stream removed (Deadline Exceeded)"])
def test_a_server_that_said_nothing_in_time_is_silent(details: str) -> None:
    error = _error("DEADLINE_EXCEEDED", details)
    assert isinstance(error, errors.DeadlineExceededError)
    assert error.silent
    assert str(error).endswith("within 3 s; allow more time or send less")


def test_a_timeout_names_its_seconds() -> None:
    assert "within 3 s" in str(_error("DEADLINE_EXCEEDED", "Deadline Exceeded"))


def test_a_reply_that_breaks_the_protocol_is_an_error_of_its_own() -> None:
    error = error_from_reply("output 'p': 3 bytes came", address="host:8001", asked="run model 'm'")
    assert isinstance(error, errors.ReplyError)
    assert "output 'p': 3 bytes came" in str(error)
