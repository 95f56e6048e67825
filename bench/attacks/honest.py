"""`python -m bench.attacks.honest PORT`: a good caller beside an attack, in a process of its own.

It asks about one picture every 20 ms, every tenth time over a new connection, until its standard input is closed.
Then it prints, as JSON, when it asked (monotonic seconds), how long the answer took, and what it was.
"""

import json
import random
import select
import sys
import time

import grpc
import numpy as np

from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from inferry_proto.services import OPEN_INFERENCE
from testkit.callers import own_channel

PATH = OPEN_INFERENCE["ModelInfer"].path
MODEL, INPUT, SIDE, CLASSES = "mnist", "images", 28, 10
_EVERY_S, _PATIENCE_S, _NEW_EVERY = 0.02, 30.0, 10
_CLOSE = 1e-5


def request(level: int, rows: int = 1, *, model: str = MODEL) -> bytes:
    """Pictures of one grey."""
    asked = ModelInferRequest(model_name=model)
    asked.inputs.add(name=INPUT, datatype="UINT8", shape=(rows, SIDE, SIDE, 1))
    asked.raw_input_contents.append(bytes((level,)) * (rows * SIDE * SIDE))
    return asked.SerializeToString()


def ask(channel: grpc.Channel, level: int) -> str:
    """The outcome of one request: OK, WRONG or a status."""
    infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
    try:
        reply = infer(request(level), timeout=_PATIENCE_S)
    except grpc.RpcError as error:
        return str(error.code().name)
    answer = np.frombuffer(ModelInferResponse.FromString(reply).raw_output_contents[0], np.float32)
    return "OK" if answer.shape == (CLASSES,) and np.allclose(answer, level / 255, atol=_CLOSE) else "WRONG"


def main() -> None:
    """Ask until nobody listens."""
    target, rng = f"127.0.0.1:{sys.argv[1]}", random.Random(1)
    asked: list[tuple[float, float, str]] = []
    with own_channel(target) as channel:
        while not select.select([sys.stdin], [], [], _EVERY_S)[0]:
            began, level = time.monotonic(), rng.randrange(256)
            if len(asked) % _NEW_EVERY == _NEW_EVERY - 1:
                with own_channel(target) as once:
                    outcome = ask(once, level)
            else:
                outcome = ask(channel, level)
            asked.append((began, time.monotonic() - began, outcome))
    json.dump(asked, sys.stdout)


if __name__ == "__main__":
    main()
