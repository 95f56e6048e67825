"""Pictures that nobody waits for any more are not decoded."""

from collections.abc import Callable
from pathlib import Path

import pytest

from inferry_proto import classifier_pb2 as pb
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.errors import QueueFullError
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.registry import IndexEntry, ModelRegistry, State
from inferry_server.models.repository import VersionFolder
from inferry_server.runtime.providers import CPU
from inferry_server.services.classifier import ClassifierService
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.submission import DeadlinePolicy
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.calls import FakeCall

POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)


class ManualPool(DecodingPool):
    """Keeps the jobs until the test runs them."""

    def __init__(self) -> None:
        super().__init__(1, max_bytes=1000)
        self.jobs: list[Callable[[], None]] = []

    def submit(self, job: Callable[[], None], *, nbytes: int) -> None:
        self.jobs.append(job)


class Decoding:
    """A classifier service whose clock and decoding the test drives."""

    def __init__(self, root: Path) -> None:
        onnx_models.save_brightness(root)
        folder = VersionFolder("brightness", 1, root / "brightness" / "1")
        self.version = load_version(folder, LoadOptions((CPU,), 1, 1, POLICY, ServerMetrics()))
        registry = ModelRegistry(lambda: None)
        registry.put(IndexEntry("brightness", 1, State.READY, served=self.version))
        self.now = 0.0
        self.pool = ManualPool()
        self.service = ClassifierService(registry, DeadlinePolicy(), self.pool, clock=lambda: self.now)

    def classify(self, *, deadline: float | None = None) -> FakeCall:
        """A call whose picture fails if anybody decodes it."""
        call = FakeCall(deadline=deadline)
        request = pb.ClassifyRequest(model_name="brightness", images=[pb.Image(encoded=b"damaged")])
        self.service.classify(call, request.SerializeToString())
        return call


@pytest.fixture
def decoding(tmp_path: Path) -> Decoding:
    return Decoding(tmp_path)


def test_a_picture_that_is_wanted_is_decoded(decoding: Decoding) -> None:
    call = decoding.classify()
    decoding.pool.jobs[0]()
    assert "not a picture" in call.statuses[0].message


def test_a_cancelled_picture_is_not_decoded(decoding: Decoding) -> None:
    call = decoding.classify()
    call.cancel()
    decoding.pool.jobs[0]()
    assert call.statuses == []


def test_a_picture_whose_deadline_passed_is_not_decoded(decoding: Decoding) -> None:
    call = decoding.classify(deadline=5.0)
    decoding.now = 6.0
    decoding.pool.jobs[0]()
    assert call.statuses[0].code.name == "DEADLINE_EXCEEDED"


def test_the_pool_is_bounded_in_jobs_and_bytes_and_room_comes_back() -> None:
    pool = DecodingPool(1, max_bytes=100)
    pool.submit(lambda: None, nbytes=100)
    pool._pool.shutdown()  # waits for the job, and so for its room
    pool._check("bytes to decode", pool._bytes + 100, 100)
    with pytest.raises(QueueFullError, match="101 bytes to decode, the limit is 100"):
        pool.submit(lambda: None, nbytes=101)
    pool._jobs = pool._max_jobs
    with pytest.raises(QueueFullError, match="66 requests to decode, the limit is 65"):
        pool.submit(lambda: None, nbytes=1)
