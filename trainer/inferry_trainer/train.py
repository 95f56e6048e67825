"""Fitting a model to a data set: deterministic by seed, taken up again after a kill, stopped when it diverges."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from inferry_trainer.batches import evaluation_batches, training_batches
from inferry_trainer.config import RunConfig
from inferry_trainer.datasets import Dataset
from inferry_trainer.errors import TrainingError

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch came to; losses are means an image, accuracies fractions of 1.

    Attributes:
        epoch: from 1.
        loss: over the epoch's training images, augmented, while the weights moved.
        accuracy: likewise.
        val_loss: over the validation images, after the epoch, with averaged weights where the recipe has them.
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


def steps_an_epoch(images: int, config: RunConfig) -> int:
    """How many batches an epoch has, the last and smaller one included."""
    return -(-images // config.batch_size)


def compile_model(model: Any, config: RunConfig, *, steps: int) -> None:
    """Give a model its optimizer, loss and metric.

    A network that ends in one number gives a logit: its loss is taken from that, and its decision is
    cut at logit 0, which is probability 0.5. Keras' default would cut the logit itself at 0.5.

    Args:
        model: from `models`.
        config: optimizer, schedule, regularisation.
        steps: an epoch has; the schedule counts in steps.
    """
    binary = model.output_shape[-1] == 1
    model.compile(
        optimizer=_optimizer(config, steps),
        loss=keras.losses.BinaryCrossentropy(from_logits=True) if binary else "sparse_categorical_crossentropy",
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0) if binary else "accuracy"],
        jit_compile=False,  # measured on two CPU cores: XLA takes twice as long here
    )
    model.optimizer.build(model.trainable_variables)


def train_model(
    model: Any,
    dataset: Dataset,
    config: RunConfig,
    *,
    on_epoch: EpochListener = lambda _: None,
    on_step: StepListener = lambda *_: None,
) -> list[EpochRecord]:
    """Fit a model in place.

    Call `make_deterministic` before building the model to get the same weights every time.

    Args:
        model: a Keras model from `models`.
        dataset: its test images are not touched.
        config: everything that decides the result.
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

    steps = steps_an_epoch(len(dataset.train), config)
    compile_model(model, config, steps=steps)
    callbacks: list[Any] = [
        keras.callbacks.LambdaCallback(on_epoch_begin=begin_epoch, on_train_batch_end=end_step, on_epoch_end=end_epoch)
    ]
    if config.ema_decay:
        callbacks.insert(0, keras.callbacks.SwapEMAWeights())  # while validating
    model.fit(
        training_batches(dataset.train, config, first_epoch=0),
        epochs=config.epochs,
        steps_per_epoch=steps,
        validation_data=evaluation_batches(dataset.validation, batch_size=_EVALUATION_BATCH),
        callbacks=callbacks,
        verbose=0,
    )
    return records


def _optimizer(config: RunConfig, steps: int) -> Any:
    settings: dict[str, Any] = {"learning_rate": _learning_rate(config, steps)}
    if config.ema_decay:
        settings |= {"use_ema": True, "ema_momentum": config.ema_decay}
    if not config.weight_decay:
        return keras.optimizers.Adam(**settings)
    optimizer = keras.optimizers.AdamW(weight_decay=config.weight_decay, **settings)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def _learning_rate(config: RunConfig, steps: int) -> Any:
    if config.schedule == "constant":
        return config.learning_rate
    warmup_steps = min(round(config.warmup_epochs * steps), config.epochs * steps // 2)  # short runs come down too
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=config.learning_rate / 100 if warmup_steps else config.learning_rate,
        decay_steps=config.epochs * steps - warmup_steps,
        warmup_target=config.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
