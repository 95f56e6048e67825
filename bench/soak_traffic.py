"""The callers of `make soak`: good requests of all sizes, and everything that callers do wrong.

Every kind of request says which outcomes it may have; any other one is a finding.
"""

import queue
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np

from inferry_proto import classifier_pb2
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE
from testkit import onnx_models
from testkit.rpc import infer_request

OK = frozenset({"OK"})
REFUSABLE = frozenset({"OK", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"})
LARGEST = 64  # rows of a request
SIDE = 8
CONCURRENCY = 24
_STREAM_REQUESTS = 8
_WAIT_S = 60.0  # for any answer


def save_models(repository: Path) -> None:
    """Four models that cost little, so that the server around them does the work."""
    onnx_models.save_doubler(repository)
    onnx_models.save_two_inputs(repository)
    onnx_models.save_brightness(repository, side=SIDE)
    onnx_models.save_picky(repository)


@dataclass(frozen=True)
class Visit:
    """One RPC, and what may become of it.

    Attributes:
        rows: that an OK answers.
        check: raises AssertionError where an answer is wrong.
        cancel: whether the caller goes away.
    """

    kind: str
    path: str
    message: bytes
    rows: int = 0
    expected: frozenset[str] = OK
    check: Callable[[bytes], None] = lambda _: None
    timeout_s: float = _WAIT_S
    cancel: bool = False


@dataclass
class Tally:
    """What became of the requests: by kind and outcome, and what should not have happened."""

    rows: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str, *, expected: frozenset[str], rows: int, details: str = "") -> None:
        """Count one answer."""
        self.outcomes[kind, outcome] += 1
        if outcome == "OK":
            self.rows += rows
        if outcome not in expected:
            self.findings.append(f"{kind}: {outcome}, expected {' or '.join(sorted(expected))}: {details}")


class Visits:
    """An endless row of visits that a seed determines."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: dict[Callable[[], Visit], int] = {
            self._double: 40, self._join: 20, self._brightness: 20, self._classify: 4,
            self._cancelled: 6, self._impatient: 4, self._timeout: 4, self._bad: 6, self._unknown: 2, self._failing: 2,
        }  # fmt: skip

    def next(self) -> Visit:
        """The next one: mostly good, mostly large."""
        (make,) = self._random.choices(list(self._kinds), weights=list(self._kinds.values()))
        return make()

    def stream(self) -> list[Visit]:
        """Requests of one stream; one of them is bad."""
        good = [self._double() for _ in range(_STREAM_REQUESTS - 1)]
        good.insert(self._random.randrange(_STREAM_REQUESTS), self._bad())
        return good

    def _rows(self) -> int:
        return self._random.choice((1, 2, 3, 7, 16, 32, 32, 48, LARGEST, LARGEST))

    def _double(self) -> Visit:
        x = np.full((self._rows(), 3), self._random.random(), np.float32)

        def check(message: bytes) -> None:
            (y,) = ModelInferResponse.FromString(message).raw_output_contents
            assert y == (2 * x).tobytes()

        return _infer("double", infer_request("doubler", x=x), rows=len(x), check=check)

    def _join(self) -> Visit:
        left, right = (np.full((self._rows(), 2), self._random.random(), np.float32) for _ in range(2))
        left = np.resize(left, right.shape)

        def check(message: bytes) -> None:
            total, difference = ModelInferResponse.FromString(message).raw_output_contents
            assert total == (left + right).tobytes()
            assert difference == (left - right).tobytes()

        return _infer("join", infer_request("joiner", left=left, right=right), rows=len(left),
                      check=check)  # fmt: skip

    def _brightness(self) -> Visit:
        images = np.full((self._rows(), SIDE, SIDE, 1), self._random.randrange(256), np.uint8)
        return _infer("brightness", infer_request("brightness", images=images), rows=len(images))

    def _classify(self) -> Visit:
        side = self._random.choice((SIDE, 20))
        level = self._random.randrange(256)
        pixels = classifier_pb2.Pixels(height=side, width=side, channels=1, data=bytes([level]) * side * side)
        count = self._random.choice((1, 4))
        images = [classifier_pb2.Image(pixels=pixels)] * count
        request = classifier_pb2.ClassifyRequest(model_name="brightness", images=images)

        def check(message: bytes) -> None:
            results = classifier_pb2.ClassifyResponse.FromString(message).results
            (label,) = {result.classifications[0].label for result in results}
            assert label == ("bright" if level > 255 / 2 else "dark")

        return Visit("classify", IMAGE_CLASSIFIER["Classify"].path, request.SerializeToString(), count, check=check)

    def _cancelled(self) -> Visit:
        message = infer_request("doubler", x=np.ones((self._rows(), 3), np.float32))
        return _infer("cancelled", message, expected=OK | {"CANCELLED"}, cancel=True)

    def _impatient(self) -> Visit:
        message = infer_request("doubler", x=np.ones((self._rows(), 3), np.float32))
        return _infer("impatient", message, expected=REFUSABLE, timeout_s=self._random.uniform(0.0001, 0.05))

    def _timeout(self) -> Visit:
        request = infer_request("doubler", x=np.ones((self._rows(), 3), np.float32))
        request.parameters["timeout"].int64_param = self._random.randint(1, 3000)
        return _infer("timeout", request, expected=REFUSABLE)

    def _bad(self) -> Visit:
        x = np.ones((self._rows(), 3), np.float32)
        request = infer_request("doubler", x=x)
        spoil = self._random.randrange(4)
        if spoil == 0:
            request.inputs[0].datatype = "INT8"
        elif spoil == 1:
            request.inputs[0].shape[1] = 4
        elif spoil == 2:
            request.raw_input_contents[0] = x.tobytes()[:-1]
        else:
            request.inputs[0].name = "z"
        return _infer("bad", request, expected=frozenset({"INVALID_ARGUMENT"}))

    def _unknown(self) -> Visit:
        request = infer_request("nobody", x=np.ones((1, 3), np.float32))
        return _infer("unknown model", request, expected=frozenset({"NOT_FOUND"}))

    def _failing(self) -> Visit:
        request = infer_request("picky", index=np.array([99], np.int64))
        return _infer("failing", request, expected=frozenset({"INTERNAL"}))


class Traffic:
    """Keeps so many requests in flight, and some streams beside them, until enough rows were answered."""

    def __init__(self, channel: grpc.Channel, seed: int) -> None:
        self.tally = Tally()
        self._visits = Visits(seed)
        self._leaving: list[grpc.Future[bytes]] = []
        self._answered: queue.SimpleQueue[tuple[Visit, grpc.Future[bytes]]] = queue.SimpleQueue()
        self._calls: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {
            path: channel.unary_unary(path)
            for path in (OPEN_INFERENCE["ModelInfer"].path, IMAGE_CLASSIFIER["Classify"].path)
        }
        self._stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            OPEN_INFERENCE["ModelStreamInfer"].path
        )

    def run(self, *, until_rows: int) -> Iterator[int]:
        """Yields the rows answered so far, after every answer; at the end nothing is in flight."""
        in_flight = CONCURRENCY
        for _ in range(CONCURRENCY):
            self._send()
        with ThreadPoolExecutor(1) as streamer:
            streaming = streamer.submit(self._run_stream, self._visits.stream())
            while in_flight:
                self._count(*self._answered.get(timeout=2 * _WAIT_S))
                if streaming.done():
                    self._merge(streaming.result())
                    streaming = streamer.submit(self._run_stream, self._visits.stream())
                if self.tally.rows < until_rows:
                    self._send()
                else:
                    in_flight -= 1
                yield self.tally.rows
            self._merge(streaming.result())
        yield self.tally.rows

    def _send(self) -> None:
        visit = self._visits.next()
        future = self._calls[visit.path].future(visit.message, timeout=visit.timeout_s)
        future.add_done_callback(lambda done: self._answered.put((visit, done)))
        for leaving in self._leaving:  # sent a moment ago: queued, computed, or not even there
            leaving.cancel()
        self._leaving = [future] if visit.cancel else []

    def _count(self, visit: Visit, done: "grpc.Future[bytes]") -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled():
            outcome, details = "CANCELLED", ""
        elif isinstance(error, grpc.RpcError):
            outcome, details = error.code().name, error.details() or ""
        else:
            outcome, details = "OK", ""
            visit.check(done.result())
        self.tally.add(visit.kind, outcome, expected=visit.expected, rows=visit.rows, details=details)

    def _run_stream(self, visits: list[Visit]) -> Tally:
        """Send every request, then read every response; they come in order."""
        tally = Tally()
        responses = self._stream(iter([visit.message for visit in visits]), timeout=_WAIT_S)
        for visit, message in zip(visits, responses, strict=True):
            response = ModelStreamInferResponse.FromString(message)
            refused = bool(response.error_message)
            expected = frozenset({"OK" if visit.expected == OK else "in-band error"})
            outcome = "in-band error" if refused else "OK"
            if not refused:
                visit.check(response.infer_response.SerializeToString())
            tally.add("stream", outcome, expected=expected, rows=visit.rows, details=response.error_message)
        return tally

    def _merge(self, other: Tally) -> None:
        self.tally.rows += other.rows
        self.tally.outcomes += other.outcomes
        self.tally.findings += other.findings


def _infer(
    kind: str,
    request: ModelInferRequest,
    *,
    rows: int = 0,
    expected: frozenset[str] = OK,
    check: Callable[[bytes], None] = lambda _: None,
    timeout_s: float = _WAIT_S,
    cancel: bool = False,
) -> Visit:
    path = OPEN_INFERENCE["ModelInfer"].path
    return Visit(kind, path, request.SerializeToString(), rows, expected, check, timeout_s, cancel)
