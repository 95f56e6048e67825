"""Processes that decode: whatever becomes of them, each picture is decoded once or is a fault."""

import errno
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass

import numpy as np
import psutil
import pytest

from inferry_client.batch.decode import DecodeSettings
from inferry_client.batch.decoding import ProcessDecoder
from inferry_client.batch.records import DataContent, MissingContent
from inferry_client.batch.settings import default_batch_size
from testkit import brightness_model


@dataclass(frozen=True)
class Killer:
    """A picture that ends whoever reads it, as one that takes all memory does."""

    def read(self, *, most_bytes: int) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError(most_bytes)


def test_a_picture_that_kills_its_decoder_is_an_error_and_its_neighbours_are_not() -> None:
    spec = brightness_model.PREPROCESSING
    good = DataContent(brightness_model.picture(9))
    with ProcessDecoder(DecodeSettings(spec.SerializeToString(), 1000), processes=1) as decoder:
        first = decoder.start([good, Killer(), good])()
        later = decoder.start([good])()
    assert (len(first.pixels), list(first.faults), len(first.digests)) == (2, [1], 3)
    assert "was killed" in first.faults[1].reason
    assert np.array_equal(later.pixels, first.pixels[:1])


def test_a_decoder_that_was_killed_is_replaced_and_what_it_had_is_decoded() -> None:
    spec = brightness_model.PREPROCESSING
    chunks = [[DataContent(brightness_model.picture(level))] for level in range(40)]
    with ProcessDecoder(DecodeSettings(spec.SerializeToString(), 1000), processes=1) as decoder:
        first = decoder.start(chunks[0])()
        (child,) = _decoders()
        waiting = [decoder.start(chunk) for chunk in chunks]
        child.kill()
        assert [len(one().pixels) for one in waiting] == [1] * len(chunks)
        assert np.array_equal(waiting[0]().pixels, first.pixels)
    assert not _decoders()


@pytest.mark.skipif(sys.platform != "linux", reason="no other system runs threads so")
def test_processes_that_decode_give_way_though_whoever_starts_them_does_not() -> None:
    settings = DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), 1000)
    with ProcessDecoder(settings, processes=2) as decoder:
        for one in [decoder.start([DataContent(brightness_model.picture(9))]) for _ in range(8)]:
            one()
        threads = [thread.id for child in _decoders() for thread in child.threads()]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_IDLE}


def test_where_no_process_can_be_started_any_more_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = brightness_model.PREPROCESSING
    with ProcessDecoder(DecodeSettings(spec.SerializeToString(), 1000), processes=1) as decoder:
        decoder.start([DataContent(brightness_model.picture(9))])()

        def refuse(*_: object, **__: object) -> None:
            raise BlockingIOError(errno.EAGAIN, "no more processes")

        monkeypatch.setattr(subprocess, "Popen", refuse)
        waiting = [decoder.start([Killer()]), *(decoder.start([DataContent(b"")]) for _ in range(5))]
        for one in waiting:
            with pytest.raises(BlockingIOError, match="no more processes"):
                one()


def _decoders() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "decoder_process" in " ".join(child.cmdline())]


def test_what_cannot_be_sent_to_a_process_is_an_error_where_it_is_waited_for() -> None:
    spec = brightness_model.PREPROCESSING
    with ProcessDecoder(DecodeSettings(spec.SerializeToString(), 1000), processes=1) as decoder:
        waiting = decoder.start([MissingContent(threading.Lock())])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cannot pickle"):
            waiting()
        assert len(decoder.start([DataContent(brightness_model.picture(9))])().pixels) == 1


def test_a_decoding_process_imports_neither_grpc_nor_pyarrow() -> None:
    program = "import sys, inferry_client.batch.decoder_process; print(*sys.modules)"
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=path)
    assert not {"grpc", "pyarrow", "onnxruntime", "argparse", "tqdm"} & set(done.stdout.split())


def test_small_pictures_travel_in_larger_requests_and_no_model_gets_more_than_it_takes() -> None:
    sizes = {28 * 28: 256, 48 * 48: 113, 64 * 64: 64, 224 * 224 * 3: 32, 1: 256}
    assert {size: default_batch_size(size, most=1024) for size in sizes} == sizes
    assert default_batch_size(28 * 28, most=100) == 100
    assert default_batch_size(224 * 224 * 3, most=8) == 8
