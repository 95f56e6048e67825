"""Which thread decodes a picture, and that pictures that nobody waits for any more are not decoded."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ImageFile
from PIL.PngImagePlugin import PngImageFile

from inferry_proto import classifier_pb2 as pb
from inferry_proto.manifest_pb2 import Preprocessing
from inferry_server.batching.policy import BatchingPolicy
from inferry_server.batching.request import DeadlinePolicy
from inferry_server.errors import DecodingError, QueueFullError, TooManyTextsError
from inferry_server.models.loading import LoadOptions, load_version
from inferry_server.models.registry import IndexEntry, ModelRegistry, State
from inferry_server.models.repository import VersionFolder
from inferry_server.runtime.providers import CPU
from inferry_server.services.classifier import ClassifierService
from inferry_server.services.decoding import DecodingPool
from inferry_server.services.pictures import PictureLimits
from inferry_server.telemetry.metrics import ServerMetrics
from testkit import onnx_models
from testkit.calls import FakeCall
from testkit.pictures import a_jpeg, encode_picture, grey

SMALL_BYTES = 8 << 10
POLICY = BatchingPolicy(max_batch_size=4, max_request_rows=8, max_queue_size=64, max_queue_bytes=1 << 20)


class ManualPool(DecodingPool):
    """Keeps the jobs until the test runs them."""

    def __init__(self) -> None:
        super().__init__(1, max_waiting=64, max_bytes=1000)
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
        self.service = ClassifierService(registry, DeadlinePolicy(), self.pool, most_texts=4, clock=lambda: self.now)

    def ask(self, request: pb.ClassifyRequest) -> None:
        """Hand in a request whose reply nobody waits for."""
        self.service.classify(FakeCall(), request.SerializeToString())

    def classify(self, *pictures: bytes, deadline: float | None = None, small: bool = False) -> FakeCall:
        """A call whose picture fails if anybody decodes it, where none is given.

        Unless they shall be small, pictures have so many bytes behind their end that another thread decodes them.
        """
        call = FakeCall(deadline=deadline)
        padding = b"" if small else bytes(SMALL_BYTES)
        images = [pb.Image(encoded=picture + padding) for picture in pictures or (b"damaged",)]
        request = pb.ClassifyRequest(model_name="brightness", images=images)
        call.on_cancel(self.service.classify(call, request.SerializeToString()))
        return call


@pytest.fixture
def decoding(tmp_path: Path) -> Decoding:
    return Decoding(tmp_path)


def test_more_labels_than_may_be_are_refused_before_a_picture_is_decoded(decoding: Decoding) -> None:
    pictures = [pb.Image(encoded=bytes(SMALL_BYTES))] * 3
    with pytest.raises(TooManyTextsError, match="the reply to 3 pictures has 6 texts; expected at most 4"):
        decoding.ask(pb.ClassifyRequest(model_name="brightness", images=pictures, top_k=1 << 31))  # of two classes
    assert not decoding.pool.jobs
    for few in ({"images": pictures}, {"images": pictures[:2], "top_k": 1 << 31}):
        decoding.ask(pb.ClassifyRequest(model_name="brightness", **few))
    assert len(decoding.pool.jobs) == 2


def test_a_picture_that_is_wanted_is_decoded(decoding: Decoding) -> None:
    call = decoding.classify()
    decoding.pool.jobs[0]()
    assert "not a picture" in call.statuses[0].message


def test_small_pictures_are_decoded_by_the_thread_that_reads_the_request(decoding: Decoding) -> None:
    call = decoding.classify(encode_picture(grey(255, side=28)), encode_picture(grey(0)), small=True)
    assert decoding.pool.jobs == []
    assert decoding.version.close(5)  # with its answer
    (message,) = call.messages
    answer = pb.ClassifyResponse.FromString(message)
    assert [result.classifications[0].label for result in answer.results] == ["bright", "dark"]


def test_a_small_picture_that_is_none_is_refused_at_once(decoding: Decoding) -> None:
    with pytest.raises(DecodingError, match="image 1: not a picture"):
        decoding.classify(encode_picture(grey(9)), b"damaged", small=True)
    assert decoding.pool.jobs == []


@pytest.mark.parametrize("picture", [encode_picture(grey(9, side=91)), a_jpeg(17, side=16)], ids=["pixels", "scans"])
def test_a_small_file_that_is_much_work_goes_to_another_thread_undecoded(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch, picture: bytes
) -> None:
    with monkeypatch.context() as nothing_is_decoded:
        nothing_is_decoded.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
        call = decoding.classify(picture, small=True)
    (job,) = decoding.pool.jobs
    job()
    assert decoding.version.close(5)
    assert len(call.messages) == 1


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(1, 1 << 15))
def test_small_pictures_have_few_bytes_and_pixels_in_all(height: int, width: int, count: int, nbytes: int) -> None:
    usual = PictureLimits(max_scans=9)
    small = usual.small(Preprocessing(height=height, width=width), count=count, nbytes=nbytes)
    assert (small is not None) == (nbytes <= SMALL_BYTES and count * height * width <= 1 << 14)
    if small is not None:
        assert small.max_pixels * count <= 1 << 13
        assert (small.max_scans, small.timeout_s) == (9, usual.timeout_s)


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


def slow(decoding: Decoding, monkeypatch: pytest.MonkeyPatch, seconds: float) -> bytes:
    """A picture whose decoding takes so long, by the clock."""

    def load(self: ImageFile.ImageFile) -> None:
        for _ in range(round(seconds)):
            decoding.now += 1.0
            assert self.fp is not None
            self.fp.read(1)

    monkeypatch.setattr(PngImageFile, "load", load)
    return encode_picture(grey(9))


@pytest.mark.parametrize(
    ("deadline", "seconds", "code"),
    [(None, 30, "INVALID_ARGUMENT"), (5.0, 7, "DEADLINE_EXCEEDED")],
)
def test_a_picture_that_takes_too_long_to_decode_is_given_up_meanwhile(
    decoding: Decoding, monkeypatch: pytest.MonkeyPatch, deadline: float | None, seconds: float, code: str
) -> None:
    call = decoding.classify(slow(decoding, monkeypatch, seconds), deadline=deadline)
    decoding.pool.jobs[0]()
    assert call.statuses[0].code.name == code
    assert decoding.now <= 11.0 if deadline is None else decoding.now <= deadline


def test_a_server_that_stops_decodes_no_more(decoding: Decoding) -> None:
    call = decoding.classify(encode_picture(grey(9)))
    decoding.pool.close()
    decoding.pool.jobs[0]()
    assert call.statuses[0].code.name == "UNAVAILABLE"


def test_a_picture_far_larger_than_the_model_takes_is_refused(decoding: Decoding) -> None:
    call = decoding.classify(encode_picture(np.zeros((4097, 4096), np.uint8)))
    decoding.pool.jobs[0]()
    assert call.statuses[0].reason == "picture_too_costly"
    assert "at most 16777216" in call.statuses[0].message


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(1, 1 << 32))
def test_what_a_picture_may_have_follows_from_the_model_within_the_setting(height: int, width: int, most: int) -> None:
    pixels = PictureLimits(max_pixels=most).pixels_for(Preprocessing(height=height, width=width))
    assert pixels <= most
    assert pixels == most or pixels >= max(1 << 24, 1024 * height * width)


def test_the_pool_is_bounded_in_jobs_and_bytes_and_room_comes_back() -> None:
    pool = DecodingPool(1, max_waiting=64, max_bytes=100)
    pool.submit(lambda: None, nbytes=100)
    pool._pool.shutdown()  # waits for the job, and so for its room
    pool._check("bytes to decode", pool._bytes + 100, 100)
    with pytest.raises(QueueFullError, match="101 bytes to decode, the limit is 100"):
        pool.submit(lambda: None, nbytes=101)
    pool._jobs = pool._max_jobs
    with pytest.raises(QueueFullError, match="66 requests to decode, the limit is 65"):
        pool.submit(lambda: None, nbytes=1)
