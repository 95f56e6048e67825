import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow is imported
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the trainer's entry does

from inferry_trainer.config import RunConfig
from inferry_trainer.export.candidate import Candidate
from inferry_trainer.workflow.export import ExportOptions, publish_candidate
from inferry_trainer.workflow.run import train_run
from testkit.tinted_digits import train_candidate


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run, one epoch long. Shared: read it, or copy it first."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    config = RunConfig("digits", epochs=1, batch_size=32, validation_images=180)
    train_run(config, out=folder, data_dir=None, overwrite=False, say=lambda _: None)
    return folder


@pytest.fixture(scope="session")
def tinted() -> Candidate:
    """A small colour network that can tell real digits apart, and its test images."""
    return train_candidate()


@pytest.fixture(scope="session")
def tinted_models(tinted: Candidate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the network in every precision. Shared: read it, or copy it first."""
    repository = tmp_path_factory.mktemp("repository")
    options = ExportOptions(repository, precisions=("float32", "float16", "int8"), max_accuracy_drop=0.6)
    publish_candidate(tinted, options, say=lambda _: None)
    return repository


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that holds no data set: nothing in the environment, an empty cache. Gives the cache's home."""
    home = tmp_path / "keras"
    monkeypatch.delenv("INFERRY_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(home))
    return home
