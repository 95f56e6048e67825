import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from inferry_proto.manifest_pb2 import Preprocessing
from inferry_trainer.config import Augmentation, RunConfig
from inferry_trainer.datasets import Dataset, Part
from inferry_trainer.errors import ConfigError, RunFolderError, TrainingError
from inferry_trainer.training.checkpoint import read_checkpoint
from inferry_trainer.training.progress import TrainingProgress, format_seconds
from inferry_trainer.training.records import EpochRecord
from inferry_trainer.training.train import check_precision, is_over, make_deterministic, train_model

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


def without_times(history: list[EpochRecord]) -> list[EpochRecord]:
    return [replace(record, wall_s=0, cpu_s=0) for record in history]


def test_the_same_seed_gives_the_same_weights_and_figures() -> None:
    (history, weights), (again, same) = train(1), train(1)
    assert all(np.array_equal(a, b) for a, b in zip(weights, same, strict=True))
    assert without_times(history) == without_times(again)


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


class KilledError(Exception):
    """What ends a training between two epochs."""


EVERYTHING = replace(
    CONFIG,
    epochs=4,
    schedule="cosine",
    warmup_epochs=1.0,
    weight_decay=0.01,
    ema_decay=0.9,
    augmentation=Augmentation(flip=True, rotation_degrees=10, shear_degrees=5, zoom=0.1, shift=0.1, erase=0.5),
)


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    make_deterministic(1)
    straight = build_tiny_model()
    history = train_model(straight, bright_or_dark(), EVERYTHING, checkpoints=tmp_path / "straight")

    def kill(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KilledError

    make_deterministic(1)
    with pytest.raises(KilledError):
        train_model(build_tiny_model(), bright_or_dark(), EVERYTHING, checkpoints=tmp_path / "killed", on_epoch=kill)
    make_deterministic(7)  # another process begins elsewhere
    resumed = build_tiny_model()
    checkpoint = read_checkpoint(tmp_path / "killed")
    assert len(checkpoint.records) == 2
    again = train_model(resumed, bright_or_dark(), EVERYTHING, checkpoints=tmp_path / "killed", resume_from=checkpoint)
    assert without_times(again) == without_times(history)
    assert [record.epoch for record in again] == [1, 2, 3, 4]
    for one, other in zip(straight.get_weights(), resumed.get_weights(), strict=True):
        assert np.array_equal(one, other)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=1)
    train_model(build_tiny_model(), bright_or_dark(), config, checkpoints=tmp_path)
    with pytest.raises(RunFolderError, match="of another network or optimizer; start again without --resume"):
        train_model(
            build_tiny_model(),
            bright_or_dark(),
            EVERYTHING,
            checkpoints=tmp_path,
            resume_from=read_checkpoint(tmp_path),
        )


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=r"state\.npz is missing: there is nothing to resume"):
        read_checkpoint(tmp_path)
    (tmp_path / "state.npz").write_bytes(b"half")
    with pytest.raises(RunFolderError, match=r"state\.npz cannot be read"):
        read_checkpoint(tmp_path)


def test_training_stops_early_and_takes_the_best_epoch(tmp_path: Path) -> None:
    make_deterministic(1)
    model = build_tiny_model()
    best: list[Any] = []
    lowest = float("inf")

    def spoil_after_two(record: EpochRecord) -> None:
        nonlocal lowest
        if record.val_loss < lowest:
            lowest, best[:] = record.val_loss, model.get_weights()
        if record.epoch >= 2:
            model.set_weights([-weight for weight in model.get_weights()])

    config = replace(CONFIG, epochs=30, patience=2)
    history = train_model(model, bright_or_dark(), config, checkpoints=tmp_path, on_epoch=spoil_after_two)
    assert len(history) < 30
    assert is_over(history, config)
    for taken, expected in zip(model.get_weights(), best, strict=True):
        assert np.array_equal(taken, expected)
    resumed = build_tiny_model()  # nothing is left to do, and the best weights are not forgotten
    train_model(resumed, bright_or_dark(), config, resume_from=read_checkpoint(tmp_path))
    assert np.array_equal(resumed.get_weights()[0], best[0])


def test_a_network_with_one_logit_is_judged_at_probability_one_half() -> None:
    make_deterministic(1)
    layers = keras.layers
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.GlobalAveragePooling2D(), layers.Dense(1)])
    history = train_model(model, bright_or_dark(), replace(CONFIG, epochs=1, learning_rate=1e-8))
    validation = bright_or_dark().validation.prepare()
    logits = model.predict(validation.images / 255.0, verbose=0)[:, 0]
    assert history[-1].val_accuracy == pytest.approx(((logits > 0) == validation.labels).mean())
    expected = np.logaddexp(0, np.where(validation.labels == 1, -logits, logits)).mean()
    assert history[-1].val_loss == pytest.approx(expected, rel=1e-4)


def test_averaged_weights_are_the_models_and_what_is_validated() -> None:
    make_deterministic(1)
    model = build_tiny_model()
    raw: list[Any] = []
    config = replace(CONFIG, epochs=1, ema_decay=0.9)
    [record] = train_model(model, bright_or_dark(), config, on_epoch=lambda _: raw.extend(model.get_weights()))
    assert not np.array_equal(raw[0], model.get_weights()[0])
    validation = bright_or_dark().validation.prepare()
    answers = model.predict(validation.images / 255.0, verbose=0).argmax(axis=1)
    assert record.val_accuracy == pytest.approx((answers == validation.labels).mean())


def test_mixed_precision_is_refused_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda _: [])
    check_precision(CONFIG)
    with pytest.raises(ConfigError, match="mixed precision needs a GPU"):
        check_precision(replace(CONFIG, mixed_precision=True))


def test_tensorboard_can_read_the_curves(tmp_path: Path) -> None:
    train_model(build_tiny_model(), bright_or_dark(), replace(CONFIG, epochs=2), logs=tmp_path)
    points = []
    for name in ("training", "validation"):
        [file] = (tmp_path / name).iterdir()
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            points += [(name, value.tag, event.step) for value in event.summary.value]
    assert set(points) == {
        (name, tag, epoch)
        for name, tags in (("training", ("loss", "accuracy", "learning_rate")), ("validation", ("loss", "accuracy")))
        for tag in tags
        for epoch in (1, 2)
    }


def test_progress_in_a_log_is_one_line_an_epoch() -> None:
    log = io.StringIO()
    progress = TrainingProgress(12, 7, stream=log)
    progress.step(1, 1, 0.5)
    progress.epoch(EpochRecord(epoch=1, loss=0.5, accuracy=0.8, val_loss=0.25, val_accuracy=0.9, wall_s=10))
    assert log.getvalue() == (
        "epoch  1/12  loss 0.5000  accuracy 0.8000  val_loss 0.2500  val_accuracy 0.9000  10.0 s  ETA 1:50\n"
    )


def test_a_long_epoch_tells_a_log_once_a_minute_how_far_it_is() -> None:
    log, now = io.StringIO(), 0.0
    progress = TrainingProgress(2, 600, stream=log, clock=lambda: now)
    for step in range(1, 600):
        now += 0.5  # so that an epoch takes five minutes
        progress.step(1, step, 0.5)
    told = log.getvalue().splitlines()
    assert told[0] == "epoch 1/2  step 120/600  loss 0.5000  4:00 left of it"
    assert [line.split()[3] for line in told] == ["120/600", "240/600", "360/600", "480/600"]
    progress.epoch(EpochRecord(epoch=1, loss=0.5, accuracy=0.8, val_loss=0.25, val_accuracy=0.9, wall_s=300))
    now += 59
    progress.step(2, 118, 0.5)
    now += 1
    progress.step(2, 120, 0.5)
    assert log.getvalue().splitlines()[5:] == ["epoch 2/2  step 120/600  loss 0.5000  4:00 left of it"]


def test_progress_on_a_terminal_counts_the_steps_on_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = io.StringIO(), 0.0
    monkeypatch.setattr(screen, "isatty", lambda: True)
    progress = TrainingProgress(2, 7, stream=screen, clock=lambda: now)
    for step in (1, 2, 3):
        now += 0.15
        progress.step(1, step, 0.5)
    assert screen.getvalue() == "\r\x1b[Kepoch 1/2  step 2/7  loss 0.5000  0:01 left of it"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")])
def test_durations_read_as_a_clock(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
