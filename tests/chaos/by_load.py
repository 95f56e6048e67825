"""More requests than the server can answer."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from chaos.account import LATE, Account
from chaos.models import MODEL, draw_picture, is_right
from chaos.scene import FaultError, Scene, Setup
from chaos.traffic import INFER, outcome_of
from inferry_proto.open_inference_pb2 import ModelInferResponse
from testkit.rpc import infer_request

_ROW_MS = 10.0
_OFFERED = 3.0  # times what the server can answer
_OVERLOAD_S = 60
_DEADLINE_S = 1.0
_CONNECTIONS = 4
_LEAST_ANSWERED = 0.5  # of what the device has time for; the rest is for machines that are busy otherwise
_REFUSALS = frozenset(("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED", LATE))


def slowed(folder: Path) -> Setup:
    """A server whose device takes 10 ms for a picture, whatever this machine can do."""
    options = ("--inline-batch-ms", "0", "--no-parallel-runs", "--max-batch-size", "4", "--max-request-rows", "4",
               "--max-queue-size", "64")  # fmt: skip
    program = (sys.executable, "-m", "rehearsal.slowed", str(_ROW_MS))
    return Setup(folder / "models", options, {"program": program})


def overload(scene: Scene) -> str:
    """Requests at even distances at three times the capacity, for a minute."""
    seconds = max(5, scene.times(_OVERLOAD_S))
    rate = _OFFERED * 1e3 / _ROW_MS
    rng = random.Random(1)
    channels = [scene.way.channel() for _ in range(_CONNECTIONS)]
    calls: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = [channel.unary_unary(INFER) for channel in channels]
    began, pending = time.monotonic(), []
    for number in range(round(seconds * rate)):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        picture = draw_picture(rng)
        scene.attack.send()
        message = infer_request(MODEL, images=picture).SerializeToString()
        pending.append((picture, calls[number % _CONNECTIONS].future(message, timeout=_DEADLINE_S)))
    for picture, call in pending:
        _count(scene.attack, picture, call)
    scene.over()
    for channel in channels:
        channel.close()
    check_overload(scene.attack)
    refused = ", ".join(f"{n} {outcome}" for outcome, n in (scene.attack.refused + scene.attack.failed).items())
    return (
        f"{_OFFERED:g} times what can be answered, for {seconds} s: {scene.attack.sent} requests, "
        f"{scene.attack.answered} answered, {refused}"
    )


def check_overload(account: Account) -> None:
    """What an overloaded server owes: answers to about as many requests as it has time for, a reason to the others.

    Raises:
        FaultError: it did something else.
    """
    if others := account.others(_REFUSALS):
        raise FaultError(f"requests that it had no time for ended otherwise than refused: {dict(others)}")
    least = account.sent / _OFFERED * _LEAST_ANSWERED
    if account.answered < least:
        raise FaultError(f"it answered {account.answered} of {account.sent} requests; expected {least:.0f} at least")


def _count(account: Account, picture: NDArray[np.uint8], call: Any) -> None:
    if call.exception() is not None:
        account.fail(outcome_of(call))
        return
    output = np.frombuffer(ModelInferResponse.FromString(call.result()).raw_output_contents[0], np.float32)
    account.end(right=is_right(picture, output))
