"""What a call costs the client above gRPC's own, counted instead of timed: the same on a busy machine.

Who makes a count larger raises its bound here, with a reason; who makes it much smaller lowers it.
"""

import asyncio
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np
import pytest

from inferry_client import AsyncClient, Batching, Client
from inferry_client.messages import requests
from inferry_client.messages.reply_plans import read_wire
from inferry_proto.open_inference_pb2 import ModelInferRequest, ModelInferResponse

KNOWN_PYTHON = sys.version_info[:2] == (3, 11)  # others call their own functions more or less often
PIXELS = {"images": np.zeros((1, 28, 28, 1), np.uint8)}
CALLERS = 64
OURS = {"inferry_client", "inferry_proto"}  # wherever the checkout is, and whatever it is called

pytestmark = pytest.mark.skipif(not KNOWN_PYTHON, reason="counts are those of Python 3.11")


def played(rows: int) -> ModelInferResponse:
    reply = ModelInferResponse(model_name="mnist", model_version="1")
    reply.outputs.add(name="probabilities", datatype="FP32", shape=[rows, 10])
    reply.raw_output_contents.append(bytes(40 * rows))
    return reply


def path() -> str:
    return requests.infer("mnist", PIXELS).method.path


class CallCounter:
    """Counts calls of functions, Python's and C's: ours and those that ours call, or everybody's."""

    def __init__(self, *, everybody: bool = False) -> None:
        self.counted: Counter[str] = Counter()
        self._everybody = everybody

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_call") and (self._everybody or OURS & {*Path(frame.f_code.co_filename).parts}):
            self.counted[frame.f_code.co_qualname] += 1

    def __enter__(self) -> Self:
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


def test_a_call_makes_few_calls_beyond_grpcs() -> None:
    client = Client("127.0.0.1:1")
    wire = played(1).SerializeToString()
    client._methods[(0, path())] = lambda *_, **__: read_wire(wire)
    client.infer("mnist", PIXELS)
    with CallCounter() as counter:
        client.infer("mnist", PIXELS)
    assert counter.counted.total() <= 22  # about 6 us in the processor's caches; replies are read among them


def test_calls_that_travel_together_make_few_calls_each() -> None:
    asked: list[int] = []

    async def method(request: Any, **_: Any) -> ModelInferResponse:
        asked.append(ModelInferRequest.FromString(request).inputs[0].shape[0])
        return played(asked[-1])

    async def ask() -> Counter[str]:
        client = AsyncClient("127.0.0.1:1", batching=Batching(max_in_flight=1))
        client._session._batch_limits["mnist", ""] = CALLERS
        client._methods[(0, path())] = method
        await client.infer("mnist", PIXELS)
        calls = [client.infer("mnist", PIXELS) for _ in range(CALLERS)]
        with CallCounter(everybody=True) as counter:  # asyncio's too: timers cost more than all of ours
            await asyncio.gather(*calls)
        return counter.counted

    counted = asyncio.run(ask())
    assert counted.total() / CALLERS <= 66
    assert asked == [1, CALLERS]
