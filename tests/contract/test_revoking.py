"""Streams of callers who may not open them any more end, with a status that is counted; those of others go on."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from inferry_proto import open_inference_pb2 as pb
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.app import Server
from inferry_server.security.roles import REFLECTION
from testkit import onnx_models
from testkit.policies import save_policy, token_of
from testkit.rpc import infer_request
from testkit.servers import running_server
from testkit.waiting import SOON_S, wait_until

STREAM = OPEN_INFERENCE["ModelStreamInfer"].path
WATCH = "/grpc.health.v1.Health/Watch"
DOUBLE = infer_request("doubler", x=np.ones((1, 3), np.float32)).SerializeToString()


class Stream:
    """A stream whose requests a test sends one at a time."""

    def __init__(self, channel: grpc.Channel, path: str, caller: str, first: bytes) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        stub: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
        metadata = (("authorization", f"Bearer {token_of(caller)}"),)
        self._call: Any = stub(iter(self._requests.get, None), timeout=SOON_S, metadata=metadata)
        self.ask(first)

    def ask(self, request: bytes) -> bytes:
        """What is replied to a request."""
        self._requests.put(request)
        return bytes(next(self._call))

    def end(self) -> str:
        """The code with which the server ends it, while the client says nothing."""
        with pytest.raises(grpc.RpcError):
            next(self._call)
        self._requests.put(None)
        return str(self._call.code().name)

    def cancel(self) -> str:
        """Take it back; the code with which it ends."""
        self._call.cancel()
        self._requests.put(None)
        return str(self._call.code().name)

    def finish(self) -> str:
        """Say that no more comes; the code with which it ends."""
        self._requests.put(None)
        assert not list(self._call)
        return str(self._call.code().name)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "policy.toml", revoked=("infer",), demoted=("infer",), kept=("infer",))


@pytest.fixture
def server(tmp_path: Path, policy: Path, transport: str) -> Iterator[Server]:
    onnx_models.save_doubler(tmp_path / "models")
    with running_server(tmp_path / "models", transport=transport, access_policy=policy) as it:
        yield it


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(str(server.grpc_address)) as opened:
        yield opened


def outcomes(server: Server, method: str) -> dict[tuple[str, ...], float]:
    """By code and reason."""
    return {labels[1:]: count for labels, count in server.metrics.outcomes.values().items() if labels[0] == method}


def obey(server: Server) -> None:
    for _ in range(2):
        server._watcher.look()


def test_open_streams_end_when_their_callers_lose_token_or_role_and_others_go_on(
    server: Server, channel: grpc.Channel, policy: Path
) -> None:
    revoked, demoted, kept = (Stream(channel, STREAM, caller, DOUBLE) for caller in ("revoked", "demoted", "kept"))
    watching = Stream(channel, WATCH, "revoked", b"")
    save_policy(policy, demoted=("read",), kept=("infer",))
    obey(server)
    assert (revoked.end(), demoted.end()) == ("UNAUTHENTICATED", "PERMISSION_DENIED")
    assert pb.ModelStreamInferResponse.FromString(kept.ask(DOUBLE)).infer_response.model_name == "doubler"
    assert kept.finish() == "OK"
    assert watching.cancel() == "CANCELLED"  # and not ended before: health is open to everybody
    expected = {
        ("UNAUTHENTICATED", "unauthenticated"): 1, ("PERMISSION_DENIED", "permission_denied"): 1, ("OK", ""): 1,
    }  # fmt: skip
    wait_until(lambda: outcomes(server, STREAM) == expected, "three streams to be counted, each once")
    received = server.metrics.received.values()
    assert received[(STREAM,)] == 3


def test_a_policy_that_is_refused_ends_no_stream(server: Server, channel: grpc.Channel, policy: Path) -> None:
    kept = Stream(channel, STREAM, "kept", DOUBLE)
    policy.write_text("callers = 1")
    obey(server)
    for _ in range(3):
        assert kept.ask(DOUBLE)
    assert kept.finish() == "OK"


def test_reflection_ends_with_its_role(tmp_path: Path, transport: str) -> None:
    onnx_models.save_doubler(tmp_path / "models")
    path = save_policy(tmp_path / "reflection.toml", 'reflection = "admin"', ops=("admin",))
    with (
        running_server(tmp_path / "models", transport=transport, access_policy=path) as server,
        grpc.insecure_channel(str(server.grpc_address)) as channel,
    ):
        stream = Stream(channel, REFLECTION[0], "ops", b"\x3a\x00")  # list_services
        save_policy(path, 'reflection = "admin"', ops=("read",))
        obey(server)
        assert stream.end() == "PERMISSION_DENIED"
