"""The system under test that LoadGen drives: it turns queries into requests of a server."""

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from inferry_client.messages import requests
from inferry_client.messages.replies import read_infer
from inferry_proto import open_inference_pb2
from inferry_proto.services import OPEN_INFERENCE

_TIMEOUT_S = 60.0


@dataclass
class Target:
    """A model behind an address, and the pictures that are sent.

    Samples that wait travel together, in requests of at most `rows`, while fewer than `under_way` are under way.
    LoadGen's threads give it queries; gRPC's threads complete them, and send what has waited meanwhile.

    Attributes:
        rows: of a request; 1 makes a request of each sample.
        under_way: requests at the same time.
        failed: samples of a run that got no answer.
        labels: of the samples that were answered, by their number.
    """

    channel: grpc.Channel
    loadgen: Any
    model: str
    input: str
    output: str
    images: NDArray[np.uint8]
    rows: int = 1
    under_way: int = 1
    failed: int = 0
    labels: dict[int, int] = field(default_factory=dict)
    _waiting: deque[Any] = field(default_factory=deque)
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._ask: Any = self.channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
        self._pixels = [image.tobytes() for image in self.images]
        self._heads: dict[int, bytes] = {}
        self._singles = [self._request([number]) for number in range(len(self.images))]

    def issue(self, samples: list[Any]) -> None:
        """Take a query."""
        with self._lock:
            self._waiting.extend(samples)
        self._send_what_waits()

    def flush(self) -> None:
        """Nothing is held back that could travel."""

    def _send_what_waits(self) -> None:
        while part := self._next_part():
            indices = [sample.index for sample in part]
            request = self._singles[indices[0]] if len(part) == 1 else self._request(indices)
            future = self._ask.future(request, timeout=_TIMEOUT_S)
            future.add_done_callback(lambda done, part=part: self._complete(done, part))

    def _next_part(self) -> list[Any]:
        """The samples of the next request, which is under way from now on; none: it has to wait, or nothing waits."""
        with self._lock:
            if not self._waiting or self._in_flight >= self.under_way:
                return []
            self._in_flight += 1
            return [self._waiting.popleft() for _ in range(min(self.rows, len(self._waiting)))]

    def _request(self, indices: Sequence[int]) -> bytes:
        """A serialized request of these pictures: all but the pixels is the same for every request of so many rows."""
        count = len(indices)
        if (head := self._heads.get(count)) is None:
            blank = self.images[:1].repeat(count, axis=0)
            message: Any = requests.infer(self.model, {self.input: blank}, outputs=[self.output]).request
            del message.raw_input_contents[:]
            head = self._heads[count] = message.SerializeToString()
        pixels = b"".join([self._pixels[index] for index in indices])
        # Protobuf reads two messages written one after the other as one that has the fields of both.
        return head + open_inference_pb2.ModelInferRequest(raw_input_contents=[pixels]).SerializeToString()

    def _complete(self, done: Any, part: list[Any]) -> None:
        try:
            reply = open_inference_pb2.ModelInferResponse.FromString(done.result())
            labels = read_infer(reply).outputs[self.output].argmax(axis=1).tolist()
            if len(labels) != len(part):
                raise ValueError(f"{len(labels)} rows for {len(part)}")
            with self._lock:
                self.labels.update({sample.index: label for sample, label in zip(part, labels, strict=True)})
        except Exception:  # noqa: BLE001 - whatever it was, LoadGen must be told that the query ended
            with self._lock:
                self.failed += len(part)
        with self._lock:
            self._in_flight -= 1
        self._send_what_waits()
        self.loadgen.QuerySamplesComplete([self.loadgen.QuerySampleResponse(sample.id, 0, 0) for sample in part])
