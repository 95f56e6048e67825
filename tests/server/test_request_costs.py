"""What a request costs, counted instead of timed, by a clock that stands still: the same on a busy machine.

Who makes a count larger raises its bound here, with a reason; who makes it much smaller lowers it.
"""

import logging
import math
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from inferry_proto.datatypes import Arrays
from inferry_proto.open_inference_pb2 import ModelInferResponse
from inferry_server.runtime.session import OnnxSession
from inferry_server.security import client_certificates
from inferry_server.transport import completion_queue, unread_calls
from inferry_server.wire import encode
from testkit import onnx_models
from testkit.call_counter import CallCounter
from testkit.certificates import Authority
from testkit.clock import ManualClock
from testkit.played_grpc import PlayedGrpc, played_server
from testkit.policies import save_policy, token_of
from testkit.rpc import infer_request

SIDE, REQUESTS, ROUNDS = 28, 16, 3
KNOWN_PYTHON = sys.version_info[:2] == (3, 11)  # others call their own functions more or less often


def pictures(rows: int = 1) -> bytes:
    return infer_request("brightness", images=np.zeros((rows, SIDE, SIDE, 1), np.uint8)).SerializeToString()


@contextmanager
def ready(root: Path, played: PlayedGrpc, **settings: Any) -> Iterator[Callable[[int], None]]:
    """What plays so many rounds, on a server that has handled some: its plans and templates are made."""
    onnx_models.save_brightness(root, side=SIDE)
    with played_server(played, root, clock=ManualClock(), **settings) as transport:

        def play(rounds: int) -> None:
            left = iter(range(rounds - 1, -1, -1))
            played.play(transport, lambda: next(left) == 0)

        play(ROUNDS)
        yield play


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bounds are for Python 3.11")
@pytest.mark.parametrize(
    ("settings", "deadline_s", "most"),
    [({}, None, 92), ({}, 60.0, 99), ({"latency_objective_ms": 0.001}, None, 128)],
    ids=["answered", "answered, with a deadline", "refused"],
)
def test_a_request_takes_so_many_calls_of_functions(
    tmp_path: Path, settings: dict[str, Any], deadline_s: float | None, most: int
) -> None:
    played = PlayedGrpc(pictures(), REQUESTS, deadline_s)
    with ready(tmp_path, played, **settings) as play:
        counts = [CallCounter().count(partial(play, rounds)) for rounds in (1, 1 + ROUNDS)]
    a_request = (counts[1] - counts[0]) / (ROUNDS * REQUESTS)
    assert a_request <= most, f"{a_request:.1f} calls of functions a request; expected at most {most}"


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bounds are for Python 3.11")
def test_a_request_with_an_id_of_its_own_takes_few_calls_more(tmp_path: Path) -> None:
    message = infer_request("brightness", images=np.zeros((1, SIDE, SIDE, 1), np.uint8))
    message.id = "562949953421312"
    with ready(tmp_path, PlayedGrpc(message.SerializeToString(), REQUESTS)) as play:
        counts = [CallCounter().count(partial(play, rounds)) for rounds in (1, 1 + ROUNDS)]
    a_request = (counts[1] - counts[0]) / (ROUNDS * REQUESTS)
    assert a_request <= 98, f"{a_request:.1f} calls of functions a request; expected at most 98"


def calls_more(root: Path, metadata: Any = (), **settings: Any) -> float:
    """Calls of functions that settings add to a request."""
    counts = []
    for more in ({}, settings):
        played = PlayedGrpc(pictures(), REQUESTS, metadata=metadata)
        with ready(root, played, **more) as play:
            short, long = (CallCounter().count(partial(play, rounds)) for rounds in (1, 1 + ROUNDS))
        counts.append((long - short) / (ROUNDS * REQUESTS))
    return counts[1] - counts[0]


class MutualTls:
    """Mutual TLS whose clients gRPC's core is played to have.

    Attributes:
        settings: that turn it on.
        read: a call for each time that its connection's certificate was read.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        authority = Authority(folder, "authority")
        own, client = authority.issue("localhost", "DNS:localhost"), authority.issue("client", "DNS:client.test")
        pem, names = client.certificate.read_bytes(), [b"client.test"]
        self.read = list[object]()

        def auth_context(call: object) -> dict[bytes, list[bytes]]:
            self.read.append(call)
            return {b"x509_pem_cert": [pem], b"x509_subject_alternative_name": names, b"peer_dns": names}

        monkeypatch.setattr(unread_calls, "auth_context", auth_context)
        monkeypatch.setattr(unread_calls, "peer_identities", lambda _: names)
        monkeypatch.setattr(client_certificates, "_HOLDS_S", math.inf)  # or a busy machine would read again
        self.settings = {
            "tls_certificate": own.certificate, "tls_private_key": own.key, "tls_client_ca": authority.certificate,
        }  # fmt: skip


@pytest.fixture
def mutual_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MutualTls:
    return MutualTls(tmp_path, monkeypatch)


BY_CERTIFICATE = '[callers.by-certificate]\nroles = ["infer"]\ncertificates = ["DNS:client.test"]\n'
TOKEN = (("user-agent", "any"), ("authorization", f"Bearer {token_of('batch')}"))


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bounds are for Python 3.11")
def test_an_access_policy_takes_so_many_calls_of_functions_more(tmp_path: Path) -> None:
    policy = save_policy(tmp_path / "policy.toml", batch=("infer",))
    assert calls_more(tmp_path / "models", TOKEN, access_policy=policy) < 14


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bounds are for Python 3.11")
def test_a_clients_certificate_takes_so_many_calls_of_functions_more(tmp_path: Path, mutual_tls: MutualTls) -> None:
    assert calls_more(tmp_path / "models", **mutual_tls.settings) < 6
    assert len(mutual_tls.read) == 1


@pytest.mark.skipif(not KNOWN_PYTHON, reason="the bounds are for Python 3.11")
@pytest.mark.parametrize(("metadata", "most", "reads"), [(TOKEN, 19, 0), (TOKEN[:1], 18, 1)], ids=["token", "role"])
def test_a_role_by_token_or_certificate_beside_mutual_tls_takes_so_many_calls_of_functions_more(
    tmp_path: Path, mutual_tls: MutualTls, metadata: Any, most: int, reads: int
) -> None:
    policy = save_policy(tmp_path / "policy.toml", batch=("infer",))
    policy.write_text(policy.read_text() + BY_CERTIFICATE)
    assert calls_more(tmp_path / "models", metadata, access_policy=policy, **mutual_tls.settings) < most
    rounds = ROUNDS + 1 + (1 + ROUNDS)  # to be ready, and to count
    assert len(mutual_tls.read) == 1 + reads * rounds * REQUESTS  # a role is never decided by what was read before


def test_a_request_takes_one_call_asked_for_and_two_operations(tmp_path: Path) -> None:
    played = PlayedGrpc(pictures(), REQUESTS)
    with ready(tmp_path, played) as play:
        requested, begun = played.requested, played.begun
        play(ROUNDS)
    assert played.requested - requested == ROUNDS * REQUESTS
    assert played.begun - begun == 2 * ROUNDS * REQUESTS  # its message is received, and all of the answer sent


def test_calls_that_are_watched_are_played_to_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(completion_queue, "_WATCH_AFTER_S", 0.0)
    played = PlayedGrpc(pictures(), REQUESTS)
    with ready(tmp_path, played) as play:
        begun = played.begun
        play(ROUNDS)
    assert played.begun - begun > 2 * ROUNDS * REQUESTS  # a watch is one more operation
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_nobody_is_woken_for_what_is_computed_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    with ready(tmp_path, PlayedGrpc(pictures(), REQUESTS)) as play:
        for kind, name in ((threading.Condition, "notify"), (threading.Condition, "notify_all"), (Thread, "start")):
            monkeypatch.setattr(kind, name, lambda *_, name=name: woken.append(name))
        play(ROUNDS)
        monkeypatch.undo()
    assert woken == []


def test_replies_are_written_without_protobufs_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def counted(**fields: Any) -> ModelInferResponse:
        made.append(fields)
        return ModelInferResponse(**fields)

    with ready(tmp_path, PlayedGrpc(pictures(), REQUESTS)) as play:
        monkeypatch.setattr(encode, "ModelInferResponse", counted)
        play(ROUNDS)
        monkeypatch.undo()
    assert made == []


def test_the_pixels_of_a_request_that_fills_a_batch_are_computed_where_they_lie_in_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[object] = []
    original = OnnxSession.run

    def run(self: OnnxSession, inputs: Arrays) -> Arrays:
        base: Any = inputs["images"]
        while isinstance(base, np.ndarray):
            base = base.base
        owners.append(base)
        return original(self, inputs)

    monkeypatch.setattr(OnnxSession, "run", run)
    with ready(tmp_path, PlayedGrpc(pictures(rows=32), 1)) as play:
        owners.clear()
        play(1)
    assert [type(owner) for owner in owners] == [bytes]


def test_a_request_larger_than_a_batch_is_cut_without_copies(tmp_path: Path) -> None:
    rows = 256
    payload = rows * SIDE * SIDE
    with ready(tmp_path, PlayedGrpc(pictures(rows), 1)) as play:
        tracemalloc.start()
        try:
            play(1)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            play(1)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The message itself is made twice by the player: without its last byte, and with it.
    assert peak - before < 2.2 * payload
