"""What a request held is free when it is answered: nobody waits for a garbage collection."""

import gc
import threading
from pathlib import Path

import grpc
import pytest

from bench.soak_traffic import Visits, save_models
from inferry_proto.services import OPEN_INFERENCE
from inferry_server.batching.request import InferenceRequest
from testkit.servers import running_server

COUNT = 20


def requests_alive() -> int:
    return sum(isinstance(thing, InferenceRequest) for thing in gc.get_objects())


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("kind", ["double", "classify", "failing", "stream"])
def test_a_request_with_its_reply_leaves_nothing_behind(tmp_path: Path, transport: str, kind: str) -> None:
    save_models(tmp_path)
    before = requests_alive()
    visits = Visits(1)
    with running_server(tmp_path, transport=transport) as server, grpc.insecure_channel(str(server.grpc_address)) as ch:
        if kind == "stream":
            stream: grpc.StreamStreamMultiCallable[bytes, bytes] = ch.stream_stream(
                OPEN_INFERENCE["ModelStreamInfer"].path
            )
            messages = [visit.message for visit in visits.stream() for _ in range(3)]
            assert len(list(stream(iter(messages), timeout=30))) == len(messages)
        else:
            for _ in range(COUNT):
                visit = getattr(visits, f"_{kind}")()
                ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = ch.unary_unary(visit.path)
                done = ask.future(visit.message, timeout=30)
                assert done.code().name in visit.expected
        pause = threading.Event()
        for _ in range(500):  # the batcher's thread still ends its last batch
            if requests_alive() == before:
                break
            pause.wait(0.02)
        assert requests_alive() == before
