"""The common client against real servers, so that its hand-written protocol is what servers speak."""

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.load_generator import Job, StampedBody, Tally, closed_loop, due_times, open_loop, percentile
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_proto.services import OPEN_INFERENCE
from testkit import scripted_server

PATH = OPEN_INFERENCE["ModelInfer"].path


@pytest.fixture
def body(tmp_path: Path) -> Path:
    written = tmp_path / "body"
    written.write_bytes(ModelInferRequest(model_name="m", raw_input_contents=[bytes(40_000)]).SerializeToString())
    return written


@pytest.mark.parametrize("concurrency", [1, 7, 16])
def test_every_request_of_a_closed_loop_is_answered_once(body: Path, concurrency: int) -> None:
    answer = ModelInferResponse(model_name="m", raw_output_contents=[bytes(30_000)])
    with scripted_server.serving({"ModelInfer": lambda _: answer}) as server:
        job = Job(int(server.address.rpartition(":")[2]), PATH, str(body), seconds=0.2, concurrency=concurrency)
        result = closed_loop(job)
        received = server.requests("ModelInfer")
    assert result.sent == result.answered == len(received) >= concurrency
    assert all(len(request.raw_input_contents[0]) == 40_000 for request in received)


def test_a_refusal_is_no_answer(body: Path) -> None:
    with scripted_server.serving({}) as server:
        job = Job(int(server.address.rpartition(":")[2]), PATH, str(body), seconds=0.1, concurrency=3)
        result = closed_loop(job)
    assert result.sent > 0
    assert result.answered == result.useful == 0


def test_an_open_loop_sends_what_its_rate_says_and_stamps_each_request(tmp_path: Path) -> None:
    blank, answer = tmp_path / "blank", ModelInferResponse(model_name="m", raw_output_contents=[b"x"])
    blank.write_bytes(ModelInferRequest(model_name="m", raw_input_contents=[bytes(100)]).SerializeToString())
    with scripted_server.serving({"ModelInfer": lambda _: answer}) as server:
        job = Job(
            int(server.address.rpartition(":")[2]), PATH, str(blank), seconds=0.25, rate=200, objective_ms=1e6,
            stamp_at=blank.stat().st_size - 100,
        )  # fmt: skip
        before = time.monotonic_ns()
        result = open_loop(job)
        after = time.monotonic_ns()
        contents = [request.raw_input_contents[0] for request in server.requests("ModelInfer")]
    assert result.sent == result.answered == result.useful == len(contents) == 50
    stamps = sorted(int.from_bytes(each[:8], "little") for each in contents)
    assert all(len(each) == 100 and not any(each[8:]) for each in contents)
    sent = [stamp - 1e12 for stamp in stamps]  # an objective of 1e6 ms before
    assert before - 1e6 <= sent[0] <= sent[-1] <= after + 1e6  # one clock in two processes, to a millisecond


def test_when_each_request_began_and_how_long_it_took_is_written(tmp_path: Path, body: Path) -> None:
    times, answer = tmp_path / "times", ModelInferResponse(model_name="m", raw_output_contents=[b"x"])
    with scripted_server.serving({"ModelInfer": lambda _: answer}) as server:
        before = time.perf_counter()
        port = int(server.address.rpartition(":")[2])
        result = open_loop(Job(port, PATH, str(body), seconds=0.1, rate=200, times=str(times)))
        after = time.perf_counter()
    began, latencies = np.fromfile(times).reshape(2, -1)
    assert len(began) == result.answered == 20
    assert before <= began.min() <= began.max() <= after
    assert (latencies > 0).all()
    assert (began + latencies <= after).all()
    assert result.cpu_s > 0


def test_random_times_are_alike_in_every_stretch_and_have_the_rate_that_was_asked_for() -> None:
    due = np.array(due_times(Job(1, PATH, "", seconds=6.0, rate=500, repeats_s=2.0)))
    assert len(due) == 3000
    assert (np.diff(due) >= 0).all()
    for begins in (0.0, 0.7, 3.999):
        stretch = due[(due >= begins) & (due < begins + 2.0)]
        assert list(np.round(np.sort(stretch % 2.0), 9)) == list(np.round(due[:1000], 9))
    gaps = np.diff(due[:1000])
    assert 0.8 < gaps.std() / gaps.mean() < 1.2  # as those of a Poisson process; 0 where they are even


def test_how_late_each_request_left_is_written(tmp_path: Path, body: Path) -> None:
    lags, answer = tmp_path / "lags", ModelInferResponse(model_name="m", raw_output_contents=[b"x"])
    with scripted_server.serving({"ModelInfer": lambda _: answer}) as server:
        port = int(server.address.rpartition(":")[2])
        before = time.perf_counter()
        result = open_loop(Job(port, PATH, str(body), seconds=0.2, rate=200, repeats_s=0.1, lags=str(lags)))
        after = time.perf_counter()
    due, late = np.fromfile(lags).reshape(2, -1)
    assert len(due) == result.sent == 40
    assert before <= due.min() <= due.max() <= after
    assert (late >= 0).all()
    assert late.max() * 1e3 == pytest.approx(result.behind_ms)


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200 if self.path == "/ok" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def http_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("path", "answered"), [("/ok", True), ("/full", False)])
def test_http_answers_are_told_from_refusals(http_port: int, body: Path, path: str, answered: bool) -> None:
    result = closed_loop(Job(http_port, path, str(body), seconds=0.1, concurrency=3, http=True))
    assert result.sent >= 3
    assert result.answered == (result.sent if answered else 0)


def test_what_comes_after_the_objective_is_not_useful() -> None:
    tally = Tally(objective_ms=100)
    for latency, answered in ((0.05, True), (0.2, True), (0.01, False)):
        tally.add(1.0, answered=answered, now=1.0 + latency)
    result = tally.result(wall_s=2.0)
    assert (result.sent, result.answered, result.useful) == (3, 2, 1)


def test_an_unstamped_body_is_sent_as_it_is(body: Path) -> None:
    assert StampedBody(Job(1, PATH, str(body), 1)).at(1.0) == body.read_bytes()


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(range(100), 99) == 99
    assert percentile([], 99) == 0
