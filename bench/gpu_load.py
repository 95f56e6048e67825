"""A closed loop of ModelInfer requests for any model: ADDRESS MODEL INPUT DATATYPE SHAPE CONCURRENCY SECONDS.

Prints `{"wall_s": ..., "seconds": [...]}`. It needs nothing but grpcio, as a GPU machine may have nothing else.
"""

import json
import queue
import sys
import time

import grpc
import numpy as np

from inferry_proto.datatypes import DATATYPES
from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE

STARTED_WITH = (sys.executable, __file__)  # by its path, which needs no PYTHONPATH
_LARGEST_MESSAGE = [("grpc.max_send_message_length", 1 << 28), ("grpc.max_receive_message_length", 1 << 28)]


def main() -> None:
    address, model, name, datatype, shape_text, concurrency, seconds = sys.argv[1:]
    message = request(model, name, datatype, json.loads(shape_text))
    with grpc.insecure_channel(address, options=_LARGEST_MESSAGE) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
        infer(message, timeout=60)
        started = time.perf_counter()
        times = closed_loop(infer, message, int(concurrency), until=started + float(seconds))
        print(json.dumps({"wall_s": time.perf_counter() - started, "seconds": times}))


def closed_loop(
    infer: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", message: bytes, concurrency: int, *, until: float
) -> list[float]:
    """Keep so many requests in flight until a time; every one must be answered. Returns the seconds each took."""
    answered: queue.SimpleQueue[tuple[grpc.Future[bytes], float]] = queue.SimpleQueue()

    def send() -> None:
        sent = time.perf_counter()
        infer.future(message, timeout=60).add_done_callback(lambda done: answered.put((done, sent)))

    for _ in range(concurrency):
        send()
    in_flight, times = concurrency, []
    while in_flight:
        done, sent = answered.get()
        done.result()
        now = time.perf_counter()
        times.append(now - sent)
        if now < until:
            send()
        else:
            in_flight -= 1
    return times


def request(model: str, name: str, datatype: str, shape: list[int]) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8).astype(DATATYPES[datatype].dtype)
    message = ModelInferRequest(model_name=model, raw_input_contents=[pixels.tobytes()])
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    return message.SerializeToString()


if __name__ == "__main__":
    main()
