"""Fitting a model to a data set: deterministic by seed, stopped at once when it diverges."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Dataset
from inferry_trainer.errors import TrainingError
from inferry_trainer.pixels import scale_pixels


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to; losses are means an image, accuracies fractions of 1.

    Attributes:
        epoch: from 1.
        loss: over the epoch's training images, while the weights moved.
        accuracy: likewise.
        val_loss: over the validation images, after the epoch.
        val_accuracy: likewise.
        wall_s: seconds the epoch took, validation included.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float
    wall_s: float


StepListener = Callable[[int, int, float], None]
EpochListener = Callable[[EpochRecord], None]


def make_deterministic(seed: int) -> None:
    """Make what follows in this process a function of the seed: first weights, shuffling, dropout, kernels."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_model(
    model: Any,
    dataset: Dataset,
    config: RunConfig,
    *,
    on_epoch: EpochListener = lambda _: None,
    on_step: StepListener = lambda *_: None,
) -> list[EpochRecord]:
    """Fit a model in place with Adam and sparse categorical cross-entropy.

    Call `make_deterministic` before building the model to get the same weights every time.

    Args:
        model: a Keras model from `models`.
        dataset: its test images are not touched.
        config: epochs, batch size, learning rate.
        on_epoch: called after each epoch.
        on_step: called after each step with epoch and step, both from 1, and the epoch's loss so far.

    Returns:
        One record an epoch.

    Raises:
        TrainingError: the loss is no longer finite; names epoch and step.
    """
    records: list[EpochRecord] = []
    started = 0.0

    def begin_epoch(_epoch: int, _logs: object) -> None:
        nonlocal started
        started = time.monotonic()

    def end_step(step: int, logs: Mapping[str, float]) -> None:
        epoch, loss = len(records) + 1, float(logs["loss"])
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss became {loss} in epoch {epoch}, step {step + 1}, at learning rate {config.learning_rate:g}; "
                "nothing was saved. Lower the learning rate or look for damaged images"
            )
        on_step(epoch, step + 1, loss)

    def end_epoch(_epoch: int, logs: Mapping[str, float]) -> None:
        figures = {name: float(logs[name]) for name in ("loss", "accuracy", "val_loss", "val_accuracy")}
        records.append(EpochRecord(epoch=len(records) + 1, **figures, wall_s=time.monotonic() - started))
        on_epoch(records[-1])

    model.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,  # measured on two CPU cores: XLA takes twice as long here
    )
    model.fit(
        scale_pixels(dataset.train.images),
        dataset.train.labels,
        batch_size=config.batch_size,
        epochs=config.epochs,
        validation_data=(scale_pixels(dataset.validation.images), dataset.validation.labels),
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_begin=begin_epoch, on_train_batch_end=end_step, on_epoch_end=end_epoch
            )
        ],
        verbose=0,
    )
    return records
