import io
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Dataset, Part
from inferry_trainer.errors import TrainingError
from inferry_trainer.progress import TrainingProgress, format_seconds
from inferry_trainer.train import EpochRecord, make_deterministic, train_model

CONFIG = RunConfig("bright", epochs=3, batch_size=16, learning_rate=0.01, validation_images=20)


def build_tiny_model() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(2, activation="softmax"),
        ]
    )


def bright_or_dark() -> Dataset:
    """Is the picture brighter than grey? 100 images for training, 20 for each other part."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 2, 140)
    images = (rng.integers(0, 128, (140, 8, 8, 1)) + 127 * labels[:, None, None, None]).astype(np.uint8)
    train, validation, test = (Part(images[cut], labels[cut]) for cut in (np.s_[:100], np.s_[100:120], np.s_[120:]))
    return Dataset("bright", ("dark", "bright"), train, validation, test, Preprocessing(), source="made up")


def train(seed: int) -> tuple[list[EpochRecord], list[Any]]:
    make_deterministic(seed)
    model = build_tiny_model()
    return train_model(model, bright_or_dark(), CONFIG), model.get_weights()


def test_the_same_seed_gives_the_same_weights_and_figures() -> None:
    (history, weights), (again, same) = train(1), train(1)
    assert all(np.array_equal(a, b) for a, b in zip(weights, same, strict=True))
    assert [replace(record, wall_s=0) for record in history] == [replace(record, wall_s=0) for record in again]


def test_another_seed_begins_with_other_weights() -> None:
    make_deterministic(1)
    one = build_tiny_model().get_weights()[0]
    make_deterministic(2)
    assert not np.array_equal(one, build_tiny_model().get_weights()[0])


def test_training_learns_and_reports_every_step_and_epoch() -> None:
    make_deterministic(1)
    steps: list[tuple[int, int]] = []
    epochs: list[EpochRecord] = []
    history = train_model(
        build_tiny_model(),
        bright_or_dark(),
        CONFIG,
        on_epoch=epochs.append,
        on_step=lambda epoch, step, _loss: steps.append((epoch, step)),
    )
    assert steps == [(epoch, step) for epoch in (1, 2, 3) for step in range(1, 8)]  # 100 images: the last step has 4
    assert history == epochs
    assert [record.epoch for record in history] == [1, 2, 3]
    assert history[-1].val_accuracy > 0.8
    assert history[-1].loss < history[0].loss


def test_a_loss_that_is_no_number_stops_training_and_names_epoch_and_step() -> None:
    make_deterministic(1)
    model = build_tiny_model()

    def poison(epoch: int, step: int, _loss: float) -> None:
        if (epoch, step) == (2, 3):
            model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])

    with pytest.raises(
        TrainingError, match=r"loss became nan in epoch 2, step 4, at learning rate 0\.01; nothing was saved"
    ):
        train_model(model, bright_or_dark(), CONFIG, on_step=poison)


def test_progress_in_a_log_is_one_line_an_epoch() -> None:
    log = io.StringIO()
    progress = TrainingProgress(12, 7, stream=log)
    progress.step(1, 1, 0.5)
    progress.epoch(EpochRecord(epoch=1, loss=0.5, accuracy=0.8, val_loss=0.25, val_accuracy=0.9, wall_s=10))
    assert log.getvalue() == (
        "epoch  1/12  loss 0.5000  accuracy 0.8000  val_loss 0.2500  val_accuracy 0.9000  10.0 s  ETA 1:50\n"
    )


def test_progress_on_a_terminal_counts_the_steps_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    TrainingProgress(2, 7, stream=screen).step(1, 3, 0.5)
    assert screen.getvalue() == "\r\x1b[Kepoch 1/2  step 3/7  loss 0.5000"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")])
def test_durations_read_as_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
