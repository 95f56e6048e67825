"""A closed loop of requests to one model: its argument is a `Job` as JSON, what it prints a `Loaded`.

It prints a line when it has been answered once, and starts when it gets one: so several start together. It
needs nothing but the contracts, grpcio and Pillow, as a GPU machine may have nothing else.
"""

import io
import json
import queue
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import grpc
import numpy as np
from PIL import Image

from inferry_proto.classifier_pb2 import ClassifyRequest
from inferry_proto.classifier_pb2 import Image as EncodedImage
from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import IMAGE_CLASSIFIER, OPEN_INFERENCE

STARTED_WITH = (sys.executable, __file__)  # by its path, which needs no PYTHONPATH
_OPTIONS = [
    ("grpc.max_send_message_length", 1 << 28),
    ("grpc.max_receive_message_length", 1 << 28),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels share one connection
]


@dataclass(frozen=True)
class Job:
    """What to ask.

    Attributes:
        address: `host:port`.
        model: whose newest version answers.
        name: of its input.
        datatype: of its input.
        shape: of the input of one request, `(N, H, W, C)`.
        seconds: how long requests are sent.
        concurrency: requests under way at once, shared among the connections.
        connections: how many.
        jpeg: send JPEG files to be classified, instead of tensors.
    """

    address: str
    model: str
    name: str
    datatype: str
    shape: Sequence[int]
    seconds: float
    concurrency: int = 1
    connections: int = 1
    jpeg: bool = False


@dataclass(frozen=True)
class Loaded:
    """What came of it.

    Attributes:
        wall_s: from the first request to the last answer.
        seconds: that each request took.
    """

    wall_s: float
    seconds: list[float]


Infer = Callable[[], "grpc.Future[bytes]"]


def main() -> None:
    job = Job(**json.loads(sys.argv[1]))
    method = IMAGE_CLASSIFIER["Classify"] if job.jpeg else OPEN_INFERENCE["ModelInfer"]
    message = classify_message(job) if job.jpeg else infer_message(job)
    with ExitStack() as stack:
        asks: list[Infer] = []
        for _ in range(job.connections):
            channel = stack.enter_context(grpc.insecure_channel(job.address, options=_OPTIONS))
            rpc: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method.path)
            rpc(message, timeout=60)
            asks.append(lambda rpc=rpc: rpc.future(message, timeout=60))  # type: ignore[misc]
        print("ready", flush=True)
        sys.stdin.readline()
        started = time.perf_counter()
        times = closed_loop(asks, job.concurrency, until=started + job.seconds)
        print(json.dumps(asdict(Loaded(time.perf_counter() - started, times))))


def closed_loop(asks: Sequence[Infer], concurrency: int, *, until: float) -> list[float]:
    """Keep so many requests in flight until a time; every one must be answered. Returns the seconds each took."""
    answered: queue.SimpleQueue[tuple[grpc.Future[bytes], float, Infer]] = queue.SimpleQueue()

    def send(ask: Infer) -> None:
        sent = time.perf_counter()
        ask().add_done_callback(lambda done: answered.put((done, sent, ask)))

    for number in range(concurrency):
        send(asks[number % len(asks)])
    in_flight, times = concurrency, []
    while in_flight:
        done, sent, ask = answered.get()
        done.result()
        now = time.perf_counter()
        times.append(now - sent)
        if now < until:
            send(ask)
        else:
            in_flight -= 1
    return times


def infer_message(job: Job) -> bytes:
    """ModelInfer with noise."""
    pixels = np.random.default_rng(0).integers(0, 256, job.shape, np.uint8).astype(DATATYPES[job.datatype].dtype)
    message = ModelInferRequest(model_name=job.model, raw_input_contents=[pixels.tobytes()])
    message.inputs.add(name=job.name, datatype=job.datatype, shape=job.shape)
    return message.SerializeToString()


def classify_message(job: Job) -> bytes:
    """Classify with one JPEG of smoothed noise for each row, in the model's own size."""
    rows, height, width, channels = job.shape
    random = np.random.default_rng(0)
    request = ClassifyRequest(model_name=job.model)
    for _ in range(rows):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        picture, file = coarse.resize((width, height)).convert("L" if channels == 1 else "RGB"), io.BytesIO()
        picture.save(file, "JPEG")
        request.images.append(EncodedImage(encoded=file.getvalue()))
    return request.SerializeToString()


if __name__ == "__main__":
    main()
