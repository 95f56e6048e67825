"""A job that is told to stop does so in time, whatever its server does, and then leaves its folder alone."""

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from inferry_client.batch.decode import DecodeSettings
from inferry_client.batch.decoding import InlineDecoder
from inferry_client.batch.errors import StoppedError
from inferry_client.batch.folder import FolderInput
from inferry_client.batch.job import LocalEngine, run_job
from inferry_client.batch.keeping import Draining
from inferry_client.batch.opening import open_job
from inferry_client.batch.predict import PictureModel
from inferry_client.batch.settings import BatchSettings
from testkit import brightness_model
from testkit.batch_jobs import files_of


class _HangingTarget:
    """Answers every picture, and then hangs when it is asked whether it is still the same, until it is let go.

    Attributes:
        release: lets it go.
        threads: those that hang.
        stopped: whether calls were told to end.
    """

    def __init__(self, draining: Draining) -> None:
        spec = brightness_model.PREPROCESSING
        self.model = PictureModel("model", "1", "images", "scores", spec, ("dark", "bright"), 100, "digest")
        self.release = threading.Event()
        self.stopped = False
        self.threads: list[threading.Thread] = []
        self._draining = draining

    def infer(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(pixels), 2), 0.5, np.float32)

    def check_unchanged(self) -> None:
        self.threads.append(threading.current_thread())
        self._draining.begin()  # as SIGTERM does at this moment
        assert self.release.wait(60)

    def stop(self) -> None:
        self.stopped = True


@pytest.mark.parametrize("pictures", [10, 30], ids=["in its last part", "with parts to come"])
def test_a_server_that_hangs_when_a_part_is_complete_holds_up_no_stop(tmp_path: Path, pictures: int) -> None:
    brightness_model.write_pictures(tmp_path / "in", pictures)
    out, draining = tmp_path / "out", Draining(grace_s=0.0)
    target = _HangingTarget(draining)
    decoder = InlineDecoder(DecodeSettings(brightness_model.PREPROCESSING.SerializeToString(), 10_000))
    with open_job(FolderInput(tmp_path / "in"), BatchSettings(out, part_size=10), lambda _: target) as job:
        with pytest.raises(StoppedError, match="before the part that it was at was complete"):
            run_job(job, LocalEngine(decoder), progress=lambda *_: None, draining=draining)
        assert target.stopped
        left = files_of(out)
        target.release.set()
        for thread in target.threads:
            thread.join()
    assert files_of(out) == left
    assert not list(out.glob("part-*"))
