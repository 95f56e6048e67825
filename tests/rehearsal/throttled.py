"""One of two replicas is throttled to half: who balances by load gets nearly all that both can answer, unrefused.

Turn by turn, both get the same, and the slower one has its limit at two thirds of what both could do together.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import numpy as np

from inferry_client.connecting.channels import service_config
from rehearsal.gateway import Gateway
from rehearsal.numbers import Numbers
from rehearsal.pods import Pod
from rehearsal.traffic import DEADLINE_S, infer_request

ROW_MS = (10.0, 20.0)  # of the two: 100 and 50 requests a second
OFFERED = 0.9  # of the sum of both
COUNTED_S = 5.0
QUEUES_FILL_S = 6.0
BELIEVED_S = 14.0  # Envoy believes reports after ten seconds
CONNECTIONS_RENEWED_S = 12.0  # counted of gRPC's clients: the servers end connections after 13.5 to 16.5 s

SETTINGS = {
    "INFERRY_REPORT_LOAD": "true",
    "INFERRY_INLINE_BATCH_MS": "0",
    "INFERRY_PARALLEL_RUNS": "false",
    "INFERRY_MAX_BATCH_SIZE": "4",
    "INFERRY_MAX_REQUEST_ROWS": "4",
    "INFERRY_MAX_QUEUE_SIZE": "64",
}


@dataclass(frozen=True)
class Result:
    """What became of the requests.

    Attributes:
        balancing: how they were spread.
        answered: requests.
        refused: for want of capacity, or too late.
        other: failures of another kind, which there must be none of.
    """

    balancing: str
    answered: int
    refused: int
    other: tuple[str, ...]


def play_throttled(folder: Path, numbers: Numbers) -> list[Result]:
    """Ask by each way of balancing, at 0.9 of what both replicas can do.

    Args:
        folder: with the repository `one`; for Envoy's files.
        numbers: of the manifests.
    """
    pods = [Pod(folder / "one", _slowed(numbers), row_ms=row_ms) for row_ms in ROW_MS]
    addresses = [pod.address for pod in pods]
    shipped, spread = numbers.policy["loadBalancer"]["type"], service_config(health=False, spread=True)
    try:
        return [
            _through_envoy(folder, numbers, "RoundRobin", addresses, warm_s=QUEUES_FILL_S),
            _through_envoy(folder, numbers, shipped, addresses, warm_s=QUEUES_FILL_S),
            _through_envoy(folder, numbers, "BackendUtilization", addresses, warm_s=BELIEVED_S),
            _ask(
                "gRPC, as inferry's clients",
                f"ipv4:{','.join(addresses)}",
                spread,
                warm_s=QUEUES_FILL_S,
                counted_s=CONNECTIONS_RENEWED_S,
            ),
        ]
    finally:
        for pod in pods:
            pod.kill()


def _slowed(numbers: Numbers) -> Numbers:
    return replace(numbers, environment=numbers.environment | SETTINGS)


def _through_envoy(folder: Path, numbers: Numbers, kind: str, addresses: list[str], *, warm_s: float) -> Result:
    own = folder / f"envoy-{kind}"
    own.mkdir(exist_ok=True)
    gateway = Gateway(own, {**numbers.policy, "loadBalancer": {"type": kind}})
    gateway.set_endpoints("stable", addresses)
    with gateway.running():
        return _ask(f"Envoy, {kind}", gateway.address, json.dumps({}), warm_s=warm_s)


def _ask(balancing: str, target: str, config: str, *, warm_s: float, counted_s: float = COUNTED_S) -> Result:
    """Requests at even distances, whatever comes of them; those of the first seconds are not counted."""
    rate = OFFERED * sum(1e3 / row_ms for row_ms in ROW_MS)
    codes: Counter[str] = Counter()
    message = infer_request(np.ones(3, np.float32))
    options = [("grpc.service_config", config), ("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(target, options=options) as channel:
        infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer"
        )
        started = time.monotonic()
        calls = []  # all of them: gRPC cancels a call that nobody holds
        for number in range(round((warm_s + counted_s) * rate)):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            calls.append(infer.future(message, timeout=DEADLINE_S))
        for call in calls[round(warm_s * rate) :]:
            codes[call.code().name] += 1
    answered = codes.pop("OK", 0)
    refused = sum(codes.pop(code, 0) for code in ("RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"))
    return Result(balancing, answered, refused, tuple(sorted(codes)))


def faults_of(results: list[Result]) -> list[str]:
    """Those who balance by load refuse nobody, and turn by turn shows that it was not for nothing."""
    by_turn, *by_load = results
    found = [
        f"{one.balancing}: {one.refused} of {one.refused + one.answered} refused" for one in by_load if one.refused
    ]
    found += [f"{one.balancing}: {', '.join(one.other)}" for one in results if one.other]
    if not by_turn.refused:
        found.append("turn by turn refused nobody: the replica was not throttled")
    return found
