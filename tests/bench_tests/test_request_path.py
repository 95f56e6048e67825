"""What `make bench-path` counts: the way of a warm request, from the connection to the session and back."""

from pathlib import Path

from bench.request_path import request_path


def test_the_path_of_a_request_goes_from_the_transport_to_the_session_and_back(tmp_path: Path) -> None:
    path = request_path(tmp_path, requests=4)
    assert {"transport/completion_queue", "services/inference", "runtime/session", "wire/encode"} <= path.modules
    assert path.between["executing/execution", "runtime/session"] == 4  # a round has one request


def test_a_request_passes_no_more_modules_and_calls_than_this(tmp_path: Path) -> None:
    """Who makes it longer raises these with a reason; who makes it shorter lowers them.

    Constructors of plain classes count; so what every request makes is defined in the module that makes it, but for
    the request that waits, which the queue's side knows.
    """
    path = request_path(tmp_path, requests=4)
    assert len(path.modules) <= 20
    assert path.between.total() / 4 <= 60
