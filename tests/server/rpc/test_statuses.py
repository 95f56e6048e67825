import grpc

from inferry_server import errors
from inferry_server.rpc.statuses import CODES, status_of


def every_error() -> list[type[errors.ServingError]]:
    found, todo = [], [errors.ServingError]
    while todo:
        found += (below := todo.pop().__subclasses__())
        todo += below
    return found


def test_every_error_has_a_status() -> None:
    covered = tuple(error_type for error_type, _ in CODES)
    assert all(issubclass(error_type, covered) for error_type in every_error())


def test_full_can_be_told_from_down_and_says_when_to_come_back() -> None:
    full = status_of(errors.QueueFullError("rows", limit=4, actual=5, retry_after_s=0.25))
    assert full.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert full.trailing_metadata == (("grpc-retry-pushback-ms", "250"),)
    assert status_of(errors.ShuttingDownError()).code is grpc.StatusCode.UNAVAILABLE


def test_what_is_unexpected_stays_inside() -> None:
    status = status_of(KeyError("secret"))
    assert status.code is grpc.StatusCode.INTERNAL
    assert "secret" not in status.message
