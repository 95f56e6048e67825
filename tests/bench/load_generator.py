"""A closed loop of ModelInfer requests, in a process of its own: ADDRESS ROWS CONCURRENCY SECONDS.

Prints `{"wall_s": ..., "seconds": [...]}`: how long each answered request took. The request is built
once, and replies are not parsed, so that the generator costs as little as Python can.
"""

import json
import queue
import sys
import time

import grpc
import numpy as np

from inferry_proto.open_inference_pb2 import ModelInferRequest
from inferry_proto.services import OPEN_INFERENCE


def main() -> None:
    address, rows, concurrency, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    with grpc.insecure_channel(address) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(OPEN_INFERENCE["ModelInfer"].path)
        message = request(rows)
        infer(message, timeout=30)
        started = time.perf_counter()
        times = closed_loop(infer, message, concurrency, until=started + seconds)
        print(json.dumps({"wall_s": time.perf_counter() - started, "seconds": times}))


def request(rows: int) -> bytes:
    images = np.random.default_rng(0).integers(0, 256, (rows, 28, 28, 1), np.uint8)
    message = ModelInferRequest(model_name="mnist", raw_input_contents=[images.tobytes()])
    message.inputs.add(name="images", datatype="UINT8", shape=images.shape)
    return message.SerializeToString()


def closed_loop(
    infer: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", message: bytes, concurrency: int, *, until: float
) -> list[float]:
    """Keep so many requests in flight until a time; every one must be answered."""
    if concurrency == 1:
        return one_at_a_time(infer, message, until)
    answered: queue.SimpleQueue[tuple[grpc.Future[bytes], float]] = queue.SimpleQueue()

    def send() -> None:
        sent = time.perf_counter()
        infer.future(message, timeout=30).add_done_callback(lambda done: answered.put((done, sent)))

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


def one_at_a_time(infer: "grpc.UnaryUnaryMultiCallable[bytes, bytes]", message: bytes, until: float) -> list[float]:
    times = []
    while (sent := time.perf_counter()) < until:
        infer(message, timeout=30)
        times.append(time.perf_counter() - sent)
    return times


if __name__ == "__main__":
    main()
